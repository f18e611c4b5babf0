"""Reconstruction error of the VAE: PSNR, and the share that the rule-based reader reads rightly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress

from experiments.common.model_options import Model
from sd.command_line.flags import Range, unused, validated


@dataclass(frozen=True)
class AutoencoderModel(Model):
    """Which model, and where it runs."""

    prediction: Annotated[Literal["epsilon", "v_prediction", "sample"] | None, Suppress] = None
    ema: Annotated[bool, Suppress] = False
    lora: Annotated[tuple[str, ...], Suppress] = ()
    embedding: Annotated[tuple[Path, ...], Suppress] = ()


@validated
class Config:
    """Measure the reconstruction error of the VAE on fresh images of shapes.

    No diffusion takes part. The error is a lower limit for the text-to-image model: the U-Net
    cannot restore what the VAE loses.
    """

    count: Annotated[int, Range(8, 100_000)] = 200
    """Images that no training saw, at least 8."""
    out: Path = Path("out/autoencoder")
    """Folder for autoencoder.md, autoencoder.json and the figure."""
    model: AutoencoderModel = AutoencoderModel()

    def __post_init__(self) -> None:
        others = ["lora", "embedding", "prediction", "ema"]
        unused(self.model, others, "on `autoencoder`, which measures the VAE alone")
