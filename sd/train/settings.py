"""How a network is trained: the settings, their ranges, and what makes two trainings the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from sd.command_line import flags
from sd.command_line.flags import File, Range
from sd.shapes.data import FRESH

__all__ = ["FREE", "Initial", "Rate", "Share", "Size", "Steps", "Training", "Warmup", "agree"]

Steps: TypeAlias = Annotated[int, Range(1, 1_000_000_000)]
Warmup: TypeAlias = Annotated[int, Range(0, 1_000_000_000)]
Size: TypeAlias = Annotated[int, Range(1, 65_536)]
Rate: TypeAlias = Annotated[float, Range(0, 1, above=True)]
Share: TypeAlias = Annotated[float, Range(0, 1)]
Initial: TypeAlias = Annotated[Path | None, File()]
Seed: TypeAlias = Annotated[int, Range(0, FRESH - 1)]
"""Seeds end where the data sets for judging begin, so that no training draws from those."""

FREE = frozenset({"out", "checkpoint_every", "log_every", "workers", "cpu"})
"""The fields of `Training` on which the weights do not depend."""


@dataclass(frozen=True)
class Training:
    """How to train: every field is a flag of `python -m sd.train`; `check` refuses bad values."""

    prefix = ""  # of each flag's name, such as "unet."

    steps: Steps
    """Optimiser steps."""
    batch_size: Size
    """Examples a step."""
    learning_rate: Rate
    """Peak of AdamW's learning rate; after the warm-up it decays to zero as half a cosine."""
    out: Path
    """Folder of checkpoints, log and result."""
    warmup: Warmup = 200
    """Steps over which the learning rate rises from zero."""
    weight_decay: Share = 0.01
    """AdamW's decoupled weight decay."""
    ema: Share = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: Seed = 0
    """Of the initial weights, the data and every random number."""
    checkpoint_every: Steps = 500
    """Steps between checkpoints; a killed run resumes from the last one."""
    log_every: Steps = 50
    """Steps between lines of `log.jsonl`."""
    workers: Annotated[int, Range(0, 64)] = 0
    """Processes that make batches (0: this one)."""
    bfloat16: bool = True
    """Run the matrix products in bfloat16 (weights stay float32)."""
    cpu: bool = False
    """Stay on the CPU even where there is a GPU."""

    def check(self) -> None:
        """Raise ValueError, naming the flag, for a value out of range or a file that is missing."""
        flags.check(self)
        flags.files(self)

    def settings(self) -> dict[str, Any]:
        """What the trained weights depend on, as JSON values: every field by its flag, but `FREE`.

        A file counts by its content, not by its name. Raises OSError where it can't be read.
        """
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in FREE:
                found[flags.named(self, field.name)] = (
                    _content(value) if isinstance(value, Path) else value
                )
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
