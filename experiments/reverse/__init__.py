"""C09, C19, C20, C26: a learned score against the exact one, and samples by both."""

from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Range, Seed, Several, validated


@validated
class Config:
    """Learn the score of a test density, measure its error, and sample with it.

    Networks that predict eps, x0, v and the score are trained with equal budgets on one loss (C19,
    C26). Their Fisher divergence from the exact score is measured at every t. Samples (C20) come
    from the true reverse kernels, from Gaussian steps with the exact denoiser (C09), and from
    Gaussian steps with the learned denoiser.
    """

    density: Literal["ring", "two_moons", "grid25", "pinwheel", "spirals"] = "ring"
    """The data."""
    steps: Annotated[int, Range(16, 10**7)] = 4500
    """Training steps of each network, at least 16."""
    batch: Annotated[int, Range(2, 10**6)] = 256
    """Batch size, at least 2."""
    width: Annotated[int, Range(4, 8192)] = 96
    """Width of the networks' three hidden layers, at least 4."""
    walks: Annotated[tuple[int, ...], Range(2, 1000), Several(2)] = (2, 3, 5, 10, 20, 50, 200)
    """Numbers of sampling steps, two or more, 2 to 1000."""
    samples: Annotated[int, Range(100, 10**6)] = 2000
    """Samples of each method, at least 100."""
    frames: Annotated[int, Range(2, 45)] = 40
    """Frames of the animation, 2 to 45."""
    seed: Seed = 0
    """Seed of weights, data and samples."""
    out: Path = Path("out/reverse")
    """Folder for reverse.md, reverse.json and the figures."""
