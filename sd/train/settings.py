"""How a network is trained: the settings, their ranges, and what makes two trainings the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sd.shapes.data import FRESH

__all__ = ["RANGES", "Range", "Training", "agree", "within"]


@dataclass(frozen=True)
class Range:
    """The valid values of a number, both ends included unless `above`: then `low` is not."""

    low: int
    high: int
    whole: bool = True
    above: bool = False

    def holds(self, value: object) -> bool:
        """Whether the value is a number of the right kind within the ends; NaN never is."""
        kind = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        kind = "an integer" if self.whole else "a number"
        if self.above:
            return f"{kind} above {self.low} and at most {self.high}"
        return f"{kind} from {self.low} to {self.high}"


RANGES: dict[str, Range] = {
    "steps": Range(1, 1_000_000_000),
    "batch_size": Range(1, 65_536),
    "learning_rate": Range(0, 1, whole=False, above=True),
    "warmup": Range(0, 1_000_000_000),
    "weight_decay": Range(0, 1, whole=False),
    "ema": Range(0, 1, whole=False),
    "seed": Range(0, FRESH - 1),
    "checkpoint_every": Range(1, 1_000_000_000),
    "log_every": Range(1, 1_000_000_000),
    "workers": Range(0, 64),
    "noise": Range(0, 10, whole=False),
    "latents": Range(100, 10_000_000),
    "drop": Range(0, 1, whole=False),
    "two": Range(0, 1, whole=False),
    "judged": Range(1, 1_000_000),
}
"""Every number among the flags of `python -m sd.train`, by the name of its field.

Seeds end where the data sets for judging begin, so that no training draws from those.
"""

FREE = frozenset({"out", "checkpoint_every", "log_every", "workers", "cpu"})
"""The fields of `Training` on which the weights do not depend."""


def within(owner: Any, prefix: str) -> None:
    """Raise ValueError, naming the flag, for a number of a dataclass outside its range.

    Args:
        owner: the dataclass; its fields named in `RANGES` are checked.
        prefix: what stands before a field's name in its flag, such as "unet.".
    """
    for field in fields(owner):
        value = getattr(owner, field.name)
        if field.name in RANGES and not RANGES[field.name].holds(value):
            name = flag(prefix, field.name)
            raise ValueError(f"{name} must be {RANGES[field.name]}, got {str(value)[:40]}")


def flag(prefix: str, name: str) -> str:
    """A field's name as a flag."""
    return f"--{prefix}{name}".replace("_", "-")


@dataclass(frozen=True)
class Training:
    """How to train: every field is a flag of `python -m sd.train`; `check` refuses bad values."""

    stage: ClassVar[str] = ""
    """What stands before each flag's name, such as "unet."."""

    steps: int
    """Optimiser steps."""
    batch_size: int
    """Examples a step."""
    learning_rate: float
    """Peak of AdamW's learning rate; after the warm-up it decays to zero as half a cosine."""
    out: Path
    """Folder of checkpoints, log and result."""
    warmup: int = 200
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: int = 0
    """Of the initial weights, the data and every random number."""
    checkpoint_every: int = 500
    """Steps between checkpoints; a killed run resumes from the last one."""
    log_every: int = 50
    """Steps between lines of `log.jsonl`."""
    workers: int = 0
    """Processes that make batches (0: this one)."""
    bfloat16: bool = True
    """Run the matrix products in bfloat16 (weights stay float32)."""
    cpu: bool = False
    """Stay on the CPU even where there is a GPU."""

    def check(self) -> None:
        """Raise ValueError, naming the flag, for a value that is out of range or of no effect."""
        within(self, self.stage)

    def settings(self) -> dict[str, Any]:
        """What the trained weights depend on, as JSON values: every field by its flag, but `FREE`.

        A file counts by its content, not by its name. Raises OSError where it can't be read.
        """
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in FREE:
                named = flag(self.stage, field.name)
                found[named] = _content(value) if isinstance(value, Path) else value
        return found


def agree(where: Path, made: object, wanted: Mapping[str, Any], advice: str) -> None:
    """Raise ValueError where what a file was made with differs from what is wanted now.

    Args:
        where: the file.
        made: the settings that it keeps; None if it keeps none.
        wanted: those of the present run.
        advice: what else the user can do, for the message.

    The message names every setting that differs, and both its values.
    """
    if not isinstance(made, Mapping):
        raise ValueError(f"{where} does not say how it was trained; {advice}")
    differing = [
        f"{name} {_shown(made.get(name))} there, {_shown(value)} now"
        for name, value in wanted.items()
        if name not in made or _json(made[name]) != _json(value)
    ]
    if differing:
        schedule = any(".steps " in one or "--steps " in one for one in differing)
        why = " (the learning rate's schedule depends on the number of steps)" if schedule else ""
        what = "; ".join(differing)
        raise ValueError(
            f"{where} was made with other settings: {what}{why}; give the same again, or {advice}"
        )


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    """A setting for a message; long ones are cut."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
