"""The true reverse kernel of a mixture, and the Gaussian that a sampler puts in its place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sd.command_line.flags import Range, Seed, Several, check, refuse


@dataclass(frozen=True)
class Config:
    """One step back from x_t: Bayes' kernel beside the Gaussian of the model (C08, C09, C11, C16).

    For a mixture q(x_s | x_t) is known. A model has a Gaussian there, whose mean is right and whose
    variance is beta_hat or beta; that is a good approximation while the step is small.
    """

    density: Literal["ring", "grid25", "two_moons", "pinwheel", "spirals"] = "ring"
    """The data, a mixture, scaled to an average variance of 1."""
    schedule: Literal["scaled_linear", "linear", "cosine"] = "scaled_linear"
    """The noise schedule: scaled_linear is Stable Diffusion's, linear DDPM's."""
    times: Annotated[tuple[int, ...], Range(2, 1000), Several()] = (100, 250, 500, 1000)
    """Times t at which q(x_0 | x_t) is drawn, 2 to 1000."""
    time: Annotated[int, Range(3, 1000)] = 400
    """The t from which steps of several sizes are taken, 3 to 1000."""
    steps: Annotated[tuple[int, ...], Range(1, 999), Several(2)] = (1, 20, 50, 100, 200, 350)
    """Their sizes t - s, two or more below `time`."""
    points: Annotated[int, Range(2, 1000)] = 12
    """Samples of x_t over which distances are averaged, at least 2."""
    samples: Annotated[int, Range(1000, 10**7)] = 10_000
    """Samples of each kernel, at least 1000."""
    curve: Annotated[int, Range(2, 1000)] = 10
    """Times at which the best variance is found, at least 2."""
    seed: Seed = 0
    """Of all samples."""
    out: Path = Path("out/posterior")
    """Folder for posterior.md, posterior.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
        if max(self.steps) >= self.time:
            refuse(self, "steps", f"whole numbers below --time {self.time}")
