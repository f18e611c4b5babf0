"""The densities on the line that the errata are shown on."""

import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VE

PLAIN = VE()
"""At t = 0 it leaves a density as it is; at t it adds t^2 to the variance and no more."""


def two_gaussians() -> GaussianMixture:
    """0.35 N(-1, 0.25^2) + 0.65 N(1, 0.25^2), an event of shape ()."""
    weights = torch.tensor([0.35, 0.65], dtype=torch.float64)
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    return GaussianMixture(weights.log(), means, torch.full((2,), 0.25**2, dtype=torch.float64))


def normal() -> GaussianMixture:
    """N(0, 1), an event of shape ()."""
    return GaussianMixture(torch.zeros(1), torch.zeros(1), torch.ones(1))
