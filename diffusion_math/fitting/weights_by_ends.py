"""Weights, and nodes with them, that are moved until walks end nearest: S4S' aim.

Derivation: (fitted.7), (fitted.10).
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import Number, differentiable, require, same_shape, whole
from diffusion_math.denoiser import Denoiser, Once
from diffusion_math.fitting.grids import distances, in_medians, least, nearest, walked
from diffusion_math.noise import required
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.linear import carried, linear, rows_of_grid

__all__ = ["end_fitted", "end_fitted_grid"]

NUDGE = 1e-5
"""The change of a weight that derivatives of the ends are taken by."""


def end_fitted(
    denoise: Denoiser,
    starts: Float[Tensor, "batch *event"],
    ends: Float[Tensor, "batch *event"],
    grid: Float64[Tensor, " nodes"],
    weights: Float64[Tensor, "steps columns *groups"],
    order: int = 3,
    scale: Number = math.inf,
    rounds: int = 12,
) -> Float64[Tensor, "steps columns *groups"]:
    """Weights moved until the walk's end alone is nearest: S4S' aim, by Gauss and Newton's steps.

        minimise over a_i, b_ij, i - order < j <= i    mean_i rho(e_i^2) of `tuned.tuned`

    It costs about rounds x steps x (order + 1) x groups / 2 walks: a derivative by a row's weights
    is walked from that row on. Their relaxation, which lets each start move in a small ball to be
    met more easily, is left out: the flow's end from the same noise is asked.

    Args:
        weights: to begin from, as a known solver's: `fitted` to that solver's own walk gives them.
        order: how many predictions a row may change, the latest first.
        scale: of `fitted`: in medians of the first weights' errors.

    Raises ValueError as `linear`, `fitted` and `tuned.tuned`.
    Derivation: (fitted.7).
    Source: Frankel et al., S4S (arXiv:2502.17423), which descends by gradients.
    """
    _check(grid, weights, starts, ends, order, scale)
    steps = len(weights)
    back = torch.arange(steps)[:, None] - torch.arange(-1, steps)  # i - j; column 0 is a_i
    free = (back >= 0) & (back < order)
    free[:, 0] = True
    free = free.reshape(*free.shape, *[1] * (weights.ndim - 2)).expand_as(weights)
    row_of = free.nonzero()[:, 0].tolist()

    def moved(numbers: Tensor) -> Tensor:
        return weights.masked_scatter(free, numbers)

    def off(found: Tensor) -> Tensor:
        return found.double() - ends.double()

    def end(numbers: Tensor) -> Tensor:
        return walked(linear(grid, moved(numbers)), denoise, starts, grid)

    @torch.no_grad()
    def nudged(numbers: Tensor) -> list[Tensor]:
        states = list(trajectory(linear(grid, moved(numbers)), denoise, starts, grid))
        known = [Once(denoise) for _ in range(steps)]
        every = []
        for row, unit in zip(row_of, torch.eye(len(numbers), dtype=numbers.dtype), strict=True):
            step, state = linear(grid, moved(numbers + NUDGE * unit)), states[row]
            for t, s in pairwise(grid[row:]):
                state = step(known[row], state, t, s, required)
            every.append(off(state.x))
        return every

    first = weights[free]
    unit = in_medians(scale, distances(end(first), ends))
    found, _ = least(lambda numbers: off(end(numbers)), first, unit, rounds, NUDGE, nudged)
    return moved(found)


def end_fitted_grid(
    schedule: Schedule,
    denoise: Denoiser,
    starts: Float[Tensor, "batch *event"],
    ends: Float[Tensor, "batch *event"],
    grid: Float64[Tensor, " nodes"],
    weights: Float64[Tensor, "steps columns *groups"],
    order: int = 3,
    scale: Number = math.inf,
    rounds: int = 12,
    turns: int = 2,
) -> tuple[Float64[Tensor, " nodes"], Float64[Tensor, "steps columns *groups"]]:
    """Nodes and weights moved in turn until the walk's end is nearest: S4S-Alt's aim.

    A turn moves the nodes as `tuned.tuned` does, with weights `carried` to them, then the weights
    as `end_fitted` does. At an infinite scale what comes back never ends worse on these starts; at
    a finite one each half of a turn counts in medians of its own first errors.

    Args:
        grid: `(nodes,)` to begin from, at least 3.
        weights: of that grid, to begin from.
        rounds: the most improvements of the nodes, and of the weights, in each turn.
        turns: how often, at least 1.

    Returns:
        The nodes, with the ends of `grid`, and their weights.

    Raises ValueError as `end_fitted` and `tuned.tuned`, and for fewer than 1 turn.
    Derivation: (fitted.7), (fitted.10).
    Source: Frankel et al., S4S-Alt (arXiv:2502.17423); the time that the denoiser is told stays
        the node's own here.
    """
    whole("turns", turns, 1)
    _check(grid, weights, starts, ends, order, scale)
    for _ in range(turns):
        nodes = _moved_nodes(schedule, denoise, starts, ends, grid, weights, scale, rounds)
        weights = carried(schedule, weights, grid, nodes)
        grid = nodes
        weights = end_fitted(denoise, starts, ends, grid, weights, order, scale, rounds)
    return grid, weights


def _check(
    grid: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, order: int, scale: Number
) -> None:
    rows_of_grid(grid, weights)
    same_shape("ends", ends, starts)
    differentiable("ends", ends)
    whole("order", order, 1)
    require(scale > 0, "scale", "a number above 0", scale)


def _moved_nodes(
    schedule: Schedule,
    denoise: Denoiser,
    starts: Tensor,
    ends: Tensor,
    grid: Tensor,
    weights: Tensor,
    scale: Number,
    rounds: int,
) -> Tensor:
    """The nodes from which walks end nearest, with the weights of `grid` carried to them."""

    def walk(nodes: Tensor) -> Tensor:
        step = linear(nodes, carried(schedule, weights, grid, nodes))
        return walked(step, denoise, starts, nodes)

    unit = in_medians(scale, distances(walk(grid), ends))
    return nearest(walk, schedule, ends, grid, unit, rounds=rounds)
