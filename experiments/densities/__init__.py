"""The test densities of the plane: mass, sampler and score, checked against each other."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from sd.command_line.flags import Range, Seed, Several, validated

Name = Literal[
    "ring", "grid25", "two_moons", "pinwheel", "spirals", "checkerboard", "banana", "funnel"
]
"""The densities whose q(x_t) is known at every t: all of `diffusion_math.densities.toy`."""


NAMES: tuple[Name, ...] = get_args(Name)


@validated
class Config:
    """Check the exact densities of the plane that the experiments sample from.

    A density has a formula for log q, a formula for its gradient (the score), and a sampler. The
    mass is integrated over the plane, the score is compared with automatic differentiation, and
    the samples are counted in cells.
    """

    densities: Annotated[tuple[Name, ...], Several()] = NAMES
    """Densities to check."""
    samples: Annotated[int, Range(1000, 10**7)] = 20_000
    """Samples of each density, at least 1000."""
    seed: Seed = 0
    """Seed of the samples."""
    out: Path = Path("out/densities")
    """Folder for densities.md, densities.json and the figure."""
