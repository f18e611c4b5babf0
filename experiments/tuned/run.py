"""Runs the experiment: fits weights and grids for each NFE budget, and measures the baselines."""

import math
from collections.abc import Callable

from torch import Tensor
from tqdm import tqdm

from experiments.common.model import load
from experiments.common.sampling_options import scale_of
from experiments.output.result import Result
from experiments.tuned import Config, _sought, problems
from experiments.tuned.baselines import (
    FITTED,
    TUNED,
    BaselineGrids,
    Evaluation,
    evaluate,
    fit,
    rms,
    s4s,
    steps_of,
    tune,
    typical,
)
from experiments.tuned.figures import parts, record, rows_of
from experiments.tuned.outcome import Outcome, Pair
from experiments.tuned.problems import FittingProblem
from sd.pipeline import TextToImage


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Fit and evaluate on each test problem."""
    kinds = (FITTED, TUNED) if config.rounds else (FITTED,)
    cases: list[tuple[Callable[[], FittingProblem], tuple[str, ...]]] = []
    if config.exact:
        counts = (config.train, config.test, min(config.fit, config.train))
        cases.append((lambda: problems.mixture(*counts, config.nodes, config.seed), kinds))
    if config.pictures:
        loaded = pipeline or load(config.model)
        scale, half = scale_of(config.guidance_scale, loaded), math.ceil(config.pictures / 2)
        given = (loaded, scale, config.pictures, half, config.nodes)
        cases.append((lambda: problems.model(*given), (FITTED,)))
    with tqdm(total=len(cases) * len(config.counts), unit="budget", disable=None) as bar:
        found = [_found(config, make(), some, bar.update) for make, some in cases]
    rows = tuple(row for one in found for row in rows_of(one))
    data = {"settings": config, "problems": {one.problem.name: record(one) for one in found}}
    return Result("tuned", "Fitted solvers and tuned grids", rows, parts(found), data)


def _found(
    config: Config, problem: FittingProblem, kinds: tuple[str, ...], tick: Callable[[], object]
) -> Outcome:
    """All evaluations on one test problem."""
    candidates, side = BaselineGrids.of(problem, config.seed), problem.test
    baselines: list[Evaluation] = []
    picked: dict[str, dict[int, Pair]] = {kind: {} for kind in kinds}
    seen: set[tuple[str, int, str]] = set()

    def beside(solver: str, grids: dict[str, Tensor]) -> None:
        for name, nodes in grids.items():
            if (solver, len(nodes), name) not in seen:
                seen.add((solver, len(nodes), name))
                baselines.append(evaluate(problem, side, solver, name, nodes))

    def on_test(one: Evaluation) -> Evaluation:
        return evaluate(problem, side, one.solver, one.grid, one.nodes, one.step)

    def judged(trained: list[Evaluation]) -> Pair:
        return on_test(min(trained, key=typical)), on_test(min(trained, key=rms))

    for solver in config.beside:
        for steps in sorted({*config.counts, *config.more}):
            beside(solver, candidates.plain(steps))
    for budget in config.counts:
        tuned: list[Evaluation] = []
        grids_at = {**candidates.plain(budget), **candidates.published(budget)}
        for solver in dict.fromkeys([*config.beside, *config.solvers]):
            steps = steps_of(problem.schedule, solver, budget)
            grids = {**candidates.plain(steps), **candidates.published(steps)}
            if solver in config.solvers:
                grids |= candidates.stepwise(solver, steps)
                if TUNED in kinds:
                    tuned += tune(problem, solver, grids, config.scales, None, config.rounds)
            beside(solver, grids)
        if TUNED in kinds:
            picked[TUNED][budget] = judged(tuned)
        descent = config.descent if budget <= config.ends else 0
        fits = fit(problem, grids_at, config.scales, config.modes, config.moves, descent)
        picked[FITTED][budget] = judged(fits)
        tick()
    for steps in _sought(config):
        grids_at = {**candidates.plain(steps), **candidates.published(steps)}
        baselines += s4s(problem, grids_at, config.scales, config.descent, config.turns)
    return Outcome(problem, baselines, picked)
