"""Gaussians and classes on the line, to be guided."""

import torch

from diffusion_math.densities.labelled import Labelled
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.guidance_law import SCHEDULE
from tests.support.tensors import f64


def one(mean, variance):
    """N(mean, variance) of one number, as a Gaussian and as a denoiser."""
    law = Gaussian(f64([mean]), f64(variance))
    mixture = GaussianMixture(f64(0.0), f64([mean]), f64(variance))
    return law, mixture.denoiser(SCHEDULE)


WIDE, NARROW = (0.3, 2.0), (1.5, 0.7)
CLASSES = Labelled(
    GaussianMixture(f64(0.5, 0.2, 0.3).log(), f64([-1.0], [0.5], [3.0]), f64(0.5, 0.3, 0.2)),
    torch.tensor([0, 1, 1]),
)
