"""Toy densities in the plane, as exact mixtures: log-density, score, sampler and every q(x_t)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_math.checks import require, whole
from diffusion_math.oracle import GaussianMixture


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """Equal isotropic modes on a circle.

    m_k = radius (cos(2 pi k / modes), sin(2 pi k / modes)),    C_k = std^2 I

    Raises ValueError unless modes >= 1 and std > 0.
    """
    whole("modes", modes, 1)
    angles = 2 * math.pi / modes * torch.arange(modes, dtype=torch.float64)
    return _isotropic(radius * _on_circle(angles), std)


def grid25(spacing: float = 1.0, std: float = 0.1) -> GaussianMixture:
    """Twenty-five equal isotropic modes on a square grid about the origin.

    m_ij = spacing (i, j),    i, j in {-2, .., 2},    C_ij = std^2 I

    Raises ValueError unless std > 0.
    """
    line = spacing * torch.arange(-2, 3, dtype=torch.float64)
    return _isotropic(torch.cartesian_prod(line, line), std)


def two_moons(modes: int = 32, std: float = 0.1) -> GaussianMixture:
    """Two interleaved half circles of radius 1, each a chain of `modes` equal isotropic modes.

        upper: (cos a - 1/2, sin a - 1/4),    lower: the upper turned by pi about the origin
        a = pi k / (modes - 1),    k = 0 .. modes - 1,    C_k = std^2 I

    Unlike the usual uniform arc with noise added, this has an exact density at every t.
    Raises ValueError unless modes >= 2 and std > 0.
    """
    whole("modes", modes, 2)
    angles = torch.linspace(0, math.pi, modes, dtype=torch.float64)
    upper = _on_circle(angles) - torch.tensor([0.5, 0.25], dtype=torch.float64)
    return _isotropic(torch.cat([upper, -upper]), std)


DENSITIES: dict[str, Callable[[], GaussianMixture]] = {
    "ring": ring,
    "grid25": grid25,
    "two_moons": two_moons,
}
"""Every density by name, at its default settings."""


def _on_circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def _isotropic(means: Tensor, std: float) -> GaussianMixture:
    require(0 < std < math.inf, "std", "a positive number", std)
    variances = torch.full((len(means),), std**2, dtype=torch.float64)
    return GaussianMixture(torch.zeros(len(means)), means, variances)
