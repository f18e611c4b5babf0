"""Weights and time grids fitted to the flow at a budget of calls, beside all others."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from experiments.common.model_options import Model
from experiments.common.sampling_options import Deterministic, Scale
from sd.command_line.flags import Range, Several, check, refuse, unused

Starts: TypeAlias = Annotated[int, Range(8, 10**7)]


@dataclass(frozen=True)
class Config:
    """The error at equal calls of the denoiser: fitted weights and tuned grids beside all others.

    Both are fitted on some starts and judged on others, by how far walks end from the flow's own
    end. Beside them: the fixed grids, Align Your Steps, optimised time steps and the dynamic
    program of optimal steps, each under several solvers, S4S' weights, and S4S-Alt's weights and
    nodes. With the default starts it takes an hour on one slow core.
    """

    counts: Annotated[tuple[int, ...], Range(4, 119), Several(rising=True)] = (5, 8, 10, 15, 20)
    """Calls of the denoiser that a walk may make, rising, each at least 4."""
    more: Annotated[tuple[int, ...], Range(1, 1000), Several(0)] = (6, 7, 9, 12, 17, 23, 30)
    """Other numbers of steps at which the fixed grids are measured, to find what a budget saves."""
    solvers: Annotated[tuple[Deterministic, ...], Several()] = ("unipc", "plms")
    """Solvers that grids are tuned for."""
    beside: Annotated[tuple[Deterministic, ...], Several()] = (
        "unipc",
        "plms",
        "deis",
        "dpmpp_3m",
        "dpm_solver_2m",
    )
    """Solvers that all other grids are measured under; none of them draws noise."""
    scales: Annotated[tuple[float, ...], Range(0, math.inf, above=True), Several()] = (
        math.inf,
        1.0,
    )
    """Losses: an error counts less from so many medians on; inf is least squares."""
    train: Starts = 32768
    """Starts that grids are tuned on, at least 8."""
    fit: Starts = 4096
    """Those of them that weights are fitted on, at least 8; what is best is chosen on all."""
    test: Starts = 32768
    """Starts that they are judged on, at least 8."""
    rounds: Annotated[int, Range(0, 10_000)] = 24
    """Improvements of a grid under a solver that stays; 0 tunes none."""
    moves: Annotated[int, Range(1, 10_000)] = 4
    """Improvements of a grid whose weights are fitted anew at each."""
    modes: Annotated[int, Range(1, 100)] = 4
    """Cosines that such a grid moves by."""
    s4s: Annotated[int, Range(0, 1000)] = 30
    """The most calls for which S4S' weights are sought, of --counts and of those of --more beyond
    them, which tell what a budget saves."""
    turns: Annotated[int, Range(0, 1000)] = 2
    """Turns of nodes and weights by which S4S-Alt goes on from them; 0 leaves it out."""
    ends: Annotated[int, Range(0, 1000)] = 20
    """The most calls for which fitted weights are moved on by their ends, as S4S' are."""
    descent: Annotated[int, Range(1, 10_000)] = 15
    """Improvements of weights by their ends."""
    nodes: Annotated[int, Range(5, 120)] = 33
    """Nodes that published methods pick from, more than the most calls."""
    pictures: Annotated[int, Range(0, 10**6, but=1)] = 0
    """Latents of the embedded model, to fit on (half of them) and choose by, and as many to test
    on; 0 leaves it out. Weights alone are fitted: nodes alone do not pay there."""
    exact: bool = True
    """Whether the mixture is measured."""
    seed: Annotated[int, Range(0, 2**29 - 1)] = 0
    """Of the mixture, its starts and the bound's paths."""
    out: Path = Path("out/tuned")
    """Folder for tuned.md, tuned.json and the figures."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    guidance_scale: Scale | None = None
    """w in x0_u + w (x0_c - x0_u); default: the model's."""

    def __post_init__(self) -> None:
        check(self)
        most = max([self.counts[-1], *_sought(self)])
        if most >= self.nodes:
            refuse(self, "nodes", f"more than {most}, the most calls")
        for name in ("solvers", "beside"):
            if "adaptive" in getattr(self, name):
                refuse(self, name, "solvers that take the steps of a grid: not adaptive")
        from diffusion_math.schedule import Discrete  # not for --help, which needs no torch
        from experiments.tuned.baselines import steps_of

        for solver in self.solvers if self.exact and self.rounds else ():
            if steps_of(Discrete.scaled_linear(), solver, self.counts[0]) < 2:
                refuse(self, "counts", f"at least the calls of two steps of {solver}")
        if not self.exact and not self.pictures:
            refuse(self, "pictures", "at least 2 with --no-exact")
        if not self.pictures:
            where = "without --pictures: the mixture alone is measured"
            unused(self, ["model", "guidance_scale"], where)
        if not self.exact:
            unused(self, ["train", "fit", "test", "rounds"], "with --no-exact")
        if self.fit > self.train:
            unused(self, ["fit"], f"beyond --train {self.train}")
        if not _sought(self):
            unused(self, ["turns"], "where S4S is sought for no budget: see --s4s")
            if self.ends < self.counts[0]:
                unused(self, ["descent"], "where no weights are moved by their ends: see --ends")


def _sought(config: Config) -> list[int]:
    """The calls for which S4S' weights are sought."""
    beyond = {steps for steps in config.more if steps > config.counts[-1]}
    return [steps for steps in (*config.counts, *sorted(beyond)) if steps <= config.s4s]
