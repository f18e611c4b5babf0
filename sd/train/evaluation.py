"""Evaluation of trained networks on images and prompts outside the training data."""

from collections.abc import Sequence

import numpy as np
import torch

from sd.files import image_tensor
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.shapes.accuracy import evaluate_prompts, fresh_prompts
from sd.shapes.caption import describe
from sd.shapes.data import FRESH, example
from sd.shapes.reader import agrees, describe_image
from sd.train.vae import images, psnr

__all__ = ["accuracy", "reconstruction"]


@torch.no_grad()
def reconstruction(vae: VAE, count: int) -> dict[str, float | int]:
    """PSNR of reconstructions, and the share that the image reader describes rightly."""
    quality, right = [], []
    for first in range(0, count, 50):
        indices = range(first, min(first + 50, count))
        original = images(FRESH, indices)
        quality.append(psnr(vae, original))
        drawn = image_tensor.from_tensor(vae.decode(vae.encode(image_tensor.signed(original)).mean))
        for index, one in zip(indices, drawn, strict=True):
            whole = describe(example(FRESH, index).scene)
            right.append(agrees(describe_image(np.asarray(one)), whole))
    mean = float(torch.cat(quality).mean())
    return {"judged": count, "psnr_db": mean, "read_rightly": float(np.mean(right))}


def accuracy(model: TextToImage, count: int) -> dict[str, float | int]:
    """Share of prompts whose image shows all that they name, with and without guidance."""
    figures: dict[str, float | int] = {"judged": count}
    for pairs in ("seen", "held_out"):
        asked = fresh_prompts(0, count, held_out=pairs == "held_out")
        for name, guided in (("guided", True), ("unguided", False)):

            def generate(some: Sequence[str], seeds: Sequence[int], guided: bool = guided):
                drawn = model(some, seed=list(seeds), do_cfg=guided, progress=False)
                return [np.asarray(one) for one in drawn]

            figures[f"{pairs}_{name}"] = float(np.mean(evaluate_prompts(generate, asked)))
    return figures
