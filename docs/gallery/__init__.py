"""Right code and wrong lines for every hand-made mistake of `diffusion_math.testing`."""

from . import distributions, likelihood, noise_levels, predictions, sampling, training
from .subject import Subject, diagnosis, program, recorded

__all__ = ["GALLERY", "Subject", "diagnosis", "program", "recorded"]

GALLERY = (
    *distributions.SUBJECTS,
    *predictions.SUBJECTS,
    *sampling.SUBJECTS,
    *noise_levels.SUBJECTS,
    *training.SUBJECTS,
    *likelihood.SUBJECTS,
)
