"""Linear multistep solvers as tables of weights, with one function evaluation per step.

On a grid of n steps, step i has a row of weights,

    x_{i+1} = a_i x_i + sum over j <= i of b_ij x0_j,    x0_j = denoise(x_j, t_j)

DDIM, DPM-Solver and DPM-Solver++ (multistep), DEIS, UniPC and Adams-Bashforth have this form, with
the same weights for every denoiser. `fitting.weights` and `fitting.weights_by_ends` optimise the
weights for one denoiser. Groups of channels may have their own weights.
Derivation: (weights.1), (weights.2), (weights.9).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math._batching import combined
from diffusion_math.checks import checked, require, same_shape, strictly_decreasing
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.step import State, Step

__all__ = ["from_weights", "grouped", "mixed", "rescaled_weights", "rows_of_grid"]


@checked
def from_weights(
    grid: Float[Tensor, " nodes"], weights: Float64[Tensor, "steps columns *groups"]
) -> Step:
    """The solver with these weights, on their grid only: see the module.

    Args:
        grid: `(nodes,)` the times that the weights belong to.
        weights: `(nodes - 1, nodes)`: a_i in column 0, b_ij in column 1 + j, 0 for j > i. Or as
            many for each of `groups` equal groups of channels: `(nodes - 1, nodes, groups)`.

    Raises:
        ValueError: the weights have another shape; in a step: it is no step of the grid,
            or the channels, the first axis of the event, are no multiple of the groups.

    Derivation: (weights.1), (weights.9).
    Source: linear multistep methods: Hairer, Norsett & Wanner 1993, "Solving Ordinary Differential
        Equations I", section III.2; their weights as parameters of a diffusion model's solver, S4S
        (arXiv:2502.17423).

    >>> import torch
    >>> import diffusion_math as dm
    >>> grid = dm.trailing(dm.RectifiedFlow(), steps=2)
    >>> weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)  # Euler's
    >>> step = dm.solvers.from_weights(grid, weights)
    >>> dm.final(step, lambda x_t, t: x_t / 2, torch.ones(1, 1), grid)
    tensor([[0.3750]])
    """
    rows_of_grid(grid, weights)
    rows = weights.reshape(*weights.shape[:2], -1)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        i = len(state.history)
        ends = (float(t), float(s))
        valid = i < len(weights) and ends == (float(grid[i]), float(grid[i + 1]))
        require(valid, "grid", "the one that the weights were fitted on", f"step {i}, {ends}")
        history = (*state.history, (t, denoise(state.x, t)))
        return State(mixed(rows[i], state.x, [x0 for _, x0 in history]), s, history)

    return step


@checked
def rescaled_weights(
    schedule: Schedule,
    weights: Float64[Tensor, "steps columns *groups"],
    grid: Float64[Tensor, " nodes"],
    other: Float64[Tensor, " nodes"],
) -> Float64[Tensor, "steps columns *groups"]:
    """Weights transferred to another grid of as many nodes, with their ratios to DDIM's weights.

        a_i -> a_i r'_i / r_i,    b_ij -> b_ij p'_i / p_i    with r, p those of the step's two ends
        r_i = sigma_{i+1} / sigma_i,    p_i = alpha_{i+1} - alpha_i r_i    (' on the other grid)

    DDIM's own weights become DDIM's. Where a step ends on clean data, r_i = 0, a_i is unchanged.

    Args:
        schedule: gives alpha and sigma.
        weights: as for `from_weights`, on `grid`.
        other: `(nodes,)` strictly decreasing times.

    Raises ValueError for weights that are not the grid's, and grids of different lengths.
    Derivation: (weights.10).
    Source: S4S (arXiv:2502.17423) learns weights relative to the step's own coefficients.
    """
    rows_of_grid(grid, weights)
    strictly_decreasing("other", other)
    same_shape("other", other, grid)

    def ddim(nodes: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(nodes)
        r = sigma[1:] / sigma[:-1]
        return r, alpha[1:] - alpha[:-1] * r

    (r, p), (r_other, p_other) = ddim(grid), ddim(other)
    first = torch.where((r > 0) & (r_other > 0), r_other / r, 1.0)
    factors = torch.cat([first[:, None], (p_other / p)[:, None].expand(-1, len(p))], dim=1)
    return weights * factors.reshape(*factors.shape, *[1] * (weights.ndim - 2))


def rows_of_grid(grid: Tensor, weights: Tensor) -> None:
    """Raise ValueError unless there is one row per step, for all channels or for each group."""
    strictly_decreasing("grid", grid)
    wanted = (len(grid) - 1, len(grid))
    valid = weights.shape[:2] == wanted and weights.ndim <= 3
    require(valid, "weights", f"shape {wanted}", tuple(weights.shape))


@checked
def grouped(parts: Sequence[Tensor], groups: int) -> list[tuple[Tensor, ...]]:
    """The parts of each group of channels."""
    if groups == 1:
        return [tuple(parts)]
    channels = parts[0].shape[1] if parts[0].ndim > 1 else 1
    require(channels % groups == 0, "groups", f"a divisor of {channels} channels", groups)
    return list(zip(*(part.chunk(groups, dim=1) for part in parts), strict=True))


def mixed(rows: Tensor, x: Tensor, seen: Sequence[Tensor]) -> Tensor:
    """a x + sum_j b_j x0_j, in x's own dtype: `rows` is `(columns, groups)`."""
    mixed = []
    for row, (first, *others) in zip(rows.T, grouped([x, *seen], rows.shape[1]), strict=True):
        mixed.append(combined((row[0], first), *zip(row[1:], others, strict=False)))
    return torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0]
