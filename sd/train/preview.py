"""Previews of a training: images of fixed prompts and seeds, in a grid."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from sd import device as devices
from sd.config import ModelConfig
from sd.files import output_folder
from sd.networks.text_encoder import TextEncoder
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer

__all__ = ["SEEDS", "image_grid", "previews"]

SEEDS = (0, 1, 2, 3)
"""The seeds of the images of each prompt."""
STEPS = 20


def image_grid(rows: Sequence[Sequence[Image.Image]], gap: int = 2) -> Image.Image:
    """Images of one size in rows, on white."""
    width, height = rows[0][0].size
    columns = max(map(len, rows))
    size = columns * (width + gap) - gap, len(rows) * (height + gap) - gap
    grid = Image.new("RGB", size, "white")
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            grid.paste(image, (j * (width + gap), i * (height + gap)))
    return grid


def previews(
    folder: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    vae: VAE,
    prompts: Sequence[str],
) -> Callable[[nn.Module, int], None]:
    """What writes `preview-STEP.png` to the folder: a row for each prompt, a column for each seed.

    Args:
        config, tokenizer, text_encoder, vae: the parts of the model besides the U-Net.
        prompts: a row each.
    """

    def show(network: nn.Module, step: int) -> None:
        device = next(network.parameters()).device
        others = [devices.placed(one, device) for one in (text_encoder, vae)]
        training = network.training
        model = TextToImage(config, tokenizer, *others, network.eval(), device=device)
        with torch.no_grad():
            rows = [
                model([prompt] * len(SEEDS), seed=SEEDS, steps=STEPS, solver="dpmpp_2m",
                      progress=False)
                for prompt in prompts
            ]  # fmt: skip
        network.train(training)
        content = io.BytesIO()
        image_grid(rows).save(content, "PNG")
        output_folder.write_file(folder / f"preview-{step:06d}.png", content.getvalue())

    return show
