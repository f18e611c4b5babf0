"""The audit of a library's samplers, or of your own: a page of checks, and reproducers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Several, check


@dataclass(frozen=True)
class Config:
    """What samplers really do, against exact solutions: grids, levels, orders, laws.

    Every sampler of the target walks on data of which everything is known. A row is sound; or a
    limit, which comes with the method or is stated openly; or a defect: what is claimed is not what
    is done. Each defect has a reproducer, a script of at most 20 lines.
    """

    target: str = "ours"
    """ours, diffusers, k-diffusion, azula, smalldiffusion, or PATH:NAME, a Python file and the name
    in it of a `diffusion_math.testing.Sampler`, of a list of them, or of a function that makes
    either."""
    quick: bool = False
    """The main setting of each sampler alone; of your own, fewer numbers of steps."""
    samplers: Annotated[tuple[str, ...], Several(0)] = ()
    """Names of samplers to audit, all of them if none is given."""
    out: Path = Path("out/audit")
    """Folder for audit.json, audit.html, audit.md, the figures and the reproducers."""

    def __post_init__(self) -> None:
        check(self)
