"""The time grid of a call: whether it is one, and that of a strength."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math.checks import Number, require, strictly_decreasing
from diffusion_math.grid import GRIDS
from diffusion_math.schedule import Discrete
from sd.config import ModelConfig

__all__ = ["default_strength", "img2img_grid", "require_grid"]


def require_grid(grid: str | Tensor, steps: int | None, strength: Number | None) -> None:
    """Raise ValueError unless the grid is a name, or times, which replace steps and strength."""
    if isinstance(grid, str):
        require(grid in GRIDS, "grid", f"one of {', '.join(GRIDS)}", repr(grid))
        return
    floating = isinstance(grid, Tensor) and grid.is_floating_point()
    require(floating, "grid", "a name, or a floating-point tensor", type(grid).__name__)
    strictly_decreasing("grid", grid)
    require(strength is None, "grid", "a name, with strength", grid)
    require(steps in (None, len(grid) - 1), "grid", "a name, with steps", grid)


def default_strength(config: ModelConfig, masked: bool) -> float:
    """The strength of an image without a given one: 0.8, and 1 with a mask.

    That of a distilled model is the nearest of its nodes.
    """
    strength, steps = 1.0 if masked else 0.8, config.sampling_steps
    return round(strength * steps) / steps if config.distilled else strength


def img2img_grid(
    schedule: Discrete, grid: str, steps: int, strength: Number
) -> Float[Tensor, " nodes"]:
    """The grid from t = round(strength T) down to 0, in round(strength steps) steps, at least one.

    Args:
        schedule: a schedule of T steps.
        grid: a name in `GRIDS`.
        steps: the number of steps at strength 1.
        strength: in (0, 1]; below 1 / (2T) the grid is 0 alone, so the image does not change.
    """
    level = round(strength * schedule.T)
    if level == 0:
        return torch.zeros(1, dtype=torch.float64, device="cpu")
    fewer = max(1, min(level, round(strength * steps)))
    return GRIDS[grid](schedule, fewer, start=level)
