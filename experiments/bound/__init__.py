"""The terms of DDPM's variational bound, on data whose likelihood is exact (C12-C15, C17, C18)."""

from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Power, Range, Seed, validated


@validated
class Config:
    """Measure each term of DDPM's variational bound, and its gap to -log p (C12-C15, C17, C18).

    The data are a mixture in the plane within [-1, 1], with an exact log-density and an exact
    denoiser. The best denoiser that is affine in x_t is measured too. The gap is followed to the
    limit of short steps.
    """

    density: Literal["two_moons", "ring", "grid25"] = "two_moons"
    """The data, scaled by 1/2, so that they lie in [-1, 1]."""
    steps: Annotated[int, Range(2, 1000)] = 1000
    """Steps of DDPM's chain, 2 to 1000."""
    draws: Annotated[int, Range(50, 10**6)] = 1000
    """Samples that the terms are averaged over, at least 50."""
    finest: Annotated[int, Power(2, 8, 2**16)] = 512
    """Largest number of steps of the limit to the integral over log-SNR: a power of 2, at least
    8."""
    seed: Seed = 0
    """Seed of data and noise."""
    out: Path = Path("out/bound")
    """Folder for bound.md, bound.json and the figures."""
