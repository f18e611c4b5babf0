"""Orders against exact solutions: of the flow, of the distribution, of one step, of the path."""

from dataclasses import replace

import torch
from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.noise import BrownianPath, zeros
from diffusion_math.schedule import Schedule
from diffusion_math.testing.convergence import Fit, fit_order
from diffusion_math.testing.moments import exact_moments
from diffusion_math.testing.problems import GAUSSIAN, MIXTURE, flow
from diffusion_math.testing.sampler import Sampler

__all__ = ["COUNTS", "flow_order", "running_order", "start_order", "strong_order", "weak_order"]

COUNTS = (16, 32, 64, 128)
"""Steps of a ladder."""
STOP = 3.0
"""log-SNR where the ladder's error is taken: before the last stretch, which is a mean, no flow."""
FLOOR = 30
"""Errors below this many times the sampler's precision are taken for rounding."""
STEP_FLOOR = 3
"""The same of the error of one step, where no rounding adds up."""


def ladder(sampler: Sampler, counts: tuple[int, ...], uneven: bool = False) -> list[Tensor]:
    """The grids to measure on: smoothly uneven in log-SNR for a sampler of any grid, else its own.

    `uneven` has every other node moved by 0.4 of a step, however many there are.
    """
    schedule = sampler.schedule
    if not sampler.any_grid:
        require(not uneven, "uneven", "False for a sampler on its own grids", uneven)
        return [cut(schedule, sampler.times(n)) for n in counts]
    first = max(float(schedule.log_snr(schedule.t_max)), -4.0)
    grids = []
    for n in counts:
        part = torch.arange(n + 1, dtype=torch.float64, device="cpu")
        if uneven:
            part[1:-1:2] += 0.4
        part = part / n
        part = part if uneven else part + 0.25 * part * (1 - part)
        grids.append(schedule.time(first + (STOP - first) * part))
    return grids


def cut(schedule: Schedule, grid: Tensor) -> Tensor:
    """The nodes of a sampler's own grid to be compared: those up to `STOP`, two at least."""
    compared = int((schedule.log_snr(grid) <= STOP).sum())
    return grid[: max(compared, 2)]


def flow_order(sampler: Sampler, counts: tuple[int, ...] = COUNTS, uneven: bool = False) -> Fit:
    """Of the error against the exact flow of a mixture, root mean square over 16 starts.

    Its step size is the mean log-SNR a step. Raises ValueError for a sampler that draws noise.
    """
    require(not sampler.noisy, "sampler", "one that draws no noise", sampler.name)
    schedule, errors, sizes = sampler.schedule, [], []
    for n, compared in zip(counts, ladder(sampler, counts, uneven), strict=True):
        grid = compared if sampler.any_grid else sampler.times(n)
        start = flow(schedule, compared[:1])[0]
        states = sampler.states(MIXTURE.denoiser(schedule), start, grid, zeros)
        shown = sampler.any_grid or len(states) == len(grid) - 1
        require(shown, sampler.name, "all states", "the last alone")
        at = [len(compared) - 1]
        if len(compared) < len(grid) and grid[len(compared)] > schedule.t_min:
            at.append(len(compared))
        off = [
            states[-1 if sampler.any_grid else k - 1] - flow(schedule, grid[k : k + 1])[0]
            for k in at
        ]
        found = [float(one.square().mean().sqrt()) for one in off]
        errors.append(_at_stop(schedule.log_snr(grid[at]), found))
        sizes.append(mean_step(schedule, compared))
    return fit_order(sizes, errors, FLOOR * sampler.precision)


def _at_stop(levels: Tensor, errors: list[float]) -> float:
    """The error at log-SNR `STOP`, on a line of its logarithm between the nodes around."""
    if len(errors) == 1 or not min(errors) > 0:
        return errors[0]
    part = float((STOP - levels[0]) / (levels[1] - levels[0]))
    return float(errors[0] ** (1 - part) * errors[1] ** part)


def weak_order(sampler: Sampler, counts: tuple[int, ...] = COUNTS, uneven: bool = False) -> Fit:
    """Of the error of the output's covariance on Gaussian data: the weak error, exactly.

    The distance is Frobenius's norm of the covariance's error, plus the norm of the mean's.
    """
    schedule, errors, sizes = sampler.schedule, [], []
    for n, compared in zip(counts, ladder(sampler, counts, uneven), strict=True):
        grid = compared if sampler.any_grid else sampler.times(n)
        start = GAUSSIAN.marginal(schedule, compared[0]).moments()
        found = exact_moments(sampler, GAUSSIAN.denoiser(schedule), *start, grid)
        mean, covariance = GAUSSIAN.marginal(schedule, compared[-1]).moments()
        at = -1 if sampler.any_grid else len(compared) - 2
        off = (found.covariances[at] - covariance).norm() + (found.means[at] - mean).norm()
        errors.append(float(off))
        sizes.append(mean_step(schedule, compared))
    return fit_order(sizes, errors, FLOOR * sampler.precision)


def running_order(sampler: Sampler, counts: tuple[int, ...] = COUNTS) -> Fit:
    """Of the steps in the middle third of a run: the order of their local error, less 1.

    A step's start is the sampler's own state, carried on exactly: earlier errors do not count.
    """
    return _local_order(sampler, counts, start=False)


def start_order(sampler: Sampler, counts: tuple[int, ...] = COUNTS) -> Fit:
    """Of the first step: the order of its local error, less 1."""
    return _local_order(sampler, counts, start=True)


def _local_order(sampler: Sampler, counts: tuple[int, ...], start: bool) -> Fit:
    schedule, errors, sizes = sampler.schedule, [], []
    for n, compared in zip(counts, ladder(sampler, counts), strict=True):
        grid = compared if sampler.any_grid else sampler.times(n)
        if len(compared) < 3 or not bool(schedule.log_snr(compared[1:]).isfinite().all()):
            continue  # so coarse that all of it is the first step or the last
        x = flow(schedule, compared[:1])[0][:, [0, 1, 0]]
        states = [x, *sampler.states(GAUSSIAN.denoiser(schedule), x, grid, zeros)]
        require(len(states) == len(grid), sampler.name, "all states", "the last alone")
        steps = [0] if start else range(len(compared) // 3, len(compared) * 2 // 3)
        off = []
        for k in steps:
            exact = GAUSSIAN.probability_flow(
                schedule, states[k].double(), compared[k], compared[k + 1]
            )
            off.append((states[k + 1] - exact).square().mean())
        errors.append(float(torch.stack(off).mean().sqrt()))
        part = compared[steps[0] : steps[-1] + 2]
        unsized = start and not bool(schedule.log_snr(compared[0]).isfinite())  # from pure noise
        sizes.append(mean_step(schedule, compared if unsized else part))
    found = fit_order(sizes, errors, STEP_FLOOR * sampler.precision)
    return replace(
        found,
        order=found.order - 1,
        low=found.low - 1,
        high=found.high - 1,
        trend=found.trend - 1,
    )


def strong_order(sampler: Sampler, counts: tuple[int, ...] = (16, 32, 64), paths: int = 64) -> Fit:
    """Of the distance to the same sampler's run of 8 times as many steps along one Brownian path.

    Root mean square over the paths, on a mixture. For samplers of any grid whose noise is indexed
    by the times of its step, as `noise.Noise` says.
    """
    schedule = sampler.schedule
    require(sampler.any_grid, "sampler", "one that takes any grid", sampler.name)
    path = BrownianPath((0,), schedule.T)

    def source(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The rows as one event of one path: its normals are independent."""
        return path(x[None], t, s)[0]

    *grids, finest = ladder(sampler, (*counts, 8 * counts[-1]))
    x = flow(schedule, finest[:1], paths)[0]
    denoise = MIXTURE.denoiser(schedule)
    last = sampler.end(denoise, x, finest, source)
    ends = [sampler.end(denoise, x, grid, source) for grid in grids]
    errors = [float((end - last).square().mean().sqrt()) for end in ends]
    sizes = [mean_step(schedule, grid) for grid in grids]
    return fit_order(sizes, errors, FLOOR * sampler.precision)


def mean_step(schedule: Schedule, grid: Tensor) -> float:
    """log-SNR gained a step, on average; from pure noise, of the steps after the first."""
    levels = schedule.log_snr(grid)
    levels = levels[levels.isfinite()]
    return float(levels[-1] - levels[0]) / (len(levels) - 1)
