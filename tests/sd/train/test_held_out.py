"""The held-out loss by level: that of the training at each time, the same in every call."""

import pytest
import torch
from torch import Tensor

from diffusion_math.loss import training_loss
from diffusion_math.schedule import Discrete
from sd.config import UNetConfig
from sd.networks.unet import UNet
from sd.train.held_out import loss_by_level

SCHEDULE = Discrete.scaled_linear(100)
X0 = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(3))
CONTEXT = torch.zeros(5, 3, 8)


def wrong(x: Tensor, time: Tensor, context: Tensor) -> Tensor:
    return 0.5 * x + 0.001 * time.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("batch", [2, 5])
def test_the_loss_is_that_of_the_training_at_each_time(batch: int) -> None:
    found = loss_by_level(wrong, SCHEDULE, "v_prediction", X0, CONTEXT, levels=4, batch=batch)
    assert [time for time, _ in found] == [12, 38, 62, 88]
    eps = torch.randn(X0.shape, generator=torch.Generator().manual_seed(0))
    for time, value in found:
        t = torch.full((5,), time)
        each = training_loss(SCHEDULE, lambda x, s: wrong(x, s, CONTEXT), "v", X0, eps, t)
        assert value == pytest.approx(float(each.sum()) / X0.numel(), rel=1e-5)


def test_a_u_net_has_the_same_loss_in_every_call() -> None:
    torch.manual_seed(0)
    config = UNetConfig(
        channels=(8,), layers_per_block=1, heads=1, context_width=8, attention=(True,), groups=4
    )
    unet = UNet(config).eval()
    first, again = (
        loss_by_level(unet, SCHEDULE, "epsilon", X0, CONTEXT, levels=2) for _ in range(2)
    )
    assert first == again and first[0][1] != first[1][1]
