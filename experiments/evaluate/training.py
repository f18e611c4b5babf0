"""What a model and its LoRAs were trained on by `train --data`, as their metadata say."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.common.model_options import weighed
from experiments.evaluate import Config, TrainedModel
from sd.checkpoint import formats
from sd.command_line.flags import FlagError, refuse
from sd.files.regular_file import parse_json
from sd.train.source import Own, Split
from sd.weights import read_metadata

__all__ = ["of_training", "trained_side"]


@dataclass(frozen=True)
class Training:
    """The images of a training: their folder, share held out, and mirroring; a LoRA's have a side.

    what: the model or the LoRA, for messages.
    """

    what: str
    split: Split
    side: int | None = None


def trained_side(config: Config, own: int) -> int:
    """Height and width of the images in the training of the LoRAs; else the model's own.

    Raises FlagError for LoRAs of different sizes.
    """
    sides = {one.side for one in _trainings(config.model) if one.side is not None}
    if len(sides) > 1:
        got = " and ".join(map(str, sorted(sides)))
        raise FlagError(f"--lora: wanted LoRAs trained at one size, got {got} pixels")
    return sides.pop() if sides else own


def of_training(config: Config, source: Own) -> Own:
    """The source, with mirrored images if the model or a LoRA has learned from those.

    Raises FlagError for another share held out than in a training; warns of another folder.
    """
    found = list(_trainings(config.model))
    for one in found:
        if one.split.folder != source.folder.fingerprint:
            said = f"--data: not the folder that {one.what} was trained on"
            warnings.warn(
                f"{said}: 'training' images are all of this one but the held-out ones", stacklevel=2
            )
        elif one.split.share != config.held_out:
            refuse(config, "held_out", f"{one.split.share:g}, that of the training of {one.what}")
    return replace(source, flip=any(one.split.flip for one in found))


def _trainings(model: TrainedModel) -> Iterator[Training]:
    """The trainings that are known; a file of another program says nothing of its own."""
    path = Path(model.weights) / "unet.safetensors"
    if path.is_file():
        split = Split.read(_settings(read_metadata(path)).get("data"))
        if split is not None:
            yield Training("the model", split)
    for path, _ in map(weighed, model.lora):
        with formats.opened(path) as source:
            settings = _settings(source.metadata)
        split = Split.read(settings.get("data"))
        if split is not None and "model" in settings:
            yield Training(f"the LoRA {path}", split, json.loads(settings["model"])["image_size"])


def _settings(words: Mapping[str, str]) -> Mapping[str, str]:
    """The settings in the metadata of a file of `train`."""
    try:
        found = parse_json(words.get("settings", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
