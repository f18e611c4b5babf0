"""The baseline grids, our fits, and the errors of samples on all of them."""

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
from experiments.tuned.problems import FittingProblem, Side, nfe

GRIDS = ("trailing", "leading", "linspace", "uniform_log_snr", "karras")
ALIGNED, BOUND, WEIGHTED, STEPWISE = "ays", "kl_bound", "error_weighted", "stepwise"
S4S, S4S_ALT = "s4s", "s4s_alt"
TUNED, FITTED = "tuned", "fitted"
BLENDS = (0.25, 0.5, 0.75)
"""Shares of the second-best grid in a blend with the best one, in logarithms of the gaps."""
MIXED = 3
"""Predictions a step whose weights the refinement by the ends changes."""
PUBLISHED = {
    ALIGNED: "the noise levels of Align Your Steps for SD 1.5 (2404.14507)",
    BOUND: "the exact minimum of its KL bound on this problem (2404.14507)",
    WEIGHTED: "least propagated network error (2402.17376)",
    STEPWISE: "the dynamic program against a fine path (2503.21774)",
    S4S: "weights of three predictions fitted to the ends (2502.17423)",
    S4S_ALT: "S4S with alternating nodes and weights (2502.17423)",
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The errors of a solver on a grid.

    errors: for each start the RMS distance of its end from the exact one.
    step: the step of a solver that is not in the registry.
    """

    solver: str
    grid: str
    nfe: int
    nodes: Tensor
    errors: Tensor
    step: Step | None = None


Measure = Callable[[Evaluation], float]


def rms(one: Evaluation) -> float:
    """The root mean square over all starts."""
    return float(one.errors.square().mean().sqrt())


def typical(one: Evaluation) -> float:
    """The geometric mean over the starts."""
    return float(one.errors.log().mean().exp())


def measure_of(scale: float) -> Measure:
    """The measure that chooses the best fit at a scale of the loss."""
    return typical if scale < math.inf else rms


def evaluate(
    problem: FittingProblem,
    side: Side,
    solver: str,
    name: str,
    nodes: Tensor,
    step: Step | None = None,
) -> Evaluation:
    """Sample from every start of a side on one grid."""
    taken = step or SOLVERS[solver](problem.schedule)
    found = errors(taken, side.denoise, side.starts, side.ends, nodes)
    count = len(nodes) - 1 if step else nfe(SOLVERS[solver], problem.schedule, nodes)
    return Evaluation(solver, name, count, nodes, found.nan_to_num(1e6).clamp(1e-300, 1e6), step)


def steps_of(schedule: Schedule, solver: str, budget: int) -> int:
    """The most steps of a solver within an NFE budget; 0 if one step exceeds it."""
    for steps in range(budget, 0, -1):
        if nfe(SOLVERS[solver], schedule, uniform_log_snr(schedule, steps)) <= budget:
            return steps
    return 0


@dataclass(frozen=True, eq=False)
class BaselineGrids:
    """The baseline grids of a problem; `bound` are the costs of the KL bound."""

    problem: FittingProblem
    bound: Tensor
    cache: dict[int, dict[str, Tensor]]

    @classmethod
    def of(cls, problem: FittingProblem, seed: int) -> "BaselineGrids":
        """With the KL bound estimated on paths from the ends of the training side."""
        side, generator = problem.train, torch.Generator().manual_seed(seed)
        with torch.no_grad():
            costs = kl_upper_bound(
                problem.schedule, side.denoise, side.ends, side.nodes[:-1], generator
            )
        return cls(problem, costs, {})

    def plain(self, steps: int) -> dict[str, Tensor]:
        """The fixed grids, and the published noise levels of Align Your Steps."""
        found = {name: MAKERS[name](self.problem.schedule, steps) for name in GRIDS}
        return {**found, ALIGNED: align_your_steps(self.problem.schedule, steps)}

    def published(self, steps: int) -> dict[str, Tensor]:
        """The grids of published methods that do not depend on the solver."""
        if steps not in self.cache:
            bound = self.problem.train.nodes[shortest(self.bound, steps)]
            bound[-1] = 0  # as the published levels are used
            weighted = error_weighted(self.problem.schedule, steps)
            self.cache[steps] = {BOUND: bound, WEIGHTED: weighted}
        return self.cache[steps]

    def stepwise(self, solver: str, steps: int) -> dict[str, Tensor]:
        """The grid of the dynamic program, for one solver."""
        side, step = self.problem.train, SOLVERS[solver](self.problem.schedule)
        given = (step, side.path_denoise, side.teacher, side.nodes, steps)
        with torch.no_grad():
            return {STEPWISE: dynamic_programming(*given)}


def tune(
    problem: FittingProblem,
    solver: str,
    candidates: dict[str, Tensor],
    scales: Sequence[float],
    modes: int | None,
    rounds: int,
) -> list[Evaluation]:
    """Grids tuned on the training side, evaluated on that side.

    Each starts from the candidate with the lowest error there. There is one for each scale of the
    loss, in units of that candidate's median error. The error is RMS at an infinite scale, which is
    least squares, and else the typical error.
    """
    side, step = problem.train, SOLVERS[solver](problem.schedule)
    trained = [evaluate(problem, side, solver, *one) for one in candidates.items()]
    found = []
    for scale in scales:
        first = min(trained, key=measure_of(scale))
        unit = in_medians(scale, first.errors)
        given = (step, problem.schedule, side.denoise, side.starts, side.ends, first.nodes)
        nodes = fit_grid(*given, scale=unit, modes=modes, rounds=rounds)
        found.append(evaluate(problem, side, solver, TUNED, nodes))
    return found


def fit(
    problem: FittingProblem,
    candidates: dict[str, Tensor],
    scales: Sequence[float],
    modes: int | None,
    rounds: int,
    descent: int,
) -> list[Evaluation]:
    """Weights fitted at each scale, evaluated on the training side.

    The grids are the candidates, blends of the best two, and the best of these after an
    optimisation of its nodes. The best weights are refined by their ends, unless `descent` is 0.
    Candidates that do not begin at the starts' time, as `leading`, are left out. Weights are fitted
    on the starts that have a fine path.
    """
    side, groups = problem.train, problem.groups
    path, denoise = side.path, side.path_denoise
    latest = [one for one in candidates.items() if one[1][0] == path.times[0]]
    made: dict[str, Tensor] = {}

    def add(name: str, nodes: Tensor, weights: Tensor) -> Evaluation:
        made[name] = weights
        return evaluate(problem, side, FITTED, name, nodes, from_weights(nodes, weights))

    def one(name: str, nodes: Tensor, scale: float) -> Evaluation:
        states = path.on(problem.schedule, nodes)
        return add(name, nodes, fit_weights(denoise, states, nodes, scale, groups))

    found = []
    for scale in scales:
        every = [one(*candidate, scale) for candidate in latest]
        measure = measure_of(scale)
        best, next_best = sorted(every, key=measure)[:2]
        for share in BLENDS:
            nodes = blended(problem.schedule, best.nodes, next_best.nodes, share)
            every.append(one(f"{share:.0%} {next_best.grid} in {best.grid}", nodes, scale))
        first = min(every, key=measure)
        given = (problem.schedule, denoise, path, first.nodes, scale, modes, rounds)
        moved = fit_weights_and_grid(*given, groups)
        every.append(one(f"{first.grid}, moved", moved, scale))
        if descent:
            best = min(every, key=measure)
            ends = (denoise, path.states[0], path.states[-1], best.nodes, made[best.grid])
            refined = fit_weights_to_ends(*ends, MIXED, scale, descent)
            every.append(add(f"{best.grid}, by ends", best.nodes, refined))
        found += every
    return found


def s4s(
    problem: FittingProblem,
    candidates: dict[str, Tensor],
    scales: Sequence[float],
    descent: int,
    turns: int,
) -> list[Evaluation]:
    """The weights of S4S, for each scale, and the weights and nodes of S4S-Alt.

    S4S starts from UniPC's weights on the best candidate for UniPC. S4S-Alt starts from S4S; it is
    left out where `turns` is 0.
    """
    side, path = problem.train, problem.train.path
    starts, ends, unipc = path.states[0], path.states[-1], SOLVERS["unipc"](problem.schedule)
    trained = [evaluate(problem, side, "unipc", *one) for one in candidates.items()]
    found = []

    def add(name: str, nodes: Tensor, weights: Tensor) -> None:
        step = from_weights(nodes, weights)
        found.append(evaluate(problem, problem.test, name, name, nodes, step))

    for scale in scales:
        nodes = min(trained, key=measure_of(scale)).nodes
        own = [state.x for state in trajectory(unipc, side.path_denoise, starts, nodes)]
        first = fit_weights(side.path_denoise, own, nodes)
        weights = fit_weights_to_ends(
            side.path_denoise, starts, ends, nodes, first, MIXED, scale, descent
        )
        add(S4S, nodes, weights)
        if turns:
            more = (starts, ends, nodes, weights, MIXED, scale, descent, turns)
            add(S4S_ALT, *fit_alternating(problem.schedule, side.path_denoise, *more))
    return found
