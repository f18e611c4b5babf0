"""Evaluate a model on a folder of captioned images: losses, FID, KID, nearest training images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from experiments.common.model_options import Model
from sd.command_line.flags import File, Range, Seed, default, refuse, unused, validated
from sd.embedded import is_embedded


@dataclass(frozen=True)
class TrainedModel(Model):
    """Which model, and where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("engine", "low_memory", "dtype"):
            if getattr(self, name) != getattr(Model, name):
                refuse(self, name, "its default here")


@validated
class Config:
    """Evaluate a model on your own images: held-out loss by noise level, reconstruction, FID, KID.

    The folder and the share held out are those of the training (`train --data`). Features of FID
    and KID are means of the model's own VAE, so the figures compare only models with that VAE.
    """

    data: Annotated[Path | None, File(folder=True), default("captioned shapes")] = None
    """Folder of images with metadata.csv, metadata.jsonl or captions.txt."""
    held_out: Annotated[float, Range(0, 1)] = 0.1
    """Share of the images that was held out of the training."""
    count: Annotated[int, Range(4, 100_000)] = 200
    """Images to generate, and the most images of each kind to compare."""
    steps: Annotated[int, Range(1, 1000)] = 20
    """Sampling steps of DPM-Solver++(2M)."""
    guidance_scale: Annotated[float, Range(0, 100)] = 1.0
    """Guidance scale w; 1 samples what the model was trained on."""
    seed: Seed = 0
    """Seed of the first generated image; the next count up."""
    out: Path = Path("out/evaluate")
    """Folder for evaluate.md, evaluate.json and the figures."""
    model: Annotated[TrainedModel, arg(help="")] = field(default_factory=TrainedModel)

    def __post_init__(self) -> None:
        if self.data is None:
            unused(self, ["held_out"], "without --data")
            if not is_embedded(self.model.weights):
                refuse(self, "data", "the folder that the model was trained on")
