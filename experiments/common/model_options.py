"""The settings of the text-to-image model that all experiments on it share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from tyro.conf import arg

from sd.command_line.flags import File, FlagError, Several, Words, default, unused, validated
from sd.embedded import UNETS, Embedded, is_embedded
from sd.loading_options import LoadingOptions

PROMPT = "a large red circle left of a small blue square on a white background"
"""The default prompt; the embedded model knows its words."""

OPTIONS = tuple(field.name for field in fields(LoadingOptions))
"""Options of `TextToImage.load` besides the weights."""

KEPT = ("weights", "dtype", "engine", "calibration", *OPTIONS, "lora", "embedding")
"""The settings that identify a model."""

PATHS = ("weights", "tokenizer", "vae", "config", "embedding")
NAMED = (*PATHS, "lora")
"""Those that name files or models of the hub."""

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

STRONGEST = 100
"""The largest strength of a LoRA."""

BATCH = 16
"""Images sampled at once: more gains little on a CPU."""

NONE, OWN = default("none"), default("the model's")


@dataclass(frozen=True)
class Weights:
    """The name of a model."""

    weights: Annotated[Embedded | Path, arg(aliases=("--model",), metavar="NAME|PATH")] = "shapes"
    """`shapes`, `shapes-distilled`, or a checkpoint's file, folder or hub id."""


@validated
class Model(LoadingOptions, Weights):  # the fields of the last base come first
    """Which model, and where it runs."""

    lora: Annotated[tuple[str, ...], File(path=lambda text: weighed(text)[0]), NONE] = ()
    """LoRA files to merge: PATH or PATH:STRENGTH; PATH alone has strength 1."""
    embedding: Annotated[tuple[Path, ...], File(), Several(0), NONE] = ()
    """Textual-inversion files; each adds a word, named in or after the file."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto`: the fastest found."""
    dtype: Precision = "float32"
    """Precision of the networks; coefficients are float64."""
    engine: Literal["eager", "openvino", "openvino-int8", "compile"] = "eager"
    """Runs U-Net and decoder: PyTorch, OpenVINO (int8: 8 bits), or torch.compile."""
    calibration: Annotated[tuple[str, ...], Words(), Several(0), default("built in")] = ()
    """Prompts that calibrate the U-Net of openvino-int8."""
    low_memory: bool = False
    """One network in memory at a time: slower, same image."""

    def __post_init__(self) -> None:
        if is_embedded(self.weights):
            why = f"on the embedded model `{self.weights}`: name a checkpoint by --model"
            unused(self, OPTIONS, why)
        if self.engine != "openvino-int8":
            unused(self, ["calibration"], "without --engine openvino-int8")

    def kept(self) -> dict[str, Any]:
        """The settings that identify the model, as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in KEPT}

    def flags(self) -> list[str]:
        """The same as flags of the command line."""
        given: list[str] = []
        for name, value in self.kept().items():
            if value not in (None, False, []):
                values = value if isinstance(value, list) else [] if value is True else [value]
                given += [f"--{name}", *values]
        return given

    @classmethod
    def of(cls, kept: Mapping[str, Any], device: str) -> "Model":
        """The inverse of `kept`; what it does not name has its default.

        Raises ValueError where it names what is no setting of a model, or a value is not valid.
        """
        unknown = sorted(set(kept) - set(KEPT))
        if unknown:
            raise ValueError(f"model: wanted {', '.join(KEPT)}, got {', '.join(unknown)}")
        read = {
            name: _read(value, name in PATHS) for name, value in kept.items() if value is not None
        }
        return cls(**read, device=device)

    def named(self) -> dict[str, Any]:
        """What of `kept` would be read from a disk or the hub; nothing of the embedded model."""
        kept = self.kept()
        return {name: kept[name] for name in NAMED if kept[name] not in (None, *UNETS, [])}


def _read(value: Any, path: bool) -> Any:
    """A value of JSON: lists as tuples, text as a path; any other as it is, to be refused."""
    if isinstance(value, list | tuple):
        return tuple(_read(one, path) for one in value)
    return Path(value) if path and isinstance(value, str) and value not in UNETS else value


def weighed(text: str) -> tuple[Path, float]:
    """PATH or PATH:STRENGTH as both; FlagError for a strength that no merge makes sense of."""
    path, colon, after = text.rpartition(":")
    try:
        strength = float(after)
    except ValueError:
        return Path(text), 1.0
    if not colon or os.path.exists(text):
        return Path(text), 1.0
    if not abs(strength) <= STRONGEST:
        wanted = f"a strength from -{STRONGEST} to {STRONGEST}"
        raise FlagError(f"--lora: wanted {wanted} after the colon, got {text!r}")
    return Path(path), strength


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):  # a folder that is named as an embedded model is
        return f"./{value}" if str(value) in UNETS else str(value)
    return value
