"""Densities of the plane on a square, ready to be drawn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_math.density import Density
    from diffusion_math.schedule import Schedule, Time


def density_on(line: Any, density: "Density", schedule: "Schedule", t: "Time") -> Any:
    """The exact density of x_t on line x line, rows along the second coordinate."""
    import torch

    axis = torch.from_numpy(line)
    ys, xs = torch.meshgrid(axis, axis, indexing="ij")
    at = torch.stack([xs.flatten(), ys.flatten()], dim=1)
    return density.log_density(schedule, at, t).exp().reshape(len(line), -1).numpy()
