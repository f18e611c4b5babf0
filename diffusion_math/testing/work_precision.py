"""Work and precision: the error of a run for its NFE, and its seconds."""

import time
from dataclasses import dataclass
from typing import final

from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.noise import zeros
from diffusion_math.testing.order import ladder
from diffusion_math.testing.problems import MIXTURE, flow
from diffusion_math.testing.sampler import Sampler

__all__ = ["Point", "work"]


@final
@dataclass(frozen=True)
class Point:
    """One run: its steps, NFE, seconds, and root mean square error."""

    steps: int
    calls: int
    seconds: float
    error: float


def work(
    sampler: Sampler, counts: tuple[int, ...] = (4, 8, 16, 32, 64, 128), copies: int = 1
) -> list[Point]:
    """Errors against the exact flow of a mixture, on the grids of `order.flow_order`.

    Args:
        sampler: a deterministic one that takes any grid.
        copies: how often each of the 16 starts is sampled from at once: the weight of the denoiser
            against that of the sampler's own arithmetic.

    Raises:
        ValueError: another sampler.
    """
    valid = sampler.any_grid and not sampler.noisy
    require(valid, "sampler", "a deterministic one that takes any grid", sampler.name)
    denoise, found = MIXTURE.denoiser(sampler.schedule), []
    for n, grid in zip(counts, ladder(sampler, counts), strict=True):
        calls = 0

        def counted(x: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return denoise(x, t)

        start, wanted = flow(sampler.schedule, grid[[0, -1]]).repeat(1, copies, 1)
        begun = time.perf_counter()
        end = sampler.end(counted, start, grid, zeros)
        seconds = time.perf_counter() - begun
        error = float((end - wanted).square().mean().sqrt())
        found.append(Point(n, calls, seconds, error))
    return found
