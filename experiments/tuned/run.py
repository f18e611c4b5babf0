"""Runs the experiment: fits weights and grids for each NFE budget, and measures the baselines."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from tqdm import tqdm

from experiments.common.model import load
from experiments.common.sampling_options import scale_of
from experiments.output.result import Result
from experiments.tuned import Config, _sought, problems
from experiments.tuned.baselines import (
    FITTED,
    TUNED,
    Rivals,
    Walked,
    fit,
    rms,
    s4s,
    steps_of,
    tune,
    typical,
    walked,
)
from experiments.tuned.figures import parts, record, rows_of
from experiments.tuned.outcome import Found, Pair
from experiments.tuned.problems import FittingProblem
from sd.pipeline import TextToImage


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Fit, walk and compare in each world."""
    kinds = (FITTED, TUNED) if config.rounds else (FITTED,)
    worlds: list[tuple[Callable[[], FittingProblem], tuple[str, ...]]] = []
    if config.exact:
        counts = (config.train, config.test, min(config.fit, config.train))
        worlds.append((lambda: problems.mixture(*counts, config.nodes, config.seed), kinds))
    if config.pictures:
        loaded = pipeline or load(config.model)
        given = (
            scale_of(config.guidance_scale, loaded),
            config.pictures,
            math.ceil(config.pictures / 2),
        )
        made = lambda: problems.model(loaded, *given, config.nodes)  # noqa: E731
        worlds.append((made, (FITTED,)))
    with tqdm(total=len(worlds) * len(config.counts), unit="budget", disable=None) as bar:
        found = [_found(config, make(), some, bar.update) for make, some in worlds]
    rows = tuple(row for one in found for row in rows_of(one))
    data: dict[str, Any] = {
        "settings": config,
        "worlds": {one.world.name: record(one) for one in found},
    }
    return Result("tuned", "Fitted solvers and tuned grids", rows, parts(found), data)


def _found(
    config: Config, world: FittingProblem, kinds: tuple[str, ...], tick: Callable[[], object]
) -> Found:
    """All walks of one world."""
    rivals, side = Rivals.of(world, config.seed), world.test
    others: list[Walked] = []
    picked: dict[str, dict[int, Pair]] = {kind: {} for kind in kinds}
    seen: set[tuple[str, int, str]] = set()

    def beside(solver: str, grids: dict[str, Tensor]) -> None:
        for name, nodes in grids.items():
            if (solver, len(nodes), name) not in seen:
                seen.add((solver, len(nodes), name))
                others.append(walked(world, side, solver, name, nodes))

    def judged(trained: list[Walked]) -> Pair:
        first, second = min(trained, key=typical), min(trained, key=rms)
        return (
            walked(world, side, first.solver, first.grid, first.nodes, first.step),
            walked(world, side, second.solver, second.grid, second.nodes, second.step),
        )

    for solver in config.beside:
        for steps in sorted({*config.counts, *config.more}):
            beside(solver, rivals.plain(steps))
    for budget in config.counts:
        tuned: list[Walked] = []
        known = {**rivals.plain(budget), **rivals.published(budget)}
        for solver in dict.fromkeys([*config.beside, *config.solvers]):
            steps = steps_of(world.schedule, solver, budget)
            grids = {**rivals.plain(steps), **rivals.published(steps)}
            if solver in config.solvers:
                grids |= rivals.stepwise(solver, steps)
                if TUNED in kinds:
                    tuned += tune(world, solver, grids, config.scales, None, config.rounds)
            beside(solver, grids)
        if TUNED in kinds:
            picked[TUNED][budget] = judged(tuned)
        descent = config.descent if budget <= config.ends else 0
        fits = fit(world, known, config.scales, config.modes, config.moves, descent)
        picked[FITTED][budget] = judged(fits)
        tick()
    for steps in _sought(config):
        known = {**rivals.plain(steps), **rivals.published(steps)}
        others += s4s(world, known, config.scales, config.descent, config.turns)
    return Found(world, others, picked)
