"""X3: the time of one image on every device and precision, and the numerical difference of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Suppress

from experiments.common.model_options import PROMPT, Model, Precision
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import Range, Words, unused, validated


@dataclass(frozen=True)
class TimingModel(Model):
    """Which model, and where it runs."""

    dtype: Annotated[Precision, Suppress] = "float32"


@validated
class Config:
    """X3: measure the time of one image on every device and precision found.

    Each part runs after a warm-up, with the device synchronised; the median has a 95% interval.
    The latents are compared, step by step, with those of float32 on the CPU (or of the first
    setting, where that one is not timed). `--device auto` times all devices found, another name
    times that one alone, in every precision that the engine supports there.
    """

    prompt: Annotated[str, Words()] = PROMPT
    """What to generate."""
    repeats: Annotated[int, Range(3, 10_000)] = 11
    """Timed runs of each part, at least 3; a 95% interval needs 6."""
    warmup: Annotated[int, Range(1, 10_000)] = 3
    """Runs before the timed ones, at least 1."""
    cold_start: bool = True
    """Also time `generate` in a fresh process."""
    out: Path = Path("out/timing")
    """Folder for timing.md, timing.json and the figure."""
    model: TimingModel = TimingModel()
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        unused(self.model, ["dtype"], "on `timing`, which times every precision")
