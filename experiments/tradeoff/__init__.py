"""Error against seconds: solvers, numbers of steps and guidance intervals."""

from pathlib import Path
from typing import Annotated, TypeAlias

from experiments.common.model_options import Model
from experiments.common.sampling_options import Deterministic, Grid, Interval, Scale
from sd.command_line.flags import Range, Seed, Several, refuse, validated

Solvers: TypeAlias = Annotated[tuple[Deterministic, ...], Several(2)]


@validated
class Config:
    """Measure error against seconds for solvers, numbers of steps and guidance intervals.

    The error is the RMS distance of a sample from the exact end of the probability flow that
    starts at the same noise. Heun's method with many steps gives that end, on a grid with nodes on
    both sides of every jump of the guidance. Only deterministic solvers have such an error.
    """

    solvers: Solvers = ("euler", "heun", "dpmpp_2m", "dpmpp_3m", "unipc")
    """Deterministic solvers; euler and dpmpp_2m must be among them, since a claim compares them."""
    counts: Annotated[tuple[int, ...], Range(1, 1000), Several(2, rising=True)] = (4, 7, 12, 20, 35)
    """Numbers of steps, rising, two or more."""
    grids: Annotated[tuple[Grid, ...], Several()] = ("trailing", "karras")
    """Time grids; guidance intervals are measured on the last one."""
    intervals: Annotated[tuple[Interval, ...], Several(0)] = ((0.28, 2.9), (0.28, 5.42))
    """Guidance intervals LOW HIGH in sigma/alpha (default: those of Kynkaanniemi et al. for EDM2-S
    and for Stable Diffusion XL); guidance at every noise level is always measured."""
    pictures: Annotated[int, Range(2, 1000)] = 3
    """Images to measure errors and seconds on, at least 2."""
    compared: Annotated[int, Range(2, 1000)] = 8
    """Images that the errors of dpmpp_2m and euler are compared over, at the most steps."""
    reference: Annotated[int, Range(8, 1000)] = 100
    """Steps of the reference solution, at least 8; half as many bound its error."""
    judged: Annotated[int, Range(4, 10_000)] = 48
    """Images of each interval that the reader checks against their prompts, at least 4."""
    seed: Seed = 0
    """Seed of the first image; the next ones count up."""
    out: Path = Path("out/tradeoff")
    """Folder for tradeoff.md, tradeoff.json and the figures."""
    model: Model = Model()
    guidance_scale: Scale | None = None
    """w in x0_u + w (x0_c - x0_u) (default: the model's)."""

    def __post_init__(self) -> None:
        if not {"euler", "dpmpp_2m"} <= set(self.solvers):
            refuse(self, "solvers", "euler and dpmpp_2m among them")
