"""Linear multistep solvers with weights optimised for one denoiser, by least squares.

Each row of weights (see `solvers.linear`) minimises the distance to the flow's states, in closed
form. Derivation: (weights.1), (weights.3), (weights.9).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import Number, checked, require, same_shape, strictly_decreasing, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.fitting.grids import distances, fit_grid_of, flattened, in_medians
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.linear import grouped, mixed

__all__ = ["FinePath", "fit_weights", "fit_weights_and_grid"]

PASSES = 12
"""Iterations of reweighted least squares at a finite scale."""
STRIDE = 0.03
"""The finite-difference step of theta: larger than NUDGE, as the fitted weights compensate much of
it and the rest must exceed a float32 network's rounding."""
CUBIC = 4


class FinePath(NamedTuple):
    """A fine trajectory: strictly decreasing `times` `(nodes,)`, and a `(batch, *event)` for each.

    >>> import torch
    >>> import diffusion_math as dm
    >>> times = torch.linspace(0.9, 0.1, 9, dtype=torch.float64)
    >>> path = dm.fitting.FinePath(times, [t.reshape(1, 1) for t in times])  # x(t) = t
    >>> path.at(dm.RectifiedFlow(), torch.tensor(0.45, dtype=torch.float64))
    tensor([[0.4500]], dtype=torch.float64)
    """

    times: Tensor
    states: Sequence[Tensor]

    @checked
    def at(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The states at a time: a node's, or the cubic through four nodes.

            x(t) = sum_k L_k(ell(t)) x_k,    L_k Lagrange's polynomials in the log-SNR ell

        The four are neighbours of the time, of finite log-SNR.

        Raises ValueError for a time that is no node and outside the nodes of finite log-SNR, for
        fewer than four of them, and for numbers of states and times that differ.
        Derivation: (weights.5).
        """
        count = len(self.times)
        require(len(self.states) == count, "states", f"{count}, one a time", len(self.states))
        same = (self.times == t).nonzero()
        if len(same):
            return self.states[int(same[0])]
        levels = schedule.log_snr(self.times)
        finite = levels.isfinite().nonzero().flatten()
        require(len(finite) >= CUBIC, "times", "4 nodes of finite log-SNR", len(finite))
        low, high = float(self.times[finite[-1]]), float(self.times[finite[0]])
        require(low <= float(t) <= high, "t", f"a node, or in [{low:g}, {high:g}]", float(t))
        here = schedule.log_snr(t)
        above = int((levels[finite] < here).sum())
        first = min(max(above - CUBIC // 2, 0), len(finite) - CUBIC)
        four = finite[first : first + CUBIC]
        found = torch.zeros_like(self.states[0])
        for k in four:
            others = levels[four[four != k]]
            share = ((here - others) / (levels[k] - others)).prod()
            found = found + share * self.states[int(k)]
        return found

    @checked
    def on(self, schedule: Schedule, grid: Tensor) -> list[Tensor]:
        """The starts, for any first node of the grid, and the states at its other nodes.

        A grid that begins below t_max, such as `leading`, starts from the path's noise too.
        Derivation: (weights.5).
        """
        return [self.states[0], *(self.at(schedule, t) for t in grid[1:])]


@checked
def fit_weights(
    denoise: Denoiser,
    states: Sequence[Float[Tensor, "batch *event"]],
    grid: Float64[Tensor, " nodes"],
    scale: Number = math.inf,
    groups: int = 1,
) -> Float64[Tensor, "steps columns *groups"]:
    """The weights of a linear multistep solver that stays closest to the flow, step by step.

        (a_i, b_i0 .. b_ii) = argmin mean over starts of rho(e^2),    i = 0, 1, ...
        e^2 = mean over the event of (a_i x_i + sum_j b_ij x0_j - states_{i+1})^2

    where x_i are the solver's own states with the previous rows, so later rows correct earlier
    errors. rho(u) = u at an infinite scale, else c^2 log(1 + u / c^2)
    at c = scale x the median of the unweighted fit's e, by reweighted least squares. Directions
    below the dtype's rounding are left out. The cost is one trajectory. Each start gives as many
    equations as it has entries, so dozens are enough.

    Args:
        denoise: `(x_t, t) -> E[x_0 | x_t]`.
        states: the flow's `nodes` states `(batch, *event)` at the grid's nodes, the starts first.
        grid: `(nodes,)` strictly decreasing times.
        scale: above 0, in medians: larger errors count less.
        groups: the number of equal groups of channels, each with its own weights.

    Returns:
        `(nodes - 1, nodes)` for one group, else `(nodes - 1, nodes, groups)`: for
        `from_weights`.

    Raises:
        ValueError: grid is not strictly decreasing; states are not one per node, of one shape and
            not empty; scale is not above 0; the channels are no multiple of the groups.

    Derivation: (weights.2), (weights.3), (weights.4), (weights.8), (weights.9).
    Sources: the objective, S4S (arXiv:2502.17423), which uses the final samples alone; reweighting:
        Holland & Welsch 1977, "Robust regression using iteratively reweighted least-squares",
        Communications in Statistics 6(9).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, grid = dm.RectifiedFlow(), dm.trailing(dm.RectifiedFlow(), steps=4)
    >>> denoise = dm.DENSITIES["ring"]().denoiser(schedule)
    >>> x = dm.start_noise(range(50), (2,), torch.float64)
    >>> fine = dm.trajectory(dm.flow_heun(schedule), denoise, x, dm.trailing(schedule, 40))
    >>> dm.fitting.fit_weights(denoise, [state.x for state in fine][::10], grid).shape
    torch.Size([4, 5])
    """
    weights, _ = _fit(denoise, states, grid, scale, groups)
    return weights.squeeze(-1)


@checked
def fit_weights_and_grid(
    schedule: Schedule,
    denoise: Denoiser,
    path: FinePath,
    grid: Float64[Tensor, " nodes"],
    scale: Number = math.inf,
    modes: int | None = None,
    rounds: int = 30,
    groups: int = 1,
) -> Float64[Tensor, " nodes"]:
    """The grid with the smallest final error of the weights fitted to it.

    `fit_grid` with the solver that `fit_weights` finds on each grid (variable projection): the
    search is over the nodes alone.

    Args:
        path: a fine trajectory of the starts from `grid[0]` to the last node.
        scale: as for `fit_weights`; for the final error in medians of that on `grid`.

    Other arguments and errors are those of `fit_grid` and `fit_weights`. Raises ValueError for a
    grid with other ends than the path's.
    Derivation: (weights.5), (weights.6).
    Source: Golub & Pereyra 1973, "The differentiation of pseudo-inverses and nonlinear least
        squares problems whose variables separate", SIAM J. Numer. Anal. 10(2).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, denoise = dm.VE(), dm.DENSITIES["ring"]().denoiser(dm.VE())
    >>> fine, grid = dm.karras(schedule, 30), dm.karras(schedule, 4)
    >>> x = 80 * dm.start_noise(range(50), (2,), torch.float64)
    >>> states = [state.x for state in dm.trajectory(dm.heun(schedule), denoise, x, fine)]
    >>> path = dm.fitting.FinePath(fine, states)
    >>> dm.fitting.fit_weights_and_grid(schedule, denoise, path, grid, rounds=3).shape
    torch.Size([5])
    """
    strictly_decreasing("grid", grid)
    for which, node in (("first", 0), ("last", -1)):
        same = bool(path.times[node] == grid[node])
        wanted = f"the path's {which} time {float(path.times[node]):g} as its {which} node"
        require(same, "grid", wanted, float(grid[node]))
    ends = path.states[-1]

    def sample(nodes: Tensor) -> Tensor:
        _, end = _fit(denoise, path.on(schedule, nodes), nodes, scale, groups)
        return end

    unit = in_medians(scale, distances(sample(grid), ends))
    return fit_grid_of(sample, schedule, ends, grid, unit, modes, rounds, STRIDE)


def _fit(
    denoise: Denoiser, states: Sequence[Tensor], grid: Tensor, scale: Number, groups: int
) -> tuple[Tensor, Tensor]:
    """The weights, `(nodes - 1, nodes, groups)`, and their final samples."""
    strictly_decreasing("grid", grid)
    require(len(states) == len(grid), "states", f"{len(grid)}, one a node", len(states))
    require(states[0].numel() > 0, "states", "1 start or more", tuple(states[0].shape))
    require(scale > 0, "scale", "a number above 0", scale)
    whole("groups", groups, 1)
    for state in states:
        same_shape("states", state, states[0])
    targets = grouped(states, groups)
    weights = torch.zeros(len(grid) - 1, len(grid), groups, dtype=torch.float64, device="cpu")
    x, seen = states[0], list[Tensor]()
    for i in range(len(weights)):
        with torch.no_grad():
            seen.append(denoise(x, grid[i]))
        each = zip(grouped([x, *seen], groups), targets, strict=True)
        rows = [_row(basis, wanted[i + 1], scale) for basis, wanted in each]
        weights[i, : i + 2] = torch.stack(rows, dim=1)
        x = mixed(weights[i], x, seen)
    return weights, x


def _row(basis: Sequence[Tensor], target: Tensor, scale: Number) -> Tensor:
    """The combination of the basis closest to the target, by mean rho: `(len(basis),)`.

    Derivation: (weights.3), (weights.4).
    """
    columns = torch.stack([flattened(part) for part in basis], dim=2)
    batch, event, count = columns.shape
    q, r = torch.linalg.qr(columns.reshape(-1, count))
    u, sizes, v = torch.linalg.svd(r, full_matrices=False)
    determined = sizes > 10 * torch.finfo(target.dtype).eps * sizes[0]
    span = q @ u[:, determined]
    wanted = flattened(target).flatten()
    shares = span.T @ wanted
    squared_errors = (span @ shares - wanted).reshape(batch, event).square().mean(1)
    c2 = scale**2 * float(squared_errors.median()) if scale < math.inf else 0.0
    for _ in range(PASSES if c2 > 0 else 0):
        weighted = span * (1 / (1 + squared_errors / c2)).repeat_interleave(event)[:, None]
        shares = torch.linalg.solve(weighted.T @ span, weighted.T @ wanted)
        squared_errors = (span @ shares - wanted).reshape(batch, event).square().mean(1)
    found: Tensor = v.T[:, determined] @ (shares / sizes[determined])
    return found
