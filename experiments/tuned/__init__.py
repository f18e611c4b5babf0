"""Solver weights and time grids optimised for an NFE budget, against published baselines."""

import math
from pathlib import Path
from typing import Annotated, TypeAlias

from experiments.common.model_options import Model
from experiments.common.sampling_options import Deterministic, Scale
from sd.command_line.flags import Range, Several, Words, refuse, unused, validated

Starts: TypeAlias = Annotated[int, Range(8, 10**7)]


@validated
class Config:
    """Measure the error of fitted solver weights and tuned time grids at equal NFE.

    NFE is the number of function evaluations of the denoiser. Weights and grids are fitted on
    training starts and evaluated on test starts. The error is the RMS distance of a sample from
    the exact end of its probability flow. The baselines are the fixed grids, Align Your Steps, its
    KL bound, error-weighted grids and the dynamic program, each under several solvers, and S4S and
    S4S-Alt. The default takes an hour on one core.
    """

    counts: Annotated[tuple[int, ...], Range(4, 119), Several(rising=True)] = (5, 8, 10, 15, 20)
    """NFE budgets, rising, each at least 4."""
    more: Annotated[tuple[int, ...], Range(1, 1000), Several(0)] = (6, 7, 9, 12, 17, 23, 30)
    """More numbers of steps for the baselines, to find which NFE reaches our error."""
    solvers: Annotated[tuple[Deterministic, ...], Several()] = ("unipc", "plms")
    """Solvers to tune grids for."""
    beside: Annotated[tuple[Deterministic, ...], Several()] = (
        "unipc",
        "plms",
        "deis",
        "dpmpp_3m",
        "dpm_solver_2m",
    )
    """Deterministic solvers to measure the baseline grids under."""
    scales: Annotated[tuple[float, ...], Range(0, math.inf, above=True), Several()] = (
        math.inf,
        1.0,
    )
    """Scales of the robust loss, in median errors; inf is least squares."""
    train: Starts = 32768
    """Training starts of the mixture, at least 8."""
    fit: Starts = 4096
    """Training starts that weights are fitted on, at least 8; all of them choose the best."""
    test: Starts = 32768
    """Test starts of the mixture, at least 8."""
    rounds: Annotated[int, Range(0, 10_000)] = 24
    """Optimiser rounds for a grid under a fixed solver; 0 tunes no grid."""
    moves: Annotated[int, Range(1, 10_000)] = 4
    """Optimiser rounds for a grid whose weights are refitted in each round."""
    modes: Annotated[int, Range(1, 100)] = 4
    """Cosine modes that parametrise such a grid."""
    s4s: Annotated[int, Range(0, 1000)] = 30
    """Largest NFE for S4S; 0 leaves it out. It runs at `--counts` and the larger ones of
    `--more`."""
    turns: Annotated[int, Range(0, 1000)] = 2
    """Alternations of S4S-Alt between nodes and weights; 0 leaves it out."""
    ends: Annotated[int, Range(0, 1000)] = 20
    """Largest NFE at which fitted weights are refined by the error of their samples, as in S4S."""
    descent: Annotated[int, Range(1, 10_000)] = 15
    """Optimiser rounds of that refinement."""
    nodes: Annotated[int, Range(5, 120)] = 33
    """Nodes that the published methods choose from, more than the largest NFE."""
    pictures: Annotated[int, Range(0, 10**6, but=1)] = 0
    """Latents of the text-to-image model to train on, and as many to test on; half of the first
    fit the weights. 0 leaves the model out. No grid is tuned for it."""
    exact: bool = True
    """Measure the Gaussian mixture, whose denoiser is exact."""
    seed: Annotated[int, Range(0, 2**29 - 1)] = 0
    """Seed of the mixture, its starts and the paths of the KL bound."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Processes of this machine that fit and evaluate the mixture's NFE budgets side by side."""
    scheduler: Annotated[str | None, Words()] = None
    """Address of a dask scheduler, host:port, whose workers do so instead."""
    out: Path = Path("out/tuned")
    """Folder for tuned.md, tuned.json and the figures."""
    model: Model = Model()
    """Which model, and where it runs; needs `--pictures`."""
    guidance_scale: Scale | None = None
    """w in x0_u + w (x0_c - x0_u) for `--pictures` (default: the model's)."""

    def __post_init__(self) -> None:
        most = max([self.counts[-1], *_sought(self)])
        if most >= self.nodes:
            refuse(self, "nodes", f"more than {most}, the largest NFE")
        for name in ("solvers", "beside"):
            if "adaptive" in getattr(self, name):
                refuse(self, name, "solvers that take the steps of a grid: not adaptive")
        from diffusion_math.schedule import Discrete  # not for --help, which needs no torch
        from experiments.tuned.baselines import steps_of

        for solver in self.solvers if self.exact and self.rounds else ():
            if steps_of(Discrete.scaled_linear(), solver, self.counts[0]) < 2:
                refuse(self, "counts", f"at least the NFE of two steps of {solver}")
        if not self.exact and not self.pictures:
            refuse(self, "pictures", "at least 2 with --no-exact")
        if not self.pictures:
            where = "without --pictures: the mixture alone is measured"
            unused(self, ["model", "guidance_scale"], where)
        if self.scheduler is not None:
            unused(self, ["workers"], "with --scheduler")
        if not self.exact:
            unused(self, ["workers", "scheduler"], "with --no-exact")
            unused(self, ["train", "fit", "test", "rounds"], "with --no-exact")
        if self.fit > self.train:
            unused(self, ["fit"], f"beyond --train {self.train}")
        if not _sought(self):
            unused(self, ["turns"], "where S4S runs at no NFE: see --s4s")
            if self.ends < self.counts[0]:
                unused(self, ["descent"], "where no weights are refined: see --ends")


def _sought(config: Config) -> list[int]:
    """The NFE at which S4S runs."""
    beyond = {steps for steps in config.more if steps > config.counts[-1]}
    return [steps for steps in (*config.counts, *sorted(beyond)) if steps <= config.s4s]
