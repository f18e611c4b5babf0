"""How near to the exact end of the flow, in what time: solvers, steps, guidance intervals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from experiments.common.model_options import Model
from experiments.common.sampling_options import Deterministic, Grid, Interval, Scale
from sd.command_line.flags import Range, Seed, Several, check, refuse


@dataclass(frozen=True)
class Config:
    """Error over seconds: several solvers, numbers of steps and guidance intervals.

    The end of a walk is compared with the end of the flow itself, from the same noise, which many
    steps of Heun's find on a grid with nodes on both sides of every jump of the guidance. Solvers
    that draw noise have no such end.
    """

    solvers: Annotated[tuple[Deterministic, ...], Several(2)] = (
        "euler",
        "heun",
        "dpmpp_2m",
        "dpmpp_3m",
        "unipc",
    )
    """Solvers that draw no noise; euler and dpmpp_2m, which are compared, among them."""
    counts: Annotated[tuple[int, ...], Range(1, 1000), Several(2, rising=True)] = (4, 7, 12, 20, 35)
    """Numbers of steps, rising, two or more."""
    grids: Annotated[tuple[Grid, ...], Several()] = ("trailing", "karras")
    """Where the steps fall; limited guidance is measured on the last."""
    intervals: Annotated[tuple[Interval, ...], Several(0)] = ((0.28, 2.9), (0.28, 5.42))
    """LOW HIGH, pairs of noise levels sigma/alpha to guide between (default: Kynkaanniemi et al.'s
    for EDM2-S and for Stable Diffusion XL); guidance at every level is always measured."""
    pictures: Annotated[int, Range(2, 1000)] = 3
    """Pictures that errors and seconds are taken over, one at a time, at least 2."""
    reference: Annotated[int, Range(8, 1000)] = 100
    """Steps to the converged solution; half as many certify it. At least 8."""
    judged: Annotated[int, Range(4, 10_000)] = 48
    """Pictures of each interval that the reader compares with their prompts, at least 4."""
    seed: Seed = 0
    """Of the first picture; the next ones count up."""
    out: Path = Path("out/tradeoff")
    """Folder for tradeoff.md, tradeoff.json and the figures."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    guidance_scale: Scale | None = None
    """w in x0_u + w (x0_c - x0_u); default: the model's."""

    def __post_init__(self) -> None:
        check(self)
        if not {"euler", "dpmpp_2m"} <= set(self.solvers):
            refuse(self, "solvers", "euler and dpmpp_2m among them")
