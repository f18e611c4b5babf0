"""The log-likelihood of points, three independent ways: closed form, probability flow, bound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Power, Range, Seed, check


@dataclass(frozen=True)
class Config:
    """log p of points of a mixture in closed form, by an ODE and by the bound.

    The probability flow with the exact denoiser must give the mixture's own density, to its
    solver's tolerance; with Hutchinson's divergence it must on average; the bound lies below it by
    the KL of whole paths, and with the true reverse kernels by nothing.
    """

    density: Literal["ring", "grid25", "two_moons"] = "ring"
    """The mixture."""
    points: Annotated[int, Range(8, 100_000)] = 40
    """Points whose likelihood is found, at least 8."""
    digits: Annotated[int, Range(8, 12)] = 11
    """The solver's tolerances are 1e-2, 1e-3, ..., 10^-digits; 8 to 12."""
    copies: Annotated[int, Range(20, 100_000)] = 40
    """Independent estimates of each of 8 points' likelihoods by Hutchinson, at least 20."""
    probes: Annotated[int, Power(2, 2, 2**12)] = 16
    """Most probes of an estimate: a power of 2, at least 2."""
    paths: Annotated[int, Range(100, 10**7)] = 2000
    """Whole paths for the KL of the bound's chain, at least 100."""
    steps: Annotated[int, Power(4, 4, 4**6)] = 64
    """Most steps of that chain: a power of 4, at least 4."""
    seed: Seed = 0
    """Of points, probes and paths."""
    out: Path = Path("out/likelihood")
    """Folder for likelihood.md, likelihood.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
