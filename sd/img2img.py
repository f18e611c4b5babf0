"""How much of an image is redrawn: where on the schedule its walk starts."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math.checks import Number
from diffusion_math.grid import GRIDS
from diffusion_math.schedule import Discrete

__all__ = ["DEFAULT_STRENGTH", "img2img_grid"]

DEFAULT_STRENGTH = 0.8
"""Of an image that is given without a strength."""


def img2img_grid(
    schedule: Discrete, grid: str, steps: int, strength: Number
) -> Float[Tensor, " nodes"]:
    """The grid from t = round(strength T) down to 0, in round(strength steps) steps, at least one.

    Args:
        schedule: of T steps.
        grid: a name in `GRIDS`.
        steps: that strength 1 takes.
        strength: in (0, 1]; below 1 / (2T) the grid is 0 alone: there is nothing to redraw.
    """
    level = round(strength * schedule.T)
    if level == 0:
        return torch.zeros(1, dtype=torch.float64)
    fewer = max(1, min(level, round(strength * steps)))
    return GRIDS[grid](schedule, fewer, start=level)
