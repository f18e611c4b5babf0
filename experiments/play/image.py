"""The tab Image: a prompt is sampled, x0_hat shown after each step, the PNG holds its settings."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, final

from PIL.Image import Image
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.step import State, Step
from experiments import generate
from experiments.common.model_options import Model
from experiments.common.sampling_options import Grid, Sampling, Solver
from experiments.generate.run import run
from experiments.play.jobs import Tell
from sd.command_line.flags import FlagError, Range, Words, refuse, validated
from sd.files.image_file import open_image
from sd.pipeline import TextToImage
from sd.solver import solver_of

__all__ = ["Drawn", "Preview", "Settings", "sample"]

LONGEST = 2000
"""Characters of a prompt."""

MOST_STEPS = 200

LARGEST = 4096 * 4096
"""Pixels of an uploaded image."""

ON, OFF = "on", "off"


@validated
class Settings:
    """What the page asks for. The names of the fields are those of the flags of `generate`."""

    prompt: Annotated[str, Words()]
    negative_prompt: Annotated[str, Words(empty=True)] = ""
    guidance_scale: Annotated[float, Range(0, 100)] = 2.0
    side_by_side: bool = False
    seed: Annotated[int, Range(0, 2**53)] = 0
    """A browser's numbers are exact up to 2^53."""
    solver: Solver = "ddpm"
    grid: Grid = "trailing"
    steps: Annotated[int, Range(1, MOST_STEPS)] = 25
    image: Path | None = None
    strength: Annotated[float, Range(0, 1, above=True)] = 0.8

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            got = len(getattr(self, name))
            if got > LONGEST:
                said = f"wanted at most {LONGEST} characters, got {got}"
                raise FlagError(f"{name.replace('_', ' ')}: {said}")
        if self.side_by_side and self.guidance_scale == 1:
            refuse(self, "guidance_scale", "another value than 1, which is no guidance, to compare")

    def config(self, guided: bool, model: Model) -> generate.Config:
        """The same for `generate`, with guidance on or off; its checks are made."""
        scale = {"guidance_scale": float(self.guidance_scale)} if guided else {}
        given: dict[str, Any] = {"negative_prompt": self.negative_prompt} if guided else {}
        if self.image is not None:
            given |= {"image": self.image, "strength": float(self.strength)}
        sampling = Sampling(steps=self.steps, solver=self.solver, grid=self.grid, **scale)
        prompt, seed = (self.prompt,), (self.seed,)
        return generate.Config(
            prompt=prompt, seed=seed, do_cfg=guided, model=model, sampling=sampling, **given
        )


@final
@dataclass(frozen=True)
class Preview:
    """x0_hat of one step, decoded. side: `ON` or `OFF`, guidance."""

    side: str
    step: int
    time: float
    image: Image


@final
@dataclass(frozen=True)
class Drawn:
    """A finished image: a PNG that holds its settings."""

    side: str
    name: str
    png: bytes


def sample(settings: Settings, model: Model, pipeline: TextToImage, every: int, tell: Tell) -> None:
    """Sample with guidance on, and with `side_by_side` off too; tell each `Preview` and `Drawn`.

    every: x0_hat is decoded after every so many steps. Raises ValueError for an image that cannot
    be read or is too large.
    """
    if settings.image is not None:
        bounded(settings.image)
    sides = {ON: settings.config(True, model)}
    if settings.side_by_side:
        sides[OFF] = settings.config(False, model)
    for side, config in sides.items():

        def see(step: int, time: float, x0: Tensor, side: str = side) -> None:
            tell(Preview(side, step, time, pipeline.decode(x0)[0]))

        own = solver_of(pipeline.config, settings.solver)
        solver = _watched(own, every, see)
        try:
            result = run(config, pipeline, hold=True, solver=solver, progress=False)
        except ValueError as error:
            if settings.image is None:
                raise
            raise ValueError(str(error).replace(str(settings.image), "")) from error
        (figure,) = result.figures
        tell(Drawn(side, figure.name, figure.image))


def bounded(path: Path) -> None:
    """Raise ValueError for an image of more pixels than `LARGEST`, or none at all."""
    try:
        image = open_image(path)
    except ValueError as error:
        raise ValueError(str(error).replace(f" {path}", "")) from error
    if image.width * image.height > LARGEST:
        got = f"{image.width} x {image.height}"
        raise ValueError(f"image: wanted at most {LARGEST} pixels, got {got}")


def _watched(
    own: Callable[[Schedule], Step], every: int, see: Callable[[int, float, Tensor], None]
) -> Callable[[Schedule], Step]:
    """The solver; `see(step, time, x0_hat)` of the last evaluation in each step.

    every: of every so many steps.
    """

    @wraps(own)
    def solver(schedule: Schedule) -> Step:
        step, count = own(schedule), itertools.count(1)

        def watched(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
            latest: list[tuple[float, Tensor]] = []

            def kept(x_t: Tensor, time: Tensor) -> Tensor:
                x0 = denoise(x_t, time)
                latest[:] = [(float(time), x0)]
                return x0

            after = step(kept, state, t, s, noise)
            number = next(count)
            if latest and number % every == 0:
                see(number, *latest[0])
            return after

        return watched

    return solver
