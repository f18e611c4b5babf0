"""X3: how long a picture takes on every device and precision, and how they come apart."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Suppress

from experiments.common.model_options import PROMPT, Model, Precision
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import Range, Words, check, unused


@dataclass(frozen=True)
class TimingModel(Model):
    """Which model, and where it runs."""

    dtype: Annotated[Precision, Suppress] = "float32"


@dataclass(frozen=True)
class Config:
    """X3: the time of one picture on every device and precision found.

    Each part is warmed up, synchronised, and repeated; the median is given with a 95% interval.
    The latents of each are compared, step by step, with those of float32 on the CPU (or of the
    first that is timed, where that is not).
    `--device auto` times all devices found, another name that one alone, each in every precision
    that the engine can have there; so `--dtype` is refused.
    """

    prompt: Annotated[str, Words()] = PROMPT
    """What is drawn."""
    repeats: Annotated[int, Range(3, 10_000)] = 11
    """Timed runs of each part, at least 3 (6 or more for a 95% interval)."""
    warmup: Annotated[int, Range(1, 10_000)] = 3
    """Runs before them that are not counted, at least 1."""
    cold_start: bool = True
    """Also time `generate` in a fresh process."""
    out: Path = Path("out/timing")
    """Folder for timing.md, timing.json and the figure."""
    model: TimingModel = field(default_factory=TimingModel)
    """Which model, and where it runs."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the model samples."""

    def __post_init__(self) -> None:
        check(self)
        unused(self.model, ["dtype"], "on `timing`, which times every precision")
