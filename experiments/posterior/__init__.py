"""The true reverse kernel of a mixture, against the Gaussian approximation of a sampler."""

from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Range, Seed, Several, refuse, validated


@validated
class Config:
    """Compare the true reverse kernel with its Gaussian approximation (C08, C09, C11, C16).

    For a mixture, q(x_s | x_t) is exact. A sampler takes a Gaussian of the right mean, with the
    variance beta_hat or beta. The approximation is good for small steps.
    """

    density: Literal["ring", "grid25", "two_moons", "pinwheel", "spirals"] = "ring"
    """The data, a mixture, scaled to an average variance of 1."""
    schedule: Literal["scaled_linear", "linear", "cosine"] = "scaled_linear"
    """The noise schedule: scaled_linear is Stable Diffusion's, linear DDPM's."""
    times: Annotated[tuple[int, ...], Range(2, 1000), Several()] = (100, 250, 500, 1000)
    """Times t at which q(x_0 | x_t) is shown, 2 to 1000."""
    time: Annotated[int, Range(3, 1000)] = 400
    """The time t from which steps of several sizes are taken, 3 to 1000."""
    steps: Annotated[tuple[int, ...], Range(1, 999), Several(2)] = (1, 20, 50, 100, 200, 350)
    """Sizes t - s of these steps, two or more, each below `--time`."""
    points: Annotated[int, Range(2, 1000)] = 12
    """Samples of x_t that the errors are averaged over, at least 2."""
    samples: Annotated[int, Range(1000, 10**7)] = 10_000
    """Samples of each kernel, at least 1000."""
    curve: Annotated[int, Range(2, 1000)] = 10
    """Times at which the best variance is computed, at least 2."""
    seed: Seed = 0
    """Seed of all samples."""
    out: Path = Path("out/posterior")
    """Folder for posterior.md, posterior.json and the figures."""

    def __post_init__(self) -> None:
        if max(self.steps) >= self.time:
            refuse(self, "steps", f"whole numbers below --time {self.time}")
