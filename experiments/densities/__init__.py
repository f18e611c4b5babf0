"""Every density of the plane: its mass, its sampler and its score, against one another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from sd.command_line.flags import Range, Seed, Several, check

Name = Literal[
    "ring", "grid25", "two_moons", "pinwheel", "spirals", "checkerboard", "banana", "funnel"
]
"""The densities whose q(x_t) is known at every t: all of `diffusion_math.densities.toy`."""


NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Config:
    """The densities of the plane that all experiments draw from, each known exactly.

    A density has three parts that nothing forces to agree: a formula for log q, one for its
    gradient, the score, and a sampler. Here the first is integrated over the plane, the second is
    compared with automatic differentiation, and the third is counted in cells.
    """

    densities: Annotated[tuple[Name, ...], Several()] = NAMES
    """Which to show."""
    samples: Annotated[int, Range(1000, 10**7)] = 20_000
    """Samples of each, at least 1000."""
    seed: Seed = 0
    """Of the samples."""
    out: Path = Path("out/densities")
    """Folder for densities.md, densities.json and the figure."""

    def __post_init__(self) -> None:
        check(self)
