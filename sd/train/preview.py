"""Previews of a training: images of fixed prompts and seeds, in a grid."""

import io
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import nn

from sd import device as devices
from sd.command_line.flags import FlagError
from sd.config import LongPrompt, ModelConfig
from sd.files import output_folder
from sd.networks.text_encoder import TextEncoder
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.conditioning import rows
from sd.text.prompt import literal, paired
from sd.text.tokenizer import Tokenizer
from sd.train.vocabulary import captions_told

__all__ = ["SEEDS", "Prompts", "image_grid", "of_captions", "of_flag", "previews"]

SEEDS = (0, 1, 2, 3)
"""The seeds of the images of each prompt."""
STEPS = 20


@dataclass(frozen=True)
class Prompts:
    """The prompts of previews, and whether they are captions, which are cut as in the training."""

    texts: tuple[str, ...]
    captions: bool


def of_captions(captions: Sequence[str]) -> Prompts:
    """Captions as the training encodes them: no mark acts."""
    return Prompts(tuple(map(literal, captions)), True)


def of_flag(given: Sequence[str], tokenizer: Tokenizer, config: ModelConfig) -> Prompts:
    """The prompts of `--prompts`, as `generate` reads them.

    Raises FlagError for one that the model does not read.
    """
    for text in given:
        try:
            paired(text, 0)
            rows(tokenizer, text, cast(LongPrompt, config.long_prompt))
        except ValueError as error:
            raise FlagError(f"--prompts: {str(error).removeprefix('prompt: ')}") from error
    return Prompts(tuple(given), False)


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
    prompts: Prompts,
) -> Callable[[nn.Module, int], None]:
    """What writes `preview-STEP.png` to the folder: a row for each prompt, a column for each seed.

    Args:
        config, tokenizer, text_encoder, vae: the parts of the model besides the U-Net.
        prompts: the rows.
    """

    def show(network: nn.Module, step: int) -> None:
        device = next(network.parameters()).device
        others = [devices.placed(one, device) for one in (text_encoder, vae)]
        training = network.training
        model = TextToImage(config, tokenizer, *others, network.eval(), device=device)
        long_prompt = "truncate" if prompts.captions else None
        with torch.no_grad(), captions_told() if prompts.captions else nullcontext():
            images = [
                model([prompt] * len(SEEDS), seed=SEEDS, steps=STEPS, solver="dpmpp_2m",
                      long_prompt=long_prompt, progress=False)
                for prompt in prompts.texts
            ]  # fmt: skip
        network.train(training)
        content = io.BytesIO()
        image_grid(images).save(content, "PNG")
        output_folder.write_file(folder / f"preview-{step:06d}.png", content.getvalue())

    return show
