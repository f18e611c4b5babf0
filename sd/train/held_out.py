"""The loss of a U-Net on images outside its training, by noise level."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math.loss import training_loss
from diffusion_math.schedule import Discrete
from sd.config import PREDICTIONS

__all__ = ["LEVELS", "loss_by_level"]

LEVELS = 10


@torch.no_grad()
def loss_by_level(
    unet: Callable[..., Tensor],
    schedule: Discrete,
    prediction: str,
    x0: Float[Tensor, "batch channel height width"],
    context: Float[Tensor, "batch token feature"],
    levels: int = LEVELS,
    batch: int = 50,
) -> list[tuple[int, float]]:
    """Times in the middle of equal parts of 1..T, each with the mean loss of the examples at it.

    `unet` maps (x_t, time, context) to its prediction. The loss is that of the training
    (`unet_loss`), per entry. The noise of an example is the same at all times and in every call, so
    that two networks are compared on the same numbers.
    """
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(x0.shape, generator=generator, device="cpu").to(x0)
    found = []
    for level in range(levels):
        time = max(1, round(len(schedule.betas) * (level + 0.5) / levels))
        total = 0.0
        for first in range(0, len(x0), batch):
            own = slice(first, first + batch)
            t = torch.full((len(x0[own]),), time, device="cpu")

            def network(x: Tensor, time: Tensor, own: slice = own) -> Tensor:
                return unet(x, time, context[own].to(x.device)).float()

            kind = PREDICTIONS[prediction]
            total += float(training_loss(schedule, network, kind, x0[own], eps[own], t).sum())
        found.append((time, total / x0.numel()))
    return found
