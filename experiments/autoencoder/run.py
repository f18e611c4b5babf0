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
    pipeline = pipeline or load(config.model)
    # 900,000 keeps clear of the examples that prompts are judged on.
    examples = [example(FRESH, 900_000 + i) for i in range(config.count)]
    sources = [Image.fromarray(one.image) for one in examples]
    rebuilt: list[Image.Image] = []
    for start in tqdm(range(0, config.count, BATCH), unit="batch", disable=None):
        with torch.no_grad():
            x = image_tensor.to_tensor(sources[start : start + BATCH])
            latents = pipeline.vae.encode(x.to(pipeline.device, pipeline.dtype)).mean
            rebuilt += pipeline.decode(latents)
    decibels = [_psnr(a, b) for a, b in zip(sources, rebuilt, strict=True)]
    right = [
        agrees(describe_image(np.asarray(image)), describe(one.scene))
        for image, one in zip(rebuilt, examples, strict=True)
    ]
    rows = (
        estimated(
            "autoencoder",
            f"PSNR of the VAE's reconstruction in dB, mean over {config.count} fresh images, at "
            f"least {LEAST_DB:g}",
            mean_of(decibels),
            least=LEAST_DB,
        ),
        estimated(
            "autoencoder-reader",
            f"Share of {config.count} reconstructions that the rule-based reader reads correctly, "
            f"at least {LEAST_READ:g}",
            share_of(right),
            least=LEAST_READ,
        ),
    )
    data: dict[str, Any] = {"settings": config, "psnr_db": decibels, "read_correctly": right}
    before, after = (np.array([*map(np.asarray, one[:8])], int) for one in (sources, rebuilt))
    enlarged = np.clip(5 * np.abs(before - after), 0, 255).astype(np.uint8)
    labels = ["input", "decoded", "difference × 5"]
    columns = [f"{one:.1f} dB" for one in decibels[:8]]
    images = image_rows([sources[:8], rebuilt[:8], [*enlarged]], labels, columns, side=1.25)
    figure = Figure(
        "autoencoder.png",
        plots.png(images),
        "Fresh images, their VAE reconstructions with PSNR, and the absolute difference times 5. "
        "The error lies on the edges.",
        "Three rows: images, their reconstructions, and the differences.",
    )
    return Result("autoencoder", "Reconstruction by the autoencoder", rows, (figure,), data)


def _psnr(a: Image.Image, b: Image.Image) -> float:
    """10 log10(255^2 / mean squared error) in dB, 100 for equal images."""
    return min(100.0, 20 * math.log10(255 / max(distance(a, b), 1e-9)))
