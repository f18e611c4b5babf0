"""Every grid that tuned ones are set beside, and the errors of walks on all of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_math.fitting.grids import blended, errors, fit_grid, in_medians
from diffusion_math.fitting.published_grids import align_your_steps, error_weighted
from diffusion_math.fitting.shortest_path import dynamic_programming, kl_upper_bound, shortest
from diffusion_math.fitting.weights import fit_weights, fit_weights_and_grid
from diffusion_math.fitting.weights_by_ends import fit_alternating, fit_weights_to_ends
from diffusion_math.grid import GRIDS as MAKERS
from diffusion_math.grid import uniform_log_snr
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.linear import from_weights
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import Step
from experiments.tuned.problems import FittingProblem, Side, calls

GRIDS = ("trailing", "leading", "linspace", "uniform_log_snr", "karras")
ALIGNED, BOUND, WEIGHTED, STEPWISE = "ays", "kl_bound", "error_weighted", "stepwise"
S4S, S4S_ALT = "s4s", "s4s_alt"
TUNED, FITTED = "tuned", "fitted"
BLENDS = (0.25, 0.5, 0.75)
"""Shares of the second-best grid in the best one's logarithms of gaps."""
MIXED = 3
"""Predictions a step that weights moved by the ends mix anew."""
PUBLISHED = {
    ALIGNED: "Align Your Steps' levels for SD 1.5 (2404.14507)",
    BOUND: "its bound minimised here, exactly (2404.14507)",
    WEIGHTED: "the network's error let through least (2402.17376)",
    STEPWISE: "nearest to a fine walk, node by node (2503.21774)",
    S4S: "weights of three predictions fitted to the ends (2502.17423)",
    S4S_ALT: "then its nodes and weights in turn (2502.17423)",
}


@dataclass(frozen=True, eq=False)
class Walked:
    """A solver on a grid: `errors` of each start's end, RMS over its numbers; `step` where the
    solver is none of the registry's."""

    solver: str
    grid: str
    calls: int
    nodes: Tensor
    errors: Tensor
    step: Step | None = None


Measure = Callable[[Walked], float]


def rms(one: Walked) -> float:
    """The root mean square over all starts."""
    return float(one.errors.square().mean().sqrt())


def typical(one: Walked) -> float:
    """The geometric mean over the starts."""
    return float(one.errors.log().mean().exp())


def measure_of(scale: float) -> Measure:
    """By which of both the best is chosen where errors are fitted at a scale."""
    return typical if scale < math.inf else rms


def walked(
    world: FittingProblem,
    side: Side,
    solver: str,
    name: str,
    nodes: Tensor,
    step: Step | None = None,
) -> Walked:
    """Every start of a side walked on one grid."""
    found = errors(
        step or SOLVERS[solver](world.schedule), side.denoise, side.starts, side.ends, nodes
    )
    asked = len(nodes) - 1 if step else calls(SOLVERS[solver], world.schedule, nodes)
    return Walked(solver, name, asked, nodes, _finite(found), step)


def _finite(errors: Tensor) -> Tensor:
    return errors.nan_to_num(1e6).clamp(1e-300, 1e6)


def steps_of(schedule: Schedule, solver: str, budget: int) -> int:
    """The most steps of a solver that ask the denoiser no more often than that; 0 if none does."""
    for steps in range(budget, 0, -1):
        if calls(SOLVERS[solver], schedule, uniform_log_snr(schedule, steps)) <= budget:
            return steps
    return 0


@dataclass(frozen=True, eq=False)
class Rivals:
    """The grids of a world that are not tuned here; `bound` are the costs of the KL bound."""

    world: FittingProblem
    bound: Tensor
    known: dict[int, dict[str, Tensor]]

    @classmethod
    def of(cls, world: FittingProblem, seed: int) -> "Rivals":
        """With the bound found on paths from the training side's own ends."""
        side, generator = world.train, torch.Generator().manual_seed(seed)
        with torch.no_grad():
            costs = kl_upper_bound(
                world.schedule, side.denoise, side.ends, side.nodes[:-1], generator
            )
        return cls(world, costs, {})

    def plain(self, steps: int) -> dict[str, Tensor]:
        """The grids that ask for no work: fixed ones and Align Your Steps' published levels."""
        found = {name: MAKERS[name](self.world.schedule, steps) for name in GRIDS}
        return {**found, ALIGNED: align_your_steps(self.world.schedule, steps)}

    def published(self, steps: int) -> dict[str, Tensor]:
        """The grids of other papers' methods that know no solver."""
        if steps not in self.known:
            bound = self.world.train.nodes[shortest(self.bound, steps)]
            bound[-1] = 0  # as the published levels are used
            weighted = error_weighted(self.world.schedule, steps)
            self.known[steps] = {BOUND: bound, WEIGHTED: weighted}
        return self.known[steps]

    def stepwise(self, solver: str, steps: int) -> dict[str, Tensor]:
        """The grid of the dynamic program, for one solver."""
        side, step = self.world.train, SOLVERS[solver](self.world.schedule)
        with torch.no_grad():
            return {STEPWISE: dynamic_programming(step, side.kept, side.teacher, side.nodes, steps)}


def tune(
    world: FittingProblem,
    solver: str,
    candidates: dict[str, Tensor],
    scales: Sequence[float],
    modes: int | None,
    rounds: int,
) -> list[Walked]:
    """Grids tuned on the training side, from the candidate that is nearest there by the measure.

    One for each scale, in units of the candidate's median error; the measure is RMS at an infinite
    scale, which is least squares, and else the typical error. They come walked on that side.
    """
    side, step = world.train, SOLVERS[solver](world.schedule)
    trained = [walked(world, side, solver, *one) for one in candidates.items()]
    found = []
    for scale in scales:
        first = min(trained, key=measure_of(scale))
        unit = in_medians(scale, first.errors)
        given = (step, world.schedule, side.denoise, side.starts, side.ends, first.nodes)
        nodes = fit_grid(*given, scale=unit, modes=modes, rounds=rounds)
        found.append(walked(world, side, solver, TUNED, nodes))
    return found


def fit(
    world: FittingProblem,
    candidates: dict[str, Tensor],
    scales: Sequence[float],
    modes: int | None,
    rounds: int,
    descent: int,
) -> list[Walked]:
    """Weights fitted on each candidate grid, at each scale, on blends of the best two, and on the
    best of all these moved; the best of them moved on by their ends, unless `descent` is 0.

    Candidates that do not begin where the starts are, as `leading`, are left out. Weights are
    fitted on the starts whose path is kept, and come walked on the whole training side.
    """
    side, groups = world.train, world.groups
    path, denoise = side.path, side.kept
    latest = [one for one in candidates.items() if one[1][0] == path.times[0]]
    made: dict[str, Tensor] = {}

    def walk(name: str, nodes: Tensor, weights: Tensor) -> Walked:
        made[name] = weights
        return walked(world, side, FITTED, name, nodes, from_weights(nodes, weights))

    def one(name: str, nodes: Tensor, scale: float) -> Walked:
        states = path.on(world.schedule, nodes)
        return walk(name, nodes, fit_weights(denoise, states, nodes, scale, groups))

    found = []
    for scale in scales:
        every = [one(*candidate, scale) for candidate in latest]
        measure = measure_of(scale)
        best, next_best = sorted(every, key=measure)[:2]
        for share in BLENDS:
            nodes = blended(world.schedule, best.nodes, next_best.nodes, share)
            every.append(one(f"{share:.0%} {next_best.grid} in {best.grid}", nodes, scale))
        first = min(every, key=measure)
        given = (world.schedule, denoise, path, first.nodes, scale, modes, rounds)
        moved = fit_weights_and_grid(*given, groups)
        every.append(one(f"{first.grid}, moved", moved, scale))
        if descent:
            best = min(every, key=measure)
            ends = (denoise, path.states[0], path.states[-1], best.nodes, made[best.grid])
            nearer = fit_weights_to_ends(*ends, MIXED, scale, descent)
            every.append(walk(f"{best.grid}, by ends", best.nodes, nearer))
        found += every
    return found


def s4s(
    world: FittingProblem,
    candidates: dict[str, Tensor],
    scales: Sequence[float],
    descent: int,
    turns: int,
) -> list[Walked]:
    """S4S' weights: each scale's from UniPC's on the candidate that is best for UniPC. And
    S4S-Alt's, which go on from these with the nodes in turn, unless `turns` is 0."""
    side, path = world.train, world.train.path
    starts, ends, known = path.states[0], path.states[-1], SOLVERS["unipc"](world.schedule)
    trained = [walked(world, side, "unipc", *one) for one in candidates.items()]
    found = []
    for scale in scales:
        nodes = min(trained, key=measure_of(scale)).nodes
        own = [state.x for state in trajectory(known, side.kept, starts, nodes)]
        first = fit_weights(side.kept, own, nodes)
        weights = fit_weights_to_ends(side.kept, starts, ends, nodes, first, MIXED, scale, descent)
        found.append(walked(world, world.test, S4S, S4S, nodes, from_weights(nodes, weights)))
        if turns:
            more = (starts, ends, nodes, weights, MIXED, scale, descent, turns)
            nodes, weights = fit_alternating(world.schedule, side.kept, *more)
            found.append(
                walked(world, world.test, S4S_ALT, S4S_ALT, nodes, from_weights(nodes, weights))
            )
    return found
