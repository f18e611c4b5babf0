"""Grids as shortest paths: nodes of a fine grid that minimise a sum of costs over the steps.

Two published costs: an upper bound on the KL divergence between the reverse SDE's path and its
discretisation (Align Your Steps), and the distance from a fine trajectory at each node.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import checked, require, strictly_decreasing, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.fitting._memo import Once
from diffusion_math.noise import required
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.step import State, Step

__all__ = ["dynamic_programming", "kl_upper_bound", "shortest"]


@checked
def shortest(costs: Float64[Tensor, "nodes nodes"], steps: int) -> list[int]:
    """The cheapest path from the first node to the last in exactly `steps` steps.

        best_k(j) = min over i < j of best_{k-1}(i) + costs[i, j],    best_0 = 0 at node 0

    Exact, by Bellman's recursion, in steps * nodes^2 operations.

    Args:
        costs: `(nodes, nodes)`, of the step from node i to node j in row i; only entries
            above the diagonal are used.
        steps: 1 .. nodes - 1.

    Returns:
        steps + 1 increasing indices from 0 to nodes - 1.

    Derivation: (shortest_path.1).
    Source: Bellman 1957, "Dynamic Programming".

    >>> import torch
    >>> import diffusion_math as dm
    >>> nodes = torch.tensor([0.0, 1.0, 3.0, 4.0], dtype=torch.float64)
    >>> costs = (nodes - nodes[:, None]) ** 2
    >>> dm.fitting.shortest(costs, steps=3), dm.fitting.shortest(costs, steps=2)
    ([0, 1, 2, 3], [0, 1, 3])
    """
    count = len(costs)
    require(costs.shape == (count, count), "costs", "a square", tuple(costs.shape))
    whole("steps", steps, 1, count - 1)
    ahead = torch.ones_like(costs, dtype=torch.bool).triu(1)
    costs = torch.where(ahead, costs, torch.inf)
    best = torch.full((count,), torch.inf, dtype=costs.dtype, device="cpu")
    best[0] = 0.0
    predecessors: list[dict[int, int]] = []
    for _ in range(steps):
        best, before = (best[:, None] + costs).min(0)
        predecessors.append(dict(enumerate(before.tolist())))
    return _backtrack(predecessors, count - 1)


@checked
def kl_upper_bound(
    schedule: Schedule,
    denoise: Denoiser,
    x: Float[Tensor, "batch *event"],
    nodes: Float64[Tensor, " nodes"],
    generator: torch.Generator,
) -> Float64[Tensor, "nodes nodes"]:
    """The costs in Align Your Steps' KL bound of a step from node i to node j, for `shortest`.

        c_ij = integral from r_j to r_i of E[norm(D(x_r) - D(x_{r_i}))^2] r^-3 dr

    with r = sigma / alpha, D the denoiser, and x_r, x_{r_i} on one path of the forward process:
    the KL divergence of the reverse SDE from the one whose denoiser is constant during each step.
    In each cell of the fine grid D is constant, from the node below, and r^-3 is integrated
    exactly. One path per data sample, one function evaluation per node.

    Args:
        x: `(batch, *event)`, samples of the data.
        nodes: `(nodes,)` strictly decreasing times, the fine grid, of 0 < sigma, 0 < alpha.
        generator: for the paths' noise.

    Derivation: (shortest_path.2), (shortest_path.3).
    Source: Sabour et al. (arXiv:2404.14507), section 3, for the bound; they minimise it by
        coordinate search, `shortest` finds the exact minimum on the nodes.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> generator = torch.Generator().manual_seed(0)
    >>> x0, nodes = data.sample(generator, 100), dm.uniform_log_snr(schedule, 20)[:-1]
    >>> costs = dm.fitting.kl_upper_bound(schedule, data.denoiser(schedule), x0, nodes, generator)
    >>> path = dm.fitting.shortest(costs, steps=5)
    >>> len(path), path[0], path[-1]
    (6, 0, 19)
    """
    strictly_decreasing("nodes", nodes)
    alphas, sigmas = schedule(nodes)
    require(bool(((alphas > 0) & (sigmas > 0)).all()), "nodes", "alpha, sigma > 0", nodes)
    levels = sigmas / alphas
    y, seen = x.to(torch.float64), []
    before = torch.zeros((), dtype=torch.float64, device="cpu")
    for k in reversed(range(len(nodes))):
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(y)
        y = y + (levels[k].square() - before.square()).sqrt() * z
        seen.append(denoise((alphas[k] * y).to(x), nodes[k]).flatten(1).to("cpu"))
        before = levels[k]
    means = torch.stack(seen[::-1], dim=1).to(torch.float64)  # (batch, nodes, D)
    # Of the node stood at, in rows, from the one below a cell; from differences: nothing cancels.
    anchors = torch.split(means, 1, dim=1)
    squared_changes = torch.stack([(means - at).square().sum(2).mean(0) for at in anchors])
    weights = (1 / levels[1:].square() - 1 / levels[:-1].square()) / 2
    # Of a step i -> j: the cells below node i down to node j.
    cells = torch.cat(
        [squared_changes.new_zeros(len(nodes), 1), squared_changes[:, 1:] * weights], dim=1
    )
    return cells.triu(1).cumsum(1)


@checked
def dynamic_programming(
    step: Step,
    denoise: Denoiser,
    states: Sequence[Float[Tensor, "batch *event"]],
    nodes: Float64[Tensor, " nodes"],
    steps: int,
) -> Float64[Tensor, " picked"]:
    """The nodes of a fine grid at which a solver of few steps stays closest to its trajectory.

        z_k(j) = step(z_{k-1}(i), t_i, t_j) at the i < j for which norm(z_k(j) - states_j) is least

    Only the trajectory closest at node j after k steps continues from there, with its history. The
    recursion is that of `shortest`, but greedy: a worse state at j is never continued. All steps
    out of one node share one function evaluation.

    Args:
        step: a deterministic solver's step; a stochastic one raises ValueError.
        states: the fine trajectory's `nodes` states `(batch, *event)`, from start to end.
        nodes: `(nodes,)`, its times.
        steps: 1 .. nodes - 1.

    Returns:
        `(steps + 1,)` nodes, with the first and the last.

    Derivation: (shortest_path.4).
    Source: Pei et al. (arXiv:2503.21774), Algorithm 1; they minimise for one sample at a time and
        take medians; this function minimises the mean over the batch.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, step = dm.RectifiedFlow(), dm.euler(dm.RectifiedFlow())
    >>> denoise, fine = dm.DENSITIES["ring"]().denoiser(schedule), dm.trailing(schedule, 20)
    >>> x = dm.start_noise(range(50), (2,), torch.float64)
    >>> states = [state.x for state in dm.trajectory(dm.flow_heun(schedule), denoise, x, fine)]
    >>> dm.fitting.dynamic_programming(step, denoise, states, fine, steps=4)
    tensor([1.0000, 0.6500, 0.4000, 0.2000, 0.0000], dtype=torch.float64)
    """
    strictly_decreasing("nodes", nodes)
    count = len(nodes)
    require(len(states) == count, "states", f"{count}, one a node", len(states))
    whole("steps", steps, 1, count - 1)
    trajectories = {0: State(states[0], nodes[0])}
    predecessors: list[dict[int, int]] = []
    for k in range(1, steps + 1):
        targets = range(k, count - steps + k)
        found: dict[int, tuple[float, State]] = {}
        chosen: dict[int, int] = {}
        for i, state in trajectories.items():
            once = Once(denoise)
            for j in targets if k < steps else (count - 1,):
                if j <= i:
                    continue
                made = step(once, state, nodes[i], nodes[j], required)
                away = float((made.x.double() - states[j].double()).square().mean())
                if j not in found or away < found[j][0]:
                    found[j], chosen[j] = (away, made), i
        trajectories = {j: state for j, (_, state) in found.items()}
        predecessors.append(chosen)
    return nodes[_backtrack(predecessors, count - 1)]


def _backtrack(predecessors: Sequence[Mapping[int, int]], last: int) -> list[int]:
    """The indices of a path, from each node's predecessor."""
    path = [last]
    for before in reversed(predecessors):
        path.append(before[path[-1]])
    return path[::-1]
