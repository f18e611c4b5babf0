"""Grids optimised for a solver, an NFE budget and a denoiser, by the error of the final samples.

A grid of n steps has two fixed ends. The free parameters are the fractions g_1, ..., g_n of log-SNR
between neighbouring nodes; every theta gives a strictly decreasing grid,

    ell_i = ell_low + (ell_high - ell_low) (g_1 + ... + g_i),    i = 1 .. n - 1
    g     = LEAST + (1 - n LEAST) softmax(theta_1, ..., theta_{n-1}, 0)

Infinite ends are replaced by t_min and t_max, as in `grid.uniform_log_snr`; unlike there, the last
inner node need not be t_min. Derivation: (grids.1), (grids.2).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import (
    Number,
    checked,
    differentiable,
    require,
    same_shape,
    strictly_decreasing,
    whole,
)
from diffusion_math.denoiser import Denoiser
from diffusion_math.sample import final
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.step import Step

__all__ = [
    "blended",
    "cosines",
    "distances",
    "end_of",
    "errors",
    "fit_grid",
    "fit_grid_of",
    "flattened",
    "grid_of_logits",
    "in_medians",
    "logits_of_grid",
    "robust_least_squares",
    "robust_residuals",
]  # fmt: skip

LEAST = 1e-4
"""The smallest fraction of the log-SNR between two nodes."""
NUDGE = 1e-3
"""The finite-difference step of theta: far above a float32 network's rounding."""


@checked
def fit_grid(
    step: Step,
    schedule: Schedule,
    denoise: Denoiser,
    starts: Float[Tensor, "batch *event"],
    ends: Float[Tensor, "batch *event"],
    grid: Float64[Tensor, " nodes"],
    scale: Number = math.inf,
    modes: int | None = None,
    rounds: int = 30,
) -> Float64[Tensor, " nodes"]:
    """The grid of as many nodes, with the same ends, that minimises a solver's final error.

        minimise over theta    mean_i rho(e_i^2),    e_i^2 = mean over the event of (x_i - ends_i)^2
        rho(u) = c^2 log(1 + u / c^2),    rho(u) = u at c = infinity

    by nonlinear least squares (a trust region with Gauss-Newton's model) and finite differences.
    theta is a sum of cosines over the gaps; fewer of them make the grid smoother, the search
    cheaper, and overfitting to the starts smaller. The result is deterministic. The cost is about
    rounds x modes trajectories of all starts.

    Args:
        step: a deterministic solver's step.
        schedule: the step's; gives the log-SNR that places the nodes.
        denoise: `(x_t, t) -> E[x_0 | x_t]`.
        starts: `(batch, *event)` at `grid[0]`. Use hundreds: a few would be overfitted.
        ends: `(batch, *event)`, the flow's end of each start, from a fine grid.
        grid: `(nodes,)`, the initial grid. The result is never worse than it on these starts.
        scale: c, above 0: errors beyond it count less, so a few trajectories that end at another
            mode do not dominate.
        modes: the number of cosines, at least 1; nodes - 2, the default, reach any grid.
        rounds: the largest number of evaluations of the loss.

    Returns:
        `(nodes,)`, strictly decreasing.

    Raises:
        ValueError: grid is not strictly decreasing or has no node between its ends; starts and ends
            differ in shape or are empty; scale, modes or rounds are not above 0.

    Derivation: (grids.2), (grids.3), (grids.4).
    Sources: the objective, S4S (arXiv:2502.17423), which fits steps to a teacher's ends too; the
        robust loss, Cauchy's, as in Barron (arXiv:1701.03077) table 1 at shape 0.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, step = dm.VPLinear(), dm.ddim(dm.VPLinear())
    >>> denoise, grid = dm.DENSITIES["ring"]().denoiser(schedule), dm.trailing(schedule, steps=4)
    >>> starts = dm.start_noise(range(50), (2,), torch.float64)
    >>> ends = dm.final(dm.heun(schedule), denoise, starts, dm.karras(schedule, 50))
    >>> found = dm.fitting.fit_grid(step, schedule, denoise, starts, ends, grid, rounds=5)
    >>> found.round(decimals=2)
    tensor([1.0000, 0.5500, 0.2000, 0.0800, 0.0000], dtype=torch.float64)
    """
    same_shape("ends", ends, starts)

    def sample(nodes: Tensor) -> Tensor:
        return end_of(step, denoise, starts, nodes)

    return fit_grid_of(sample, schedule, ends, grid, scale, modes, rounds)


@checked
def fit_grid_of(
    sample: Callable[[Tensor], Tensor],
    schedule: Schedule,
    ends: Float[Tensor, "batch *event"],
    grid: Float64[Tensor, " nodes"],
    scale: Number = math.inf,
    modes: int | None = None,
    rounds: int = 30,
    nudge: Number = NUDGE,
) -> Float64[Tensor, " nodes"]:
    """`fit_grid` for any function of a grid: the solver may depend on the nodes.

    Args:
        sample: grid -> the final samples, like `ends`; with the same starts at every call.
        nudge: the finite-difference step of theta.

    The others, and what is raised, as for `fit_grid`. Derivation: (grids.2), (grids.3), (grids.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ends = dm.VPLinear(), torch.zeros(1, 1, dtype=torch.float64)
    >>> sample = lambda grid: grid[None, 1:-1] - 0.3  # a stand-in: no error with a node at 0.3
    >>> grid = dm.trailing(schedule, steps=2)
    >>> dm.fitting.fit_grid_of(sample, schedule, ends, grid).round(decimals=3)
    tensor([1.0000, 0.3000, 0.0000], dtype=torch.float64)
    """
    strictly_decreasing("grid", grid)
    differentiable("ends", ends)
    require(len(grid) >= 3, "grid", "3 nodes or more: the ends stay", f"{len(grid)}")
    inner = len(grid) - 2
    whole("modes", inner if modes is None else modes, 1)
    first, waves = logits_of_grid(schedule, grid), cosines(inner + 1, min(modes or inner, inner))

    def off(found: Tensor) -> Tensor:
        return found.double() - ends.double()

    def moved(phi: Tensor) -> Tensor:
        return grid_of_logits(schedule, grid, first + waves @ phi)

    def difference(phi: Tensor) -> Tensor:
        return off(sample(moved(phi)))

    found, after = robust_least_squares(
        difference,
        torch.zeros(waves.shape[1], dtype=torch.float64, device="cpu"),
        scale,
        rounds,
        nudge,
    )
    before = robust_residuals(off(sample(grid)), scale).square().sum()
    return moved(found) if after < before else grid.clone()


@checked
def robust_least_squares(
    difference: Callable[[Tensor], Tensor],
    first: Float64[Tensor, " free"],
    scale: Number,
    rounds: int,
    nudge: Number = NUDGE,
    nudged: Callable[[Tensor], Iterable[Tensor]] | None = None,
) -> tuple[Float64[Tensor, " free"], float]:
    """The minimiser of mean_i rho(e_i^2), and that loss; see `fit_grid`.

    Args:
        difference: parameters -> the final samples minus their targets, `(batch, *event)`.
        nudge: the finite-difference step.
        nudged: parameters -> `difference` with each of them in turn larger by `nudge`, where
            that is cheaper than one call of `difference` each, the default.

    Raises:
        ValueError: scale or rounds are not above 0, or there are no starts.

    Derivation: (grids.4).
    """
    from scipy.optimize import least_squares

    require(scale > 0, "scale", "a number above 0", scale)
    whole("rounds", rounds, 1)

    def one_by_one(free: Tensor) -> Iterator[Tensor]:
        return (
            difference(free + nudge * unit)
            for unit in torch.eye(len(free), dtype=free.dtype, device="cpu")
        )

    def residuals(free: Any) -> Any:
        return robust_residuals(difference(torch.as_tensor(free, device="cpu")), scale).numpy()

    def slopes(free: Any) -> Any:
        here = residuals(free)
        each = (nudged or one_by_one)(torch.as_tensor(free, device="cpu"))
        return np.stack(
            [(robust_residuals(one, scale).numpy() - here) / nudge for one in each], axis=1
        )

    found = least_squares(residuals, first.numpy(), slopes, max_nfev=rounds)
    return torch.as_tensor(found.x, device="cpu"), 2 * float(found.cost)


@checked
def cosines(gaps: int, modes: int) -> Float64[Tensor, "inner modes"]:
    """Changes of theta that are smooth from gap to gap: `(gaps - 1, modes)`.

        w_m(i) = cos(pi m (i - 1/2) / gaps) - cos(pi m (gaps - 1/2) / gaps),    m = 1 .. modes

    The second term fixes the last gap's entry of theta at 0, as softmax ignores a common shift; so
    m = 0 has no effect either. gaps - 1 modes span every theta.

    Derivation: (grids.5).
    """
    middle = torch.arange(gaps, dtype=torch.float64, device="cpu") + 0.5
    m = torch.arange(1, modes + 1, dtype=torch.float64, device="cpu")
    waves = torch.cos(math.pi * m * middle[:, None] / gaps)
    return (waves - waves[-1])[:-1]


@checked
def errors(
    step: Step,
    denoise: Denoiser,
    starts: Float[Tensor, "batch *event"],
    ends: Float[Tensor, "batch *event"],
    grid: Float[Tensor, " nodes"],
) -> Float64[Tensor, " batch"]:
    """The error of each final sample: RMS over the event, `(batch,)`.

    e_i^2 = mean over the event of (x_i - ends_i)^2. Derivation: (grids.3).
    """
    same_shape("ends", ends, starts)
    return distances(end_of(step, denoise, starts, grid), ends)


@checked
def distances(
    found: Float[Tensor, "batch *event"], ends: Float[Tensor, "batch *event"]
) -> Float64[Tensor, " batch"]:
    """e_i = the root of the mean over the event of (found_i - ends_i)^2. Derivation: (grids.3)."""
    same_shape("found", found, ends)
    return (flattened(found) - flattened(ends)).square().mean(1).sqrt()


@checked
def grid_of_logits(
    schedule: Schedule, grid: Float64[Tensor, " nodes"], theta: Float64[Tensor, " inner"]
) -> Float64[Tensor, " nodes"]:
    """The grid with the ends of `grid` whose inner nodes theta places: see the module.

    Args:
        theta: `(nodes - 2,)`, any finite numbers.

    Raises:
        ValueError: theta has another shape.

    Derivation: (grids.1), (grids.2).
    """
    inner = len(grid) - 2
    require(theta.shape == (inner,), "theta", f"shape {(inner,)}", tuple(theta.shape))
    require((inner + 1) * LEAST < 1, "grid", f"fewer than {1 / LEAST:g} steps", inner + 1)
    low, high = _range(schedule, grid)
    gaps = LEAST + (1 - (inner + 1) * LEAST) * torch.cat([theta, theta.new_zeros(1)]).softmax(0)
    nodes = schedule.time(low + (high - low) * gaps[:-1].cumsum(0))
    return torch.cat([grid[:1], nodes, grid[-1:]])


@checked
def logits_of_grid(
    schedule: Schedule, grid: Float64[Tensor, " nodes"]
) -> Float64[Tensor, " inner"]:
    """The theta of a grid: the inverse of `grid_of_logits`, except for gaps below 2 LEAST.

    Those are widened to 2 LEAST. A grid whose last inner node is t_min has one after it.
    Derivation: (grids.2).
    """
    low, high = _range(schedule, grid)
    levels = torch.cat([low[None], schedule.log_snr(grid[1:-1]), high[None]])
    gaps = (levels.diff() / (high - low)).clamp(min=2 * LEAST)
    logs = (gaps / gaps.sum() - LEAST).log()
    return logs[:-1] - logs[-1]


@checked
def blended(
    schedule: Schedule,
    grid: Float64[Tensor, " nodes"],
    other: Float64[Tensor, " nodes"],
    share: Number,
) -> Float64[Tensor, " nodes"]:
    """A grid between two of as many nodes: gaps in log-SNR are their weighted geometric mean.

        theta = (1 - share) theta_grid + share theta_other

    Args:
        share: the weight of `other`; 0 gives `grid`, up to gaps below 2 LEAST. The ends are
            those of `grid`.

    Raises ValueError for grids of different lengths. Derivation: (grids.2).
    """
    same_shape("other", other, grid)
    theta = (1 - share) * logits_of_grid(schedule, grid) + share * logits_of_grid(schedule, other)
    return grid_of_logits(schedule, grid, theta)


def _range(schedule: Schedule, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The log-SNR of the grid's ends, or of t_max and t_min where those are beyond."""
    first, last = min(float(grid[0]), schedule.t_max), max(float(grid[-1]), schedule.t_min)
    return schedule.log_snr(first), schedule.log_snr(last)


@checked
def end_of(
    step: Step, denoise: Denoiser, starts: Float[Tensor, "batch *event"], grid: Tensor
) -> Float[Tensor, "batch *event"]:
    """The end of a solver's trajectory, without a gradient. Derivation: (sample.1)."""
    with torch.no_grad():
        return final(step, denoise, starts, grid)


@checked
def in_medians(scale: Number, errors: Float64[Tensor, " batch"]) -> float:
    """`scale` times the median of these errors; infinite where the median is 0: all then have the
    same weight. Derivation: (grids.4)."""
    median = float(errors.median())
    return scale * median if median > 0 else math.inf


@checked
def robust_residuals(
    difference: Float[Tensor, "batch *event"], scale: Number
) -> Float64[Tensor, " residuals"]:
    """Residuals whose squares sum to mean_i rho(e_i^2), in the directions of the errors.

    Raises ValueError for an empty batch. Derivation: (grids.4).
    """
    require(difference.numel() > 0, "starts", "1 or more", tuple(difference.shape))
    errors = flattened(difference)
    if scale < math.inf:
        share = errors.square().mean(1, keepdim=True) / scale**2
        errors = torch.where(share > 0, (share.log1p() / share).sqrt(), 1.0) * errors
    return errors.flatten() / math.sqrt(errors.numel())


@checked
def flattened(values: Tensor) -> Tensor:
    """`(batch, D)`, float64 on the CPU."""
    return values.reshape(len(values), -1).to("cpu", torch.float64)
