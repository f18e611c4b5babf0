"""The U-Net's loss (C19): which times it draws, what it asks of the network, how it weighs it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_math.schedule import Discrete
from sd.config import PREDICTIONS
from sd.train import unet
from sd.train.unet import unet_loss
from tests.support.chance import Cells, Mean, rare, seeded
from tests.support.distribution import Law
from tests.support.network_stand_ins import SCHEDULE, Knowing


def loss(network: Knowing, x0: Tensor, seed: int = 0) -> float:
    context = torch.zeros(len(x0), 1, 1)
    generator = seeded(seed)
    figures = unet_loss(SCHEDULE, network.prediction)(network, (x0, context), generator)
    return float(figures["loss"])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_knows_x0_has_no_loss(prediction: str) -> None:
    """The target belongs to the very time the network is told; rounding is (sigma_1)^-1 ulps."""
    x0 = torch.randn(256, 4, 2, 2, generator=seeded(1))
    assert loss(Knowing(prediction, x0), x0) < 1e-9
    if prediction != "sample":
        assert loss(Knowing(prediction, x0, off=2), x0) > 1e-6
        assert loss(Knowing(prediction, x0, off=0), x0) > 1e-6


@pytest.mark.chance(4e-9, "a weight a fifth too small")
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_error_in_x0_counts_its_square_times_the_weight(prediction: str) -> None:
    """E[weight] is a finite sum over t = 1..T, and the mean of 400,000 draws has a known law.

    The rounding adds at most 1e-4 of the value. x_0's weight is 1 at every t.
    """
    count = 400_000
    x0 = torch.zeros(count, 1, 1, 1)
    snr = SCHEDULE.log_snr(torch.arange(1, 1001)).exp()
    weight = {"epsilon": snr, "v_prediction": snr + 1.0, "sample": torch.ones_like(snr)}[prediction]
    found = loss(Knowing(prediction, x0, error=0.3), x0)
    if prediction == "sample":
        assert found == pytest.approx(0.09, rel=1e-4)
        return
    law = Law(0.09 * weight, torch.full_like(weight, 1e-3))
    bound = Mean(law, count, 1e-9)
    assert bound.low - 1e-4 * law.mean <= found <= bound.high + 1e-4 * law.mean
    assert rare(bound.misses(law.of(lambda value: 0.8 * value)))


@pytest.mark.chance(2e-9, "a range that leaves out t = 1, which 2 has instead")
def test_times_are_uniform_on_1_to_T() -> None:
    """E5: Pearson's sum over the 1000 times; 0..T-1 for the network."""
    x0 = torch.zeros(500_000, 1, 1, 1)
    network = Knowing("epsilon", x0)
    loss(network, x0)
    counts = torch.bincount(network.times[0].long(), minlength=1000)
    assert len(counts) == 1000
    expected = torch.full((1000,), len(x0) / 1000, dtype=torch.float64)
    bound, skewed = Cells(expected, 1e-9), expected.clone()
    assert bound.holds(counts.double())
    skewed[0], skewed[1] = 1e-9, 2 * skewed[1]
    assert rare(bound.misses(skewed))


def kernels() -> tuple[bool, bool]:
    """Whether attention may now use the plain kernel, and a fused one."""
    return torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()


def test_a_step_by_hand() -> None:
    """alpha_bar = 1/4 at the only time: x_t = x_0 / 2 + sqrt(3) / 2 eps, and 0 is answered.

    The loss is then the mean of eps^2. The generator gives the times first; on a CPU attention
    is computed without the fused kernels, whose backward pass is slow there.
    """
    schedule = Discrete(torch.tensor([0.75], dtype=torch.float64))
    x0, context = torch.tensor([[[[1.0, -2.0]]], [[[0.5, 3.0]]]]), torch.ones(2, 3, 5)
    asked: list[Any] = []

    class Silent(torch.nn.Module):
        def forward(self, x_t: Tensor, time: Tensor, given: Tensor) -> Tensor:
            asked.append((x_t, time, given, kernels()))
            return torch.zeros_like(x_t)

    found = unet_loss(schedule, "epsilon")(Silent(), (x0, context), seeded(4))
    generator = seeded(4)
    torch.randint(1, 2, (2,), generator=generator)
    eps = torch.randn(2, 1, 1, 2, generator=generator)
    (x_t, time, given, allowed), *others = asked
    assert not others and time.tolist() == [0.0, 0.0] and given is context
    torch.testing.assert_close(x_t, x0 / 2 + math.sqrt(0.75) * eps, rtol=1e-6, atol=1e-6)
    assert float(found["loss"]) == pytest.approx(float(eps.square().mean()), rel=1e-6)
    assert allowed == (True, False)


def test_times_are_those_of_the_generator() -> None:
    """Two calls with one seed draw the same eight of a thousand times, a third draws others."""
    drawn = []
    for seed in (0, 0, 1):
        network = Knowing("epsilon", torch.zeros(8, 1, 1, 1))
        loss(network, network.x0, seed)
        drawn.append(network.times[0].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_elsewhere_numbers_go_to_the_data_and_kernels_are_fused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device without numbers stands for a GPU."""
    seen: list[Any] = []

    def training_loss(schedule: Any, network: Any, kind: str, x0: Tensor, eps: Tensor, t: Tensor):
        seen.append((kind, eps.device.type, kernels()))
        return torch.tensor([3.0, 5.0])

    monkeypatch.setattr(unet, "training_loss", training_loss)
    x0 = torch.zeros(2, 4, 1, 1, device="meta")
    found = unet_loss(SCHEDULE, "v_prediction")(torch.nn.Identity(), (x0, x0), seeded(0))
    assert seen == [("v", "meta", (True, True))]
    assert float(found["loss"]) == 1.0
