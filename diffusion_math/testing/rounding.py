"""The precision that a sampler computes in, seen in a short run."""

from dataclasses import replace

import torch

from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.trial import holds, trial

__all__ = ["LEVELS", "narrowest", "rounded"]

NARROW = (torch.bfloat16, torch.float16, torch.float32)
"""Narrower than float64, coarsest rounding first."""

LEVELS = 4096
"""Roundings of its dtype that a right sampler's levels are off by at most. Measured in float32:
2753 for `pndm`, whose steps divide by VP's alpha = 0.0066 at T; below 200 for all others."""


def narrowest(sampler: Sampler) -> torch.dtype:
    """The narrowest floating-point type that the sampler computes in.

    That is a type which holds all entries of a state or of a denoiser's input, or the dtype of an
    operand of its own arithmetic, such as a table of noise levels. A float64 tensor whose entries
    are all float32 numbers was computed in float32; 32 entries are so by chance once in 2^928.
    """
    seen = trial(sampler)
    if seen is None:
        return torch.float64
    tensors = [*seen.states, *seen.inputs]
    found = (
        dtype for dtype in NARROW if dtype in seen.narrow or any(holds(dtype, x) for x in tensors)
    )
    return next(found, torch.float64)


def rounded(sampler: Sampler) -> Sampler:
    """The sampler with its `precision` and `level_tolerance` widened to the rounding of its dtype.

    What is declared in the sampler stays as it is.
    """
    plain = Sampler.precision, Sampler.level_tolerance
    declared = (sampler.precision, sampler.level_tolerance) != plain
    dtype = torch.float64 if declared else narrowest(sampler)
    if dtype == torch.float64:
        return sampler
    eps = torch.finfo(dtype).eps
    return replace(sampler, precision=eps, level_tolerance=LEVELS * eps, rounding=str(dtype)[6:])
