"""The U-Net's loss (C19): which times it draws, what it asks of the network, how it weighs it."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from diffusion_math.gaussian import marginal
from diffusion_math.schedule import Discrete
from sd.train.unet import unet_loss

SCHEDULE = Discrete.scaled_linear(1000)


class Knowing(nn.Module):
    """Predicts the noise of one known x_0 exactly, plus an error; keeps the times it was fed."""

    def __init__(self, x0: Tensor, error: float = 0.0, off: int = 1) -> None:
        super().__init__()
        self.x0, self.error, self.off, self.times = x0, error, off, []

    def forward(self, x_t: Tensor, time: Tensor, context: Tensor) -> Tensor:
        self.times.append(time)
        q = marginal(SCHEDULE, self.x0, (time + self.off).double().clamp(1, 1000))
        return (x_t - q.mean) / q.variance.sqrt() + self.error


def loss(network: Knowing, x0: Tensor, max_snr: float = math.inf, seed: int = 0) -> dict:
    context = torch.zeros(len(x0), 1, 1)
    generator = torch.Generator().manual_seed(seed)
    return unet_loss(SCHEDULE, max_snr)(network, (x0, context), generator)


def test_a_network_that_knows_the_noise_has_no_loss_and_one_step_off_has() -> None:
    """The target is eps at the very time the network is told; rounding is (sigma_1)^-1 ulps."""
    x0 = torch.randn(256, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    assert float(loss(Knowing(x0), x0)["loss"]) < 1e-9
    assert float(loss(Knowing(x0, off=2), x0)["loss"]) > 1e-6
    assert float(loss(Knowing(x0, off=0), x0)["loss"]) > 1e-6


@pytest.mark.parametrize("max_snr", [math.inf, 5.0, 0.5])
def test_an_error_in_eps_counts_its_square_times_the_weight(max_snr: float) -> None:
    """E[weight] is a finite sum over t = 1..T; the mean of 40,000 draws lies within 6 of its sd."""
    count = 40_000
    x0 = torch.zeros(count, 1, 1, 1)
    figures = loss(Knowing(x0, error=0.3), x0, max_snr)
    snr = SCHEDULE.log_snr(torch.arange(1, 1001)).exp()
    weight = snr.clamp(max=max_snr) / snr
    expected = 0.09 * float(weight.mean())
    sd = 0.09 * float(weight.std()) / math.sqrt(count)
    # two-sided false alarm at 6 sd: 2e-9; the rounding of eps adds at most 1e-4 of the value
    assert float(figures["loss"]) == pytest.approx(expected, abs=6 * sd + 1e-4 * expected)
    assert float(figures["squared_error"]) == pytest.approx(0.09, rel=1e-3)
    if max_snr < math.inf:  # the unweighted loss is told apart
        assert abs(expected - 0.09) > 20 * sd


def test_times_are_uniform_on_1_to_T() -> None:
    """E5: chi-square over the 1000 times at a false-alarm rate of 1e-9; 0..T-1 for the network."""
    x0 = torch.zeros(200_000, 1, 1, 1)
    network = Knowing(x0)
    loss(network, x0)
    counts = torch.bincount(network.times[0].long(), minlength=1000)
    assert len(counts) == 1000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-9
    skewed = counts.double().numpy().copy()
    skewed[0], skewed[1] = 0.0, skewed[0] + skewed[1]  # a range that leaves out t = 1
    assert stats.chisquare(skewed).pvalue < 1e-9
