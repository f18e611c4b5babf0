"""Test distributions with an exact density, score and denoiser under every schedule.

Gaussian mixtures (with labels: `Labelled`), 2D toy densities by name (`DENSITIES`),
full-covariance Gaussians (`multivariate`), the score's Jacobian and Cov[x_0 | x_t]
(`second_order`), samples of the exact reverse process (`reverse_kernel`).
"""

from diffusion_math.densities import multivariate, reverse_kernel, second_order
from diffusion_math.densities.banana_funnel import Ribbon, banana, funnel
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.labelled import Labelled
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import (
    DENSITIES,
    Density,
    grid25,
    pinwheel,
    ring,
    spirals,
    two_moons,
)

__all__ = [
    "DENSITIES",
    "Checkerboard",
    "Density",
    "GaussianMixture",
    "Labelled",
    "Ribbon",
    "banana",
    "funnel",
    "grid25",
    "multivariate",
    "pinwheel",
    "reverse_kernel",
    "ring",
    "second_order",
    "spirals",
    "two_moons",
]
