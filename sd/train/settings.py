"""The settings of a training, their ranges, and the comparison of two trainings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from torch import nn

from sd import weights
from sd.command_line import flags
from sd.command_line.flags import File, Range
from sd.config import AnyConfig, ModelConfig
from sd.files.regular_file import parse_json
from sd.shapes.data import FRESH

__all__ = [
    "FREE",
    "Initial",
    "Rate",
    "Share",
    "Size",
    "Steps",
    "Training",
    "Warmup",
    "agree",
    "agreed",
    "require_fit",
]

Steps: TypeAlias = Annotated[int, Range(1, 1_000_000_000)]
Warmup: TypeAlias = Annotated[int, Range(0, 1_000_000_000)]
Size: TypeAlias = Annotated[int, Range(1, 65_536)]
Rate: TypeAlias = Annotated[float, Range(0, 1, above=True)]
Share: TypeAlias = Annotated[float, Range(0, 1)]
Initial: TypeAlias = Annotated[Path | None, File()]
Seed: TypeAlias = Annotated[int, Range(0, FRESH - 1)]
"""Seeds end where the data sets for evaluation begin, so that no training uses those."""

FREE = frozenset({"out", "checkpoint_every", "log_every", "workers", "tensorboard", "cpu", "fsdp"})
"""The fields of trainings that do not change the weights."""


@dataclass(frozen=True)
class Training:
    """The settings of a training: each field is a flag of `python -m sd.train`."""

    prefix = ""  # of each flag's name, such as "unet."

    steps: Steps
    """Optimiser steps."""
    batch_size: Size
    """Examples per step, of all processes together."""
    learning_rate: Rate
    """Peak learning rate of AdamW; it decays to zero as half a cosine after the warm-up."""
    out: Path
    """Folder for checkpoints and the log."""
    warmup: Warmup = 200
    """Steps over which the learning rate rises from zero."""
    weight_decay: Share = 0.01
    """Decoupled weight decay of AdamW."""
    ema: Share = 0.999
    """Decay of the exponential moving average of the weights, which is the result."""
    seed: Seed = 0
    """Seed of the initial weights, the data and every random number."""
    checkpoint_every: Steps = 500
    """Steps between checkpoints; a killed run resumes from the last one."""
    log_every: Steps = 50
    """Steps between lines of `log.jsonl`."""
    workers: Annotated[int, Range(0, 64)] = 0
    """Processes that prepare batches (0: this process)."""
    bfloat16: bool = True
    """Compute matrix products in bfloat16 (weights stay float32)."""
    accumulate: Size = 1
    """Parts in which a batch is computed, to save memory; their gradients add up."""
    tensorboard: bool = False
    """Write the figures of the log for TensorBoard too, to the folder `tensorboard` of `out`."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""

    def check(self) -> None:
        """Raise ValueError, naming the flag, for a value out of range or a file that is missing."""
        flags.check(self)
        flags.files(self)

    def settings(self) -> dict[str, Any]:
        """The settings that change the weights, as JSON values: all fields by flag, except `FREE`.

        A file counts by its content, not by its name. Raises OSError if it can't be read.
        """
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in FREE:
                found[flags.named(self, field.name)] = (
                    _content(value) if isinstance(value, Path) else value
                )
        return found


def require_fit(training: Training, network: type[nn.Module], config: AnyConfig) -> None:
    """Raise ValueError, naming the flag, if a training's initial weights do not fit its network."""
    path = getattr(training, "initial", None)
    if path is None:
        return
    try:
        weights.read_tensors(path, weights.blank(network, config))
    except ValueError as error:
        raise ValueError(f"{flags.named(training, 'initial')}: {error}") from error


def require_plain(config: ModelConfig, path: object) -> None:
    """Raise FlagError, naming `--checkpoint`, for a distilled model: training would undo that."""
    if config.distilled:
        raise flags.FlagError(f"--checkpoint: wanted a model that is not distilled, got {path}")


def agree(where: Path, made: object, wanted: Mapping[str, Any], advice: str) -> None:
    """Raise ValueError if a file was made with other settings than those wanted now.

    Args:
        where: the file.
        made: the settings in the file; None if there are none.
        wanted: the settings of this run.
        advice: what else the user can do, for the message.

    The message names every setting that differs, with both values.
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


def agreed(path: Path, settings: Mapping[str, Any], advice: str) -> None:
    """Raise ValueError, as `agree`, if the metadata of a weights file have other settings."""
    words = weights.read_metadata(path).get("settings", "null")
    try:
        made = parse_json(words)
    except ValueError:
        made = None
    agree(path, made, settings, advice)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    """A setting for a message, shortened if it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
