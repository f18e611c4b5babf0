"""Runs the experiment: fits weights and grids for each NFE budget, and measures the baselines."""

import math
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from typing import TypeAlias

from torch import Tensor
from tqdm import tqdm

from experiments.common.model import load
from experiments.common.sampling_options import scale_of
from experiments.common.sweep import cluster, processes, swept
from experiments.output.result import Result
from experiments.tuned import Config, _sought, problems
from experiments.tuned.baselines import (
    FITTED,
    S4S,
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

Part: TypeAlias = tuple[str, int]
"""A part of the work on a problem: its kind, of `PLAIN`, `BUDGET` and `S4S`, and its NFE."""

Found: TypeAlias = tuple[list[Evaluation], dict[str, Pair]]
"""What a part gives: evaluations of baselines, and what was picked of each of our methods."""

PLAIN, BUDGET = "plain", "budget"


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Fit and evaluate on each test problem."""
    found = []
    if config.exact:
        kinds = (FITTED, TUNED) if config.rounds else (FITTED,)
        work = partial(_on_mixture, config, kinds)
        with _executor(config) as executor:
            found.append(_outcome(config, _mixture(config)[0], kinds, work, executor))
    if config.pictures:
        loaded = pipeline or load(config.model)
        scale, half = scale_of(config.guidance_scale, loaded), math.ceil(config.pictures / 2)
        problem = problems.model(loaded, scale, config.pictures, half, config.nodes)
        own = BaselineGrids.of(problem, config.seed)
        work = partial(_made, config, problem, own, (FITTED,))
        found.append(_outcome(config, problem, (FITTED,), work, None))
    rows = tuple(row for one in found for row in rows_of(one))
    data = {"settings": config, "problems": {one.problem.name: record(one) for one in found}}
    return Result("tuned", "Fitted solvers and tuned grids", rows, parts(found), data)


def _executor(config: Config) -> AbstractContextManager[Executor | None]:
    """Where the parts of the mixture run; None is here."""
    if config.scheduler is not None:
        return cluster(config.scheduler)
    return processes(config.workers) if config.workers > 1 else nullcontext()


def _outcome(
    config: Config,
    problem: FittingProblem,
    kinds: tuple[str, ...],
    work: Callable[[Part], Found],
    executor: Executor | None,
) -> Outcome:
    """All evaluations on one test problem: its parts in order, none twice."""
    units = [(PLAIN, steps) for steps in sorted({*config.counts, *config.more})]
    units += [(BUDGET, budget) for budget in config.counts]
    units += [(S4S, steps) for steps in _sought(config)]
    with tqdm(total=len(units), unit="part", disable=None) as bar:
        made = swept(work, units, executor, bar.update)
    first: dict[tuple[str, int, str], Evaluation] = {}
    more: list[Evaluation] = []
    picked: dict[str, dict[int, Pair]] = {kind: {} for kind in kinds}
    for (kind, steps), (baselines, pairs) in zip(units, made, strict=True):
        if kind == S4S:
            more += baselines
        else:
            for one in baselines:
                first.setdefault((one.solver, len(one.nodes), one.grid), one)
        for name, pair in pairs.items():
            picked[name][steps] = pair
    return Outcome(problem, [*first.values(), *more], picked)


@lru_cache(maxsize=1)
def _mixture(config: Config) -> tuple[FittingProblem, BaselineGrids]:
    """The exact problem of these settings and its baseline grids, once in each process."""
    counts = (config.train, config.test, min(config.fit, config.train))
    problem = problems.mixture(*counts, config.nodes, config.seed)
    return problem, BaselineGrids.of(problem, config.seed)


def _on_mixture(config: Config, kinds: tuple[str, ...], part: Part) -> Found:
    return _made(config, *_mixture(config), kinds, part)


def _made(
    config: Config,
    problem: FittingProblem,
    candidates: BaselineGrids,
    kinds: tuple[str, ...],
    part: Part,
) -> Found:
    """One part of the work: evaluations on the test side, of baselines and of what we picked."""
    side = problem.test
    kind, steps = part
    baselines: list[Evaluation] = []

    def beside(solver: str, grids: dict[str, Tensor]) -> None:
        baselines.extend(evaluate(problem, side, solver, *one) for one in grids.items())

    def on_test(one: Evaluation) -> Evaluation:
        found = evaluate(problem, side, one.solver, one.grid, one.nodes, one.step)
        return replace(found, step=None)

    def judged(trained: list[Evaluation]) -> Pair:
        return on_test(min(trained, key=typical)), on_test(min(trained, key=rms))

    if kind == PLAIN:
        for solver in config.beside:
            beside(solver, candidates.plain(steps))
        return baselines, {}
    grids_at = {**candidates.plain(steps), **candidates.published(steps)}
    if kind == S4S:
        found = s4s(problem, grids_at, config.scales, config.descent, config.turns)
        return [replace(one, step=None) for one in found], {}
    tuned: list[Evaluation] = []
    plain = {*config.counts, *config.more}
    for solver in dict.fromkeys([*config.beside, *config.solvers]):
        own = steps_of(problem.schedule, solver, steps)
        grids = {**candidates.plain(own), **candidates.published(own)}
        if solver in config.solvers:
            grids |= candidates.stepwise(solver, own)
            if TUNED in kinds:
                tuned += tune(problem, solver, grids, config.scales, None, config.rounds)
        if solver in config.beside and own in plain:  # these are parts of their own
            done = candidates.plain(own)
            grids = {name: nodes for name, nodes in grids.items() if name not in done}
        beside(solver, grids)
    picked = {TUNED: judged(tuned)} if TUNED in kinds else {}
    descent = config.descent if steps <= config.ends else 0
    fits = fit(problem, grids_at, config.scales, config.modes, config.moves, descent)
    return baselines, {**picked, FITTED: judged(fits)}
