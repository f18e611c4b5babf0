"""The precision that a sampler computes in, seen in its states and in the denoiser's inputs."""

from dataclasses import replace

import torch
from torch import Tensor

from diffusion_math.testing.problems import MIXTURE, starts
from diffusion_math.testing.sampler import Sampler

__all__ = ["LEVELS", "narrowest", "rounded"]

NARROW = (torch.bfloat16, torch.float16, torch.float32)
"""Narrower than float64, coarsest rounding first."""

LEVELS = 4096
"""Roundings of its dtype that a right sampler's levels are off by at most. Measured in float32:
2753 for `pndm`, whose steps divide by VP's alpha = 0.0066 at T; below 200 for all others."""


def narrowest(sampler: Sampler) -> torch.dtype:
    """The narrowest floating-point type that holds all of a run's states, or all denoiser inputs.

    The denoiser is evaluated at the states in between. A float64 tensor whose entries are all
    float32 numbers was computed in float32; 32 entries are so by chance once in 2^928.
    """
    for n in (4, 8, 2):  # some samplers take one of them alone
        try:
            seen = _tensors(sampler, n)
        except Exception:  # code that is audited may raise anything; the checks tell of it
            continue
        found = [dtype for dtype in NARROW if any(_holds(dtype, x) for x in seen)]
        return found[0] if found else torch.float64
    return torch.float64


def rounded(sampler: Sampler) -> Sampler:
    """The sampler with its `precision` and `level_tolerance` widened to the rounding of its dtype.

    What is declared in the sampler stays as it is.
    """
    plain = Sampler.precision, Sampler.level_tolerance
    dtype = (
        narrowest(sampler)
        if (sampler.precision, sampler.level_tolerance) == plain
        else torch.float64
    )
    if dtype == torch.float64:
        return sampler
    eps = torch.finfo(dtype).eps
    return replace(sampler, precision=eps, level_tolerance=LEVELS * eps, rounding=str(dtype)[6:])


def _tensors(sampler: Sampler, n: int) -> list[Tensor]:
    grid, evaluated = sampler.times(n), list[Tensor]()
    denoise = MIXTURE.denoiser(sampler.schedule)
    generator = torch.Generator().manual_seed(0)

    def recording(x: Tensor, t: Tensor) -> Tensor:
        evaluated.append(x)
        return denoise(x, t)

    def noise(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)

    x = sampler.schedule(grid[0])[1] * starts()
    states = sampler.states(recording, x, grid, noise)
    return [*states, *evaluated[1:]]  # the first input is the start itself


def _holds(dtype: torch.dtype, x: Tensor) -> bool:
    exact = x.detach().double()
    return bool(exact.count_nonzero() > 0) and torch.equal(exact.to(dtype).double(), exact)
