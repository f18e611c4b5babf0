"""The U-Net's loss (C19): which times it draws, what it asks of the network, how it weighs it."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from diffusion_math.gaussian import marginal
from diffusion_math.schedule import Discrete
from sd.config import PREDICTIONS
from sd.train.unet import unet_loss

SCHEDULE = Discrete.scaled_linear(1000)


class Knowing(nn.Module):
    """Knows x_0 up to an error, and says it as eps, v or x_0; keeps the times it was fed."""

    def __init__(self, prediction: str, x0: Tensor, error: float = 0.0, off: int = 1) -> None:
        super().__init__()
        self.prediction, self.off, self.times = prediction, off, []
        self.x0 = x0 + error

    def forward(self, x_t: Tensor, time: Tensor, context: Tensor) -> Tensor:
        self.times.append(time)
        q = marginal(SCHEDULE, self.x0, (time + self.off).double().clamp(1, 1000))
        eps = (x_t - q.mean) / q.variance.sqrt()
        alpha = (1.0 - q.variance).sqrt()
        v = alpha * eps - q.variance.sqrt() * self.x0
        return {"epsilon": eps, "v_prediction": v, "sample": self.x0}[self.prediction]


def loss(network: Knowing, x0: Tensor, seed: int = 0) -> float:
    context = torch.zeros(len(x0), 1, 1)
    generator = torch.Generator().manual_seed(seed)
    figures = unet_loss(SCHEDULE, network.prediction)(network, (x0, context), generator)
    return float(figures["loss"])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_knows_x0_has_no_loss(prediction: str) -> None:
    """The target belongs to the very time the network is told; rounding is (sigma_1)^-1 ulps."""
    x0 = torch.randn(256, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    assert loss(Knowing(prediction, x0), x0) < 1e-9
    if prediction != "sample":
        assert loss(Knowing(prediction, x0, off=2), x0) > 1e-6
        assert loss(Knowing(prediction, x0, off=0), x0) > 1e-6


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_error_in_x0_counts_its_square_times_the_weight(prediction: str) -> None:
    """E[weight] is a finite sum over t = 1..T; the mean of 40,000 draws lies within 6 of its sd."""
    count = 40_000
    x0 = torch.zeros(count, 1, 1, 1)
    snr = SCHEDULE.log_snr(torch.arange(1, 1001)).exp()
    weight = {"epsilon": snr, "v_prediction": snr + 1.0, "sample": torch.ones_like(snr)}[prediction]
    expected = 0.09 * float(weight.mean())
    sd = 0.09 * float(weight.std()) / math.sqrt(count)
    # two-sided false alarm at 6 sd: 2e-9; the rounding adds at most 1e-4 of the value
    found = loss(Knowing(prediction, x0, error=0.3), x0)
    assert found == pytest.approx(expected, abs=6 * sd + 1e-4 * expected)


def test_times_are_uniform_on_1_to_T() -> None:
    """E5: chi-square over the 1000 times at a false-alarm rate of 1e-9; 0..T-1 for the network."""
    x0 = torch.zeros(200_000, 1, 1, 1)
    network = Knowing("epsilon", x0)
    loss(network, x0)
    counts = torch.bincount(network.times[0].long(), minlength=1000)
    assert len(counts) == 1000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-9
    skewed = counts.double().numpy().copy()
    skewed[0], skewed[1] = 0.0, skewed[0] + skewed[1]  # a range that leaves out t = 1
    assert stats.chisquare(skewed).pvalue < 1e-9
