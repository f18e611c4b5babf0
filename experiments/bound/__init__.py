"""The bound of DDPM in its terms, on data whose true likelihood is known (C12-C15, C17, C18)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Power, Range, Seed, check


@dataclass(frozen=True)
class Config:
    """The variational bound term by term, and what it loses (C12-C15, C17, C18).

    The data are a mixture in the plane within [-1, 1], whose log-density and best denoiser are
    known; beside it stands the best denoiser that is affine in x_t. What each term costs, what
    their sum exceeds -log p by, and where it goes as the steps become short.
    """

    density: Literal["two_moons", "ring", "grid25"] = "two_moons"
    """The data, at half their size: 8-bit levels reach from -1 to 1."""
    steps: Annotated[int, Range(2, 1000)] = 1000
    """Steps of DDPM's chain, 2 to 1000."""
    draws: Annotated[int, Range(50, 10**6)] = 1000
    """Examples the terms are averaged over, at least 50."""
    finest: Annotated[int, Power(2, 8, 2**16)] = 512
    """Most steps on the way to the integral over log-SNR: a power of 2, at least 8."""
    seed: Seed = 0
    """Of data and noise."""
    out: Path = Path("out/bound")
    """Folder for bound.md, bound.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
