"""The audit of a library's samplers, or of your own: a page of checks, and reproducers."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Several, validated


@validated
class Config:
    """Check samplers against exact solutions: grids, noise levels, orders and moments.

    Every sampler of the target runs on a point, a Gaussian and a mixture, whose solutions are
    exact. The verdict of a check is sound, limit or defect. A limit is a known limitation: of the
    method, or documented. A defect is a claim that the sampler does not keep; it comes with a
    reproducer, a script of at most 20 lines.
    """

    target: str = "ours"
    """What to audit: ours, ours-in-diffusers (our solvers as its scheduler), diffusers,
    k-diffusion, azula, smalldiffusion, or PATH:NAME. NAME in the Python file PATH is a
    `diffusion_math.testing.Sampler`, a list of them, or a function that returns either."""
    quick: bool = False
    """Audit the main setting of each sampler only; for PATH:NAME, fewer numbers of steps."""
    samplers: Annotated[tuple[str, ...], Several(0)] = ()
    """Names of the samplers to audit (default: all)."""
    out: Path = Path("out/audit")
    """Folder for audit.json, audit.html, audit.md, the figures and the reproducers."""
