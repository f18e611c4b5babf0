"""Weights and time grids fitted to the flow at a budget of calls, beside all others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.model import Model
from experiments.results import Result
from experiments.tuned_found import Found, Pair
from experiments.tuned_parts import parts, record, rows_of
from experiments.tuned_rivals import (
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

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.tuned_worlds import World
    from sd.pipeline import TextToImage


@dataclass(frozen=True)
class Config:
    """The error at equal calls of the denoiser: fitted weights and tuned grids beside all others.

    Both are fitted on some starts and judged on others, by how far walks end from the flow's own
    end. Beside them: the fixed grids, Align Your Steps, optimised time steps and the dynamic
    program of optimal steps, each under several solvers, S4S' weights, and S4S-Alt's weights and
    nodes. `--solver`, `--steps` and `--grid` are not used: they are what is measured. With the
    default starts it takes an hour on one slow core.
    """

    counts: tuple[int, ...] = (5, 8, 10, 15, 20)
    """Calls of the denoiser that a walk may make, rising, each at least 4."""
    more: tuple[int, ...] = (6, 7, 9, 12, 17, 23, 30)
    """Other numbers of steps at which the fixed grids are measured, to find what a budget saves."""
    solvers: tuple[str, ...] = ("unipc", "plms")
    """Solvers that grids are tuned for."""
    beside: tuple[str, ...] = ("unipc", "plms", "deis", "dpmpp_3m", "dpm_solver_2m")
    """Solvers that all other grids are measured under; none of them draws noise."""
    scales: tuple[float, ...] = (math.inf, 1.0)
    """Losses: an error counts less from so many medians on; inf is least squares."""
    train: int = 32768
    """Starts that grids are tuned on, at least 8."""
    fit: int = 4096
    """Those of them that weights are fitted on, at least 8; what is best is chosen on all."""
    test: int = 32768
    """Starts that they are judged on, at least 8."""
    rounds: int = 24
    """Improvements of a grid under a solver that stays; 0 tunes none."""
    moves: int = 4
    """Improvements of a grid whose weights are fitted anew at each."""
    modes: int = 4
    """Cosines that such a grid moves by."""
    s4s: int = 30
    """The most calls for which S4S' weights are sought, of --counts and of those of --more beyond
    them, which tell what a budget saves."""
    turns: int = 2
    """Turns of nodes and weights by which S4S-Alt goes on from them; 0 leaves it out."""
    ends: int = 20
    """The most calls for which fitted weights are moved on by their ends, as S4S' are."""
    descent: int = 15
    """Improvements of weights by their ends."""
    nodes: int = 33
    """Nodes that published methods pick from, more than the most calls."""
    pictures: int = 0
    """Latents of the embedded model, to fit on (half of them) and choose by, and as many to test
    on; 0 leaves it out. Weights alone are fitted: nodes alone do not pay there."""
    exact: bool = True
    """Whether the mixture is measured."""
    seed: int = 0
    """Of the mixture, its starts and the bound's paths."""
    out: Path = Path("out/tuned")
    """Folder for tuned.md, tuned.json and the figures."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""


def run(config: Config, pipeline: "TextToImage | None" = None) -> Result:
    """Fit, walk and compare in each world."""
    from tqdm import tqdm

    from experiments import tuned_worlds

    _check(config)
    kinds = (FITTED, TUNED) if config.rounds else (FITTED,)
    worlds: list[tuple[Callable[[], World], tuple[str, ...]]] = []
    if config.exact:
        counts = (config.train, config.test, min(config.fit, config.train))
        worlds.append((lambda: tuned_worlds.mixture(*counts, config.nodes, config.seed), kinds))
    if config.pictures:
        loaded = pipeline or config.model.load()
        given = (config.model.scale(loaded), config.pictures, math.ceil(config.pictures / 2))
        made = lambda: tuned_worlds.model(loaded, *given, config.nodes)  # noqa: E731
        worlds.append((made, (FITTED,)))
    with tqdm(total=len(worlds) * len(config.counts), unit="budget", disable=None) as bar:
        found = [_found(config, make(), some, bar.update) for make, some in worlds]
    rows = tuple(row for one in found for row in rows_of(one))
    data: dict[str, Any] = {
        "settings": config,
        "worlds": {one.world.name: record(one) for one in found},
    }
    return Result("tuned", "Fitted solvers and tuned grids", rows, parts(found), data)


LEGAL = {
    "train": 8, "test": 8, "fit": 8, "rounds": 0, "moves": 1, "modes": 1, "s4s": 0, "turns": 0,
    "ends": 0, "descent": 1,
}  # fmt: skip


def _check(config: Config) -> None:
    """ValueError for the first setting that is not legal."""
    from diffusion_math.samplers import SAMPLERS
    from diffusion_math.schedule import Discrete

    counts = config.counts
    if not counts or counts[0] < 4 or list(counts) != sorted(set(counts)):
        got = " ".join(map(str, counts))
        raise ValueError(f"--counts: wanted rising numbers of at least 4, got {got}")
    for name, least in LEGAL.items():
        if getattr(config, name) < least:
            raise ValueError(f"--{name}: wanted at least {least}, got {getattr(config, name)}")
    most = max([counts[-1], *_sought(config)])
    if not most < config.nodes <= 120:
        wanted = f"more than {most} and at most 120"
        raise ValueError(f"--nodes: wanted {wanted}, got {config.nodes}")
    if config.pictures < 0 or config.pictures == 1:
        raise ValueError(f"--pictures: wanted 0 or at least 2, got {config.pictures}")
    if not config.exact and not config.pictures:
        raise ValueError(
            "--pictures: wanted at least 2 where --no-exact leaves the mixture out, got 0"
        )
    if config.more and min(config.more) < 1:
        raise ValueError(f"--more: wanted whole numbers of at least 1, got {config.more}")
    if not config.scales or not all(scale > 0 for scale in config.scales):
        raise ValueError(f"--scales: wanted numbers above 0, got {config.scales}")
    quiet = {name for name, claimed in SAMPLERS.items() if not claimed.noisy} - {"adaptive"}
    for name in ("solvers", "beside"):
        given = getattr(config, name)
        if not given or not set(given) <= quiet:
            raise ValueError(f"--{name}: wanted some of {', '.join(sorted(quiet))}, got {given}")
    for solver in config.solvers if config.exact and config.rounds else ():
        if steps_of(Discrete.scaled_linear(), solver, counts[0]) < 2:
            wanted = f"at least the calls of two steps of {solver}, whose nodes are tuned"
            raise ValueError(f"--counts: wanted {wanted}, got {counts[0]}")
    if not 0 <= config.seed < 2**29:
        raise ValueError(f"--seed: wanted a number in [0, 2^29), got {config.seed}")


def _sought(config: Config) -> list[int]:
    """The calls for which S4S' weights are sought."""
    beyond = {steps for steps in config.more if steps > config.counts[-1]}
    return [steps for steps in (*config.counts, *sorted(beyond)) if steps <= config.s4s]


def _found(
    config: Config, world: "World", kinds: tuple[str, ...], tick: Callable[[], object]
) -> Found:
    """All walks of one world."""
    rivals, side = Rivals.of(world, config.seed), world.test
    others: list[Walked] = []
    picked: dict[str, dict[int, Pair]] = {kind: {} for kind in kinds}
    seen: set[tuple[str, int, str]] = set()

    def beside(solver: str, grids: "dict[str, Tensor]") -> None:
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
