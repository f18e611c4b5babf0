"""Whether a sampler's grids and levels are sound, step count by step count.

On data without spread (x_0 is always one point) the flow is a straight line, the reverse process a
Gaussian, and every solver that is exact for a constant x0 is exact at every step size. So what a
sampler gives back shows which noise level it thinks a node has, to rounding.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import final

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import zeros
from diffusion_math.testing.moments import Moments, exact_moments
from diffusion_math.testing.problems import POINT, point_denoiser
from diffusion_math.testing.sampler import Sampler, UnsupportedError

__all__ = ["FEW", "Finding", "grid_faults", "image_to_image", "levels", "residual_noise"]

PACKAGE = Path(__file__).parents[1]
"""The folder of this package, whose lines are not those of code that is audited."""

FEW = (1, 2, 3, 4, 5, 7, 10, 13, 20, 33, 50)
"""Numbers of steps that are run; all of them have their grids looked at."""


@final
@dataclass(frozen=True)
class Finding:
    """The worst that was found: how much, at how many steps, in words. `refused`: steps counted
    for which the sampler openly refuses."""

    worst: float
    steps: int | None
    words: str
    refused: int = 0


def grid_faults(sampler: Sampler, counts: Iterable[int]) -> Finding:
    """How many of the grids are not n steps, strictly falling, inside of the schedule."""
    faults: list[tuple[int | None, str]] = []
    refused = 0
    for n in counts:
        try:
            words = _fault(sampler, n)
        except UnsupportedError:
            refused += 1
            continue
        except Exception as crash:
            words = crashed(crash)
        faults += [(n, words)] if words else []
    return Finding(float(len(faults)), *(faults or [(None, "every grid is sound")])[0], refused)


def crashed(error: Exception) -> str:
    """What code that is audited raised, on one line: kind, message, and its own file and line."""
    frames = extract_tb(error.__traceback__)
    theirs = [one for one in frames if not Path(one.filename).is_relative_to(PACKAGE)]
    where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:120].rstrip(": ") + where


def _fault(sampler: Sampler, n: int) -> str:
    """What is wrong with a grid, or nothing; steps of no length are counted by `idle`."""
    grid, T = sampler.times(n), sampler.schedule.T
    if len(grid) != n + 1 and not (sampler.grouped and 2 <= len(grid) <= n + 1):
        return f"{len(grid) - 1} steps where {n} were asked for"
    if not bool(grid.isfinite().all()):
        return "a time that is not finite"
    if not bool((grid[1:] <= grid[:-1]).all()):
        k = int((grid[1:] > grid[:-1]).nonzero()[0])
        return f"step {k + 1} goes from t = {float(grid[k]):g} to {float(grid[k + 1]):g}"
    if not 0 <= float(grid[-1]) <= float(grid[0]) <= T:
        return f"times {float(grid[0]):g} to {float(grid[-1]):g} where 0 to {T:g} are valid"
    return ""


def idle(sampler: Sampler, counts: Iterable[int]) -> Finding:
    """How many grids have a step of no length: a call of the network that changes nothing."""
    found: list[tuple[int | None, str]] = []
    for n in counts:
        try:
            grid = sampler.times(n)
        except Exception:  # reported by `grid_faults`
            continue
        if bool((grid[1:] == grid[:-1]).any()):
            k = int((grid[1:] == grid[:-1]).nonzero()[0])
            found.append((n, f"step {k + 1} stays at t = {float(grid[k]):g}"))
    return Finding(float(len(found)), *(found or [(None, "every step has a length")])[0])


def levels(sampler: Sampler, counts: Iterable[int], part: float = 1.0) -> Finding:
    """The largest relative error of a node's level, mean and spread, on data without spread.

    From N(alpha m, sigma^2 I) at the first node, each state should be N(alpha_s m, sigma_s^2 I),
    and m itself at s = 0; the distribution is exact. The error of the standard deviation is taken
    relative to sigma_s, and that of the mean to max(sigma_s, 0.01).

    Args:
        part: the strength of an image-to-image run: this share of the grid's last steps is run.
    """
    worst = Finding(0.0, None, "every level is exact")
    refused = 0
    for n in counts:
        try:
            grid = sampler.times(n)
            at = grid[-1 - max(1, round(part * (len(grid) - 1))) :]
            found = _state_errors(sampler, at)
        except UnsupportedError:
            refused += 1
            continue
        except Exception as crash:
            return Finding(math.inf, n, crashed(crash), refused)
        k = max(range(len(found)), key=lambda i: _rank(found[i]))
        if _rank(found[k]) > worst.worst:
            step = len(at) - len(found) + k  # some samplers show the last state alone
            where = f"step {step} of {len(at) - 1}, into t = {float(at[step]):g}"
            worst = Finding(found[k], n, where)
    return Finding(worst.worst, worst.steps, worst.words, refused)


def _rank(value: float) -> float:
    """NaN is as bad as infinity."""
    return math.inf if math.isnan(value) else value


def _state_errors(sampler: Sampler, grid: Tensor) -> list[float]:
    def look(denoise: Denoiser) -> Tensor:
        found = on_a_point(sampler, grid, denoise)
        alpha, sigma = sampler.schedule(grid)
        return off_levels(found, alpha[-len(found.means) :], sigma[-len(found.means) :])

    return level_errors(sampler, look)


def level_errors(sampler: Sampler, look: Callable[[Denoiser], Tensor]) -> list[float]:
    """The largest error in each row of `look(point_denoiser)`; 0 where it is rounding.

    `look`: with a denoiser of data that are one point, how far off each level is, `(rows, 2, D)`.
    """
    found = look(point_denoiser)
    if bool((found.abs() > sampler.level_tolerance).any()):  # or nan: it stays
        eps = sampler.precision if sampler.rounding else 2.0**-52

        def rounded(x: Tensor, t: Tensor) -> Tensor:
            """As far off as a state of x's size is rounded, up and down by turns."""
            turns = 1 - 2 * (torch.arange(x.numel(), device="cpu").reshape(x.shape) % 2).to(x)
            return point_denoiser(x, t) + eps * turns * x.abs()

        reach = look(rounded) - found
        found = torch.where(found.abs() <= ROUNDINGS * reach.abs(), 0.0, found)
    errors: list[float] = found.abs().amax((1, 2)).tolist()
    return errors


ROUNDINGS = 16
"""Roundings of a state by which the level of a right sampler may be off: some steps amplify them.

Heun's step in sigma from 80 to 0.002 amplifies them a million times.
"""


def off_levels(found: Moments, alpha: Tensor, sigma: Tensor) -> Tensor:
    """How far mean and deviation of each entry of each state are off, `(states, 2, D)`."""
    alpha, sigma = alpha[:, None], sigma[:, None]
    means = (found.means - alpha * POINT) / sigma.clamp(min=0.01)
    deviations = torch.linalg.diagonal(found.covariances).sqrt()
    spreads = torch.where(sigma > 0, deviations / sigma - 1, deviations)
    return torch.stack([means, spreads], 1)


def on_a_point(sampler: Sampler, grid: Tensor, denoise: Denoiser = point_denoiser) -> Moments:
    """The moments of its states on data without spread, from N(alpha m, sigma^2 I) at grid[0]."""
    alpha, sigma = sampler.schedule(grid[0])
    covariance = sigma**2 * torch.eye(len(POINT), dtype=torch.float64, device="cpu")
    return exact_moments(sampler, denoise, alpha * POINT, covariance, grid)


PARTS = (0.1, 0.34, 0.5, 0.75)
"""Strengths of image-to-image runs."""


def image_to_image(sampler: Sampler, n: int, parts: Sequence[float] = PARTS) -> Finding:
    """`levels` of image-to-image runs of the given strengths, the worst of them."""
    found = [levels(sampler, (n,), part) for part in parts]
    worst = max(range(len(parts)), key=lambda i: _rank(found[i].worst))
    one = found[worst]
    words = one.words if one.steps is None else f"strength {parts[worst]:g}: {one.words}"
    return Finding(one.worst, one.steps, words, sum(each.refused for each in found))


def residual_noise(sampler: Sampler, counts: Sequence[int]) -> Finding | None:
    """Noise in a last step that goes to clean data: the largest standard deviation it leaves.

    Nothing may be left there: x_0 is the mean. Where the grid ends above 0 noise is in order.
    Of a sampler that is not `exact`, whose level may be off, the noise of the steps into 0 is
    taken alone. None where no number of steps can be run.
    """
    failed = 0
    worst = Finding(0.0, None, "no noise is left on clean data")
    for n in counts:
        try:
            grid = sampler.times(n)
            if float(grid[-1]) > 0:
                continue
            found = on_a_point(sampler, grid)
        except Exception:  # reported by `levels`
            failed += 1
            continue
        of_noise = [s == 0 for _, s in found.times]
        kept = torch.tensor([sampler.exact, *of_noise], device="cpu") | sampler.exact
        columns = found.columns[-1][kept.repeat_interleave(len(POINT))]
        left = float(columns.square().sum(0).amax().sqrt())
        if _rank(left) > worst.worst:
            worst = Finding(left, n, f"noise of standard deviation {left:.3g} on clean data")
    return worst if failed < len(counts) else None


def finite(sampler: Sampler, counts: Iterable[int]) -> Finding:
    """How many runs have a state that is not finite, from (sigma, sigma) with a denoiser of 0."""
    faults: list[tuple[int | None, str]] = []
    refused = 0
    for n in counts:
        try:
            grid = sampler.times(n)
            x = sampler.schedule(grid[0])[1].repeat(1, 2)
            states = sampler.states(lambda x, t: torch.zeros_like(x), x, grid, zeros)
        except UnsupportedError:
            refused += 1
            continue
        except Exception as crash:
            faults.append((n, crashed(crash)))
            continue
        bad = [k for k, state in enumerate(states) if not bool(state.isfinite().all())]
        faults += [(n, f"step {bad[0] + 1} is not finite")] if bad else []
    return Finding(float(len(faults)), *(faults or [(None, "every state is finite")])[0], refused)
