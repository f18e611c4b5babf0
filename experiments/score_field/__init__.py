"""The exact score of a density from data to noise, and its denoiser."""

from pathlib import Path
from typing import Annotated, Literal

from experiments.densities import Name
from sd.command_line.flags import Range, Seed, Several, validated


@validated
class Config:
    """Show the exact score of q(x_t) at times from data to noise (C21).

    At small t the score is large and points to the nearest data. At large t it becomes -x, the
    score of N(0, I). Tweedie's formula gives the denoiser: alpha_t E[x_0 | x_t] = x_t + sigma_t^2
    score.
    """

    density: Name = "two_moons"
    """The density of the plane."""
    schedule: Literal["scaled_linear", "linear", "cosine"] = "scaled_linear"
    """The noise schedule: scaled_linear is Stable Diffusion's, linear DDPM's."""
    times: Annotated[tuple[int, ...], Range(1, 1000), Several()] = (20, 100, 250, 500, 1000)
    """Times to show, 1 (almost clean) to 1000 (noise)."""
    samples: Annotated[int, Range(200, 10**6)] = 4000
    """Samples of (x_0, x_t) at each time, at least 200."""
    seed: Seed = 0
    """Seed of the samples."""
    out: Path = Path("out/score-field")
    """Folder for score-field.md, score-field.json and the figures."""
