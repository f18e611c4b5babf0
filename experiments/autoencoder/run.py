"""Runs the experiment: encodes and decodes fresh images, measures the error in decibels."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from experiments import plots
from experiments.autoencoder import Config
from experiments.common.model import distance, load
from experiments.common.model_options import BATCH
from experiments.common.statistics import mean_of, share_of
from experiments.output.result import Figure, Result, estimated
from experiments.plots.gallery import image_rows
from sd.files import image_tensor
from sd.pipeline import TextToImage
from sd.shapes.caption import describe
from sd.shapes.data import FRESH, example
from sd.shapes.reader import agrees, describe_image

LEAST_DB = 38.0
LEAST_READ = 0.99


def run(config: Config, pipeline: TextToImage | None = None) -> Result:
    """Reconstruct, measure, read."""
    pipeline = pipeline or load(config.model)
    # 900,000 keeps clear of the examples that prompts are judged on.
    examples = [example(FRESH, 900_000 + i) for i in range(config.count)]
    sources = [Image.fromarray(one.image) for one in examples]
    rebuilt: list[Image.Image] = []
    for start in tqdm(range(0, config.count, BATCH), unit="batch", disable=None):
        rebuilt += _rebuilt(pipeline, sources[start : start + BATCH])
    decibels = [_psnr(a, b) for a, b in zip(sources, rebuilt, strict=True)]
    right = [
        agrees(describe_image(np.asarray(picture)), describe(one.scene))
        for picture, one in zip(rebuilt, examples, strict=True)
    ]
    rows = (
        estimated(
            "autoencoder",
            f"The VAE gives {config.count} fresh pictures back at {LEAST_DB:g} dB PSNR or more, "
            "mean over the pictures",
            mean_of(decibels),
            least=LEAST_DB,
        ),
        estimated(
            "autoencoder-reader",
            f"Share of {config.count} reconstructions that the reader reads rightly, at least "
            f"{LEAST_READ:g}",
            share_of(right),
            least=LEAST_READ,
        ),
    )
    data: dict[str, Any] = {"settings": config, "psnr_db": decibels, "read_rightly": right}
    figure = _figure(sources[:8], rebuilt[:8], decibels[:8])
    return Result("autoencoder", "The autoencoder alone", rows, (figure,), data)


def _rebuilt(pipeline: TextToImage, sources: list[Image.Image]) -> list[Image.Image]:
    """Pictures decoded from the mean latents of others."""
    with torch.no_grad():
        x = image_tensor.to_tensor(sources).to(pipeline.device, pipeline.dtype)
        return pipeline.decode(pipeline.vae.encode(x).mean)


def _psnr(a: Image.Image, b: Image.Image) -> float:
    """10 log10(255^2 / mean squared error) in dB, 100 for equal pictures."""
    return min(100.0, 20 * math.log10(255 / max(distance(a, b), 1e-9)))


def _figure(
    sources: list[Image.Image], rebuilt: list[Image.Image], decibels: list[float]
) -> Figure:
    pairs = zip(sources, rebuilt, strict=True)
    apart = [np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)) for a, b in pairs]
    louder = [np.clip(5 * one, 0, 255).astype(np.uint8) for one in apart]
    labels = ["input", "decoded", "difference × 5"]
    columns = [f"{one:.1f} dB" for one in decibels]
    drawn = image_rows([sources, rebuilt, louder], labels, columns, side=1.25)
    return Figure(
        "autoencoder.png",
        plots.png(drawn),
        "Fresh pictures, what the VAE makes of them, and the difference five times enlarged: what "
        "is left lies on the edges.",
        "Three rows: pictures, their reconstructions, and the differences.",
    )
