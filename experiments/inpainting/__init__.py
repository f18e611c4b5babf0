"""What inpainting with an unconditional denoiser samples, against the exact conditional."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Range, Several, refuse, validated


@validated
class Config:
    """Compare inpainting methods with the exact conditional distribution of the unknown part.

    The data are Gaussian mixtures in the plane, of which one coordinate is known. All predictions
    are exact. What replacement and RePaint sample is computed as a density. SMCDiff's particles,
    and DDPM with the exact conditional denoiser, are sampled.
    """

    steps: Annotated[int, Range(8, 100)] = 30
    """Steps of each sampler, 8 to 100."""
    repeats: Annotated[tuple[int, ...], Range(2, 100), Several()] = (2, 5, 10, 20)
    """RePaint's U, steps between neighbouring times; U = 1, replacement, is always measured."""
    shown: Annotated[int, Range(2, 100)] = 5
    """RePaint's U in the figure of densities and for the samples, one of `--repeats`."""
    particles: Annotated[tuple[int, ...], Range(1, 256), Several()] = (4, 16, 64, 256)
    """SMCDiff's numbers of particles for one group."""
    samples: Annotated[int, Range(2048, 1_000_000)] = 16384
    """Samples of each sampled method, at least 2048."""
    seed: Annotated[int, Range(0, 2**62)] = 0
    """Seed of the samples."""
    out: Path = Path("out/inpainting")
    """Folder for inpainting.md, inpainting.json and the figures."""

    def __post_init__(self) -> None:
        if self.shown not in self.repeats:
            refuse(self, "shown", f"one of --repeats {' '.join(map(str, self.repeats))}")
