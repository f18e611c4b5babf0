"""The audit of libraries, or of your own samplers: a page of checks, and reproducers."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Several, Words, refuse, validated


@validated
class Config:
    """Check samplers against exact solutions, and functions of libraries against their formulas.

    Every sampler of the target runs on a point, a Gaussian and a mixture, whose solutions are
    exact. The verdict of a check is sound, limit or defect. A limit is a known limitation: of the
    method, or documented. A defect is a claim that is not kept; it comes with a reproducer, a
    script of at most 20 lines. The exit code is 1 where there is a defect.
    """

    target: str = "ours"
    """What to audit: a library, field (all libraries, with one table of them), or PATH:NAME. The
    libraries are ours, ours-in-diffusers (our solvers as its scheduler), diffusers,
    diffusers-training, k-diffusion, azula, smalldiffusion, bayesflow, bionemo-moco, blackjax,
    dalle2-pytorch, deepinv, denoising-diffusion-pytorch, ema-pytorch, flow-matching,
    imagen-pytorch, keras-hub, monai, nvidia-physicsnemo, rectified-flow-pytorch, sbi, torchcfm
    and torchebm; `make peers` installs them. NAME in the Python file PATH is a
    `diffusion_math.testing.Sampler`, a list of them, or a function that returns either."""
    quick: bool = False
    """Audit the main settings of a library only; for PATH:NAME, fewer numbers of steps."""
    samplers: Annotated[tuple[str, ...], Several(0)] = ()
    """Names of the samplers to audit (default: all)."""
    scheduler: Annotated[str | None, Words()] = None
    """Address of a dask scheduler, host:port, on whose workers the libraries of field are audited;
    without it each core of this machine audits one at a time."""
    out: Path = Path("out/audit")
    """Folder for audit.json, audit.html, audit.md, the figures and the reproducers. With field,
    each library has a folder of its name in it."""

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.target != "field":
            refuse(self, "scheduler", "none without --target field")
