"""C01 and C31: a VAE, a GAN, diffusion and an autoencoder on one density, with equal budgets."""

from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Range, Seed, validated


@validated
class Config:
    """Compare a VAE, a GAN and diffusion on one density, with equal budgets (C01, C31).

    Each learns a map x = f(z) of z ~ N(0, I), with the same number of parameters, training steps
    and examples. The density is exact, so their samples are compared with the truth. A plain
    autoencoder is trained as well; its latent code has no distribution to sample from.
    """

    density: Literal["ring", "grid25", "two_moons", "pinwheel", "spirals"] = "ring"
    """The data."""
    steps: Annotated[int, Range(1, 10**7)] = 4000
    """Training steps of each family, at least 1."""
    batch: Annotated[int, Range(2, 10**6)] = 256
    """Batch size, at least 2."""
    parameters: Annotated[int, Range(500, 10**8)] = 20_000
    """Parameters of each family, all its networks together, at least 500."""
    samples: Annotated[int, Range(100, 10**6)] = 4000
    """Samples of each family to evaluate, at least 100."""
    seed: Seed = 0
    """Seed of weights, data and samples."""
    out: Path = Path("out/families")
    """Folder for families.md, families.json and the figures."""
