"""Solver weights, and grids, optimised for the final samples: S4S and S4S-Alt.

Derivation: (weights.7), (weights.10).
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import Number, checked, differentiable, require, same_shape, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.fitting._memo import Once
from diffusion_math.fitting.grids import (
    distances,
    end_of,
    fit_grid_of,
    in_medians,
    robust_least_squares,
)
from diffusion_math.noise import required
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.linear import from_weights, rescaled_weights, rows_of_grid

__all__ = ["fit_alternating", "fit_weights_to_ends"]

NUDGE = 1e-5
"""The finite-difference step of a weight."""


@checked
def fit_weights_to_ends(
    denoise: Denoiser,
    starts: Float[Tensor, "batch *event"],
    ends: Float[Tensor, "batch *event"],
    grid: Float64[Tensor, " nodes"],
    weights: Float64[Tensor, "steps columns *groups"],
    order: int = 3,
    scale: Number = math.inf,
    rounds: int = 12,
) -> Float64[Tensor, "steps columns *groups"]:
    """Weights that minimise the error of the final samples: S4S' objective, by Gauss-Newton.

        minimise over a_i, b_ij, i - order < j <= i    mean_i rho(e_i^2) of `fit_grid`

    The cost is about rounds x steps x (order + 1) x groups / 2 trajectories: the derivative by a
    row's weights needs the steps from that row on. The paper's relaxation, which lets each start
    move in a small ball, is left out: the target is the flow's end from the same noise.

    Args:
        weights: the initial weights; `fit_weights` on a known solver's trajectory gives that
        solver's. order: the number of predictions, latest first, whose weights are free in a row.
        scale: as in `fit_weights`, in medians of the initial weights' errors.

    Raises ValueError as `from_weights`, `fit_weights` and `fit_grid`.
    Derivation: (weights.7).
    Source: Frankel et al., S4S (arXiv:2502.17423), which uses gradient descent.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, grid = dm.RectifiedFlow(), dm.trailing(dm.RectifiedFlow(), steps=2)
    >>> denoise = dm.DENSITIES["ring"]().denoiser(schedule)
    >>> starts = torch.eye(2, dtype=torch.float64)
    >>> ends = dm.final(dm.flow_heun(schedule), denoise, starts, dm.trailing(schedule, 50))
    >>> euler = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    >>> dm.fitting.fit_weights_to_ends(denoise, starts, ends, grid, euler, rounds=3).shape
    torch.Size([2, 3])
    """
    _check(grid, weights, starts, ends, order, scale)
    steps = len(weights)
    back = torch.arange(steps, device="cpu")[:, None] - torch.arange(
        -1, steps, device="cpu"
    )  # i - j; column 0 is a_i
    free = (back >= 0) & (back < order)
    free[:, 0] = True
    free = free.reshape(*free.shape, *[1] * (weights.ndim - 2)).expand_as(weights)
    row_of = free.nonzero()[:, 0].tolist()

    def moved(numbers: Tensor) -> Tensor:
        return weights.masked_scatter(free, numbers)

    def off(found: Tensor) -> Tensor:
        return found.double() - ends.double()

    def end(numbers: Tensor) -> Tensor:
        return end_of(from_weights(grid, moved(numbers)), denoise, starts, grid)

    @torch.no_grad()
    def nudged(numbers: Tensor) -> list[Tensor]:
        states = list(trajectory(from_weights(grid, moved(numbers)), denoise, starts, grid))
        cached = [Once(denoise) for _ in range(steps)]
        every = []
        for row, unit in zip(
            row_of, torch.eye(len(numbers), dtype=numbers.dtype, device="cpu"), strict=True
        ):
            step, state = from_weights(grid, moved(numbers + NUDGE * unit)), states[row]
            for t, s in pairwise(grid[row:]):
                state = step(cached[row], state, t, s, required)
            every.append(off(state.x))
        return every

    first = weights[free]
    unit = in_medians(scale, distances(end(first), ends))
    found, _ = robust_least_squares(
        lambda numbers: off(end(numbers)), first, unit, rounds, NUDGE, nudged
    )
    return moved(found)


@checked
def fit_alternating(
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
    """Nodes and weights optimised in turn for the final samples: S4S-Alt's objective.

    Each round of the alternation optimises the nodes by `fit_grid`, with weights carried to them by
    `rescaled_weights`, and then the weights by `fit_weights_to_ends`. At an infinite scale the
    result is never worse on these starts. At a finite one each half has its own unit, the median of
    its initial errors.

    Args:
        grid: `(nodes,)`, the initial grid, at least 3 nodes.
        weights: the initial weights, for that grid.
        rounds: the largest number of evaluations for nodes, and for weights, in each turn.
        turns: the number of alternations, at least 1.

    Returns:
        The nodes, with the ends of `grid`, and their weights.

    Raises ValueError as `fit_weights_to_ends` and `fit_grid`, and for fewer than 1 turn.
    Derivation: (weights.7), (weights.10).
    Source: Frankel et al., S4S-Alt (arXiv:2502.17423); the time given to the denoiser stays
        the node's own here.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, grid = dm.RectifiedFlow(), dm.trailing(dm.RectifiedFlow(), steps=2)
    >>> denoise = dm.DENSITIES["ring"]().denoiser(schedule)
    >>> starts = torch.eye(2, dtype=torch.float64)
    >>> ends = dm.final(dm.flow_heun(schedule), denoise, starts, dm.trailing(schedule, 50))
    >>> euler = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    >>> found = dm.fitting.fit_alternating(schedule, denoise, starts, ends, grid, euler, rounds=3)
    >>> [part.shape for part in found]
    [torch.Size([3]), torch.Size([2, 3])]
    """
    whole("turns", turns, 1)
    _check(grid, weights, starts, ends, order, scale)
    for _ in range(turns):
        nodes = _moved_nodes(schedule, denoise, starts, ends, grid, weights, scale, rounds)
        weights = rescaled_weights(schedule, weights, grid, nodes)
        grid = nodes
        weights = fit_weights_to_ends(denoise, starts, ends, grid, weights, order, scale, rounds)
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
    """The nodes of smallest final error, with the weights of `grid` carried to them."""

    def sample(nodes: Tensor) -> Tensor:
        step = from_weights(nodes, rescaled_weights(schedule, weights, grid, nodes))
        return end_of(step, denoise, starts, nodes)

    unit = in_medians(scale, distances(sample(grid), ends))
    return fit_grid_of(sample, schedule, ends, grid, unit, rounds=rounds)
