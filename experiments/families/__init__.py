"""C01 and C31: three ways to learn a map from noise to data; what an autoencoder's code lacks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Range, Seed, check


@dataclass(frozen=True)
class Config:
    """A VAE, a GAN and diffusion on one density of the plane, by one budget (C01, C31).

    Each learns a map x = f(z) of z ~ N(0, I) with as many learned numbers, updates and examples as
    the others. The density is known, so what they draw is compared with the truth itself. Beside
    them a plain autoencoder, whose code follows no distribution that one could draw from.
    """

    density: Literal["ring", "grid25", "two_moons", "pinwheel", "spirals"] = "ring"
    """The data."""
    steps: Annotated[int, Range(1, 10**7)] = 4000
    """Updates of each family, at least 1."""
    batch: Annotated[int, Range(2, 10**6)] = 256
    """Examples in an update, at least 2."""
    parameters: Annotated[int, Range(500, 10**8)] = 20_000
    """Learned numbers of each family, all its networks together, at least 500."""
    samples: Annotated[int, Range(100, 10**6)] = 4000
    """Draws that are judged, at least 100."""
    seed: Seed = 0
    """Of weights, data and draws."""
    out: Path = Path("out/families")
    """Folder for families.md, families.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
