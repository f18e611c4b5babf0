"""Langevin samplers: ascent, stationary distribution, and the modes they find (C22, C23, E7)."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Range, Seed, validated


@validated
class Config:
    """Compare five samplers that follow a score on one density (C22, C23, E6, E7).

    Gradient ascent, ULA, MALA, BAOAB and annealed Langevin start from the same particles, on a
    mixture of three modes with unequal weights. Each uses the same number of score evaluations. On
    N(0, 1), where the distribution after each step is exact, ULA's error is measured against the
    step size.
    """

    particles: Annotated[int, Range(100, 10**6)] = 8000
    """Particles of each sampler, at least 100."""
    budget: Annotated[int, Range(20, 10**6)] = 800
    """Score evaluations of each particle, at least 20."""
    chains: Annotated[int, Range(1000, 10**7)] = 20_000
    """Chains on N(0, 1) for each step size, at least 1000."""
    frames: Annotated[int, Range(0, 50, but=1)] = 45
    """Frames of the animation: 0 for none, or 2 to 50."""
    seed: Seed = 0
    """Seed of the starts and the noise."""
    out: Path = Path("out/langevin")
    """Folder for langevin.md, langevin.json, the figures and the animation."""
