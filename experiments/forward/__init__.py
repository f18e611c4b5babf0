"""The forward process of an image and of a density of the plane, against its closed forms."""

from pathlib import Path
from typing import Annotated, Literal

from experiments.densities import Name
from sd.command_line.flags import File, Range, Seed, Several, validated


@validated
class Config:
    """Noise an image and a density of the plane step by step (C02-C07).

    The step x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps is iterated a thousand times. The
    result is compared with the closed form q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I).
    """

    schedule: Literal["scaled_linear", "linear", "cosine"] = "scaled_linear"
    """The noise schedule: scaled_linear is Stable Diffusion's, linear DDPM's."""
    density: Name = "two_moons"
    """The density of the plane."""
    image: Annotated[Path, File()] | None = None
    """The image, of any size and format (default: one of the embedded data set)."""
    times: Annotated[tuple[int, ...], Range(0, 1000), Several(2)] = (0, 20, 100, 250, 500, 1000)
    """Times to show, 0 (clean) to 1000 (noise)."""
    samples: Annotated[int, Range(100, 10**6)] = 4000
    """Points of the plane to follow, at least 100."""
    frames: Annotated[int, Range(2, 60)] = 40
    """Frames of the animation, 2 to 60."""
    seed: Seed = 0
    """Seed of the noise."""
    out: Path = Path("out/forward")
    """Folder for forward.md, forward.json and the figures."""
