"""The log-likelihood of points in three ways: closed form, probability flow ODE, bound."""

from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Power, Range, Seed, validated


@validated
class Config:
    """Compare log p of a mixture in closed form, by the probability flow ODE and by the bound.

    With the exact denoiser, the ODE gives the closed form to its solver's tolerance, and with
    Hutchinson's estimate of the divergence on average. The bound is lower than log p by the KL of
    whole paths, which is 0 for the true reverse kernels.
    """

    density: Literal["ring", "grid25", "two_moons"] = "ring"
    """The mixture."""
    points: Annotated[int, Range(8, 100_000)] = 40
    """Points to evaluate log p at, at least 8."""
    digits: Annotated[int, Range(8, 12)] = 11
    """The ODE solver's tolerances are 1e-2, 1e-3, ..., 10^-digits; 8 to 12."""
    copies: Annotated[int, Range(20, 100_000)] = 40
    """Hutchinson estimates of log p at each of 8 points, at least 20."""
    probes: Annotated[int, Power(2, 2, 2**12)] = 16
    """Largest number of probes of an estimate: a power of 2, at least 2."""
    paths: Annotated[int, Range(100, 10**7)] = 2000
    """Paths for the KL of the bound's chain, at least 100."""
    steps: Annotated[int, Power(4, 4, 4**6)] = 64
    """Largest number of steps of that chain: a power of 4, at least 4."""
    seed: Seed = 0
    """Seed of points, probes and paths."""
    out: Path = Path("out/likelihood")
    """Folder for likelihood.md, likelihood.json and the figures."""
