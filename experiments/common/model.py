"""The text-to-image model of an experiment: loaded, sampled in batches, its images measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from tqdm import tqdm

from experiments.common.model_options import BATCH, Model, weighed
from sd import device, engine, loading
from sd.checkpoint import lora, textual_inversion
from sd.command_line.flags import files
from sd.command_line.terminal import say
from sd.pipeline import TextToImage
from sd.shapes import accuracy
from sd.shapes.caption import parse
from sd.text.prompt import literal


def load(model: Model) -> TextToImage:
    """The model on its device; ValueError or FileNotFoundError, one line, where it can't."""
    dtype = getattr(torch, model.dtype)
    engine.require_engine(model.engine, device.pick(model.device), dtype, model.low_memory)
    files(model)
    loras = [weighed(text) for text in model.lora]
    options = {"device": model.device, "dtype": dtype, "low_memory": model.low_memory}
    pipeline = TextToImage.load(model.weights, **options, **loading.arguments(model))
    if loras:
        lora.merge(pipeline, loras)
    for path in model.embedding:
        word = literal(textual_inversion.add_embedding(pipeline, path).name)
        say(f"--embedding: in prompts {path} is the word {word}", error=True)
    return engine.with_engine(pipeline, model.engine, model.calibration)


def require_plain(pipeline: TextToImage, why: str) -> None:
    """Raise ValueError for a distilled model, with the reason."""
    if pipeline.config.distilled:
        raise ValueError(f"--model: wanted a model that is not distilled: {why}")


def draw(
    pipeline: TextToImage,
    prompts: Sequence[str],
    seeds: Sequence[int],
    bar: "tqdm[Any] | None" = None,
    batch: int = BATCH,
    **call: Any,
) -> list[Image]:
    """One image for each prompt and seed, a batch at a time; `bar` counts images.

    An image does not depend on the batch it is sampled in beyond the rounding of the networks.
    """
    images: list[Image] = []
    for start in range(0, len(prompts), batch):
        some = list(prompts[start : start + batch])
        own = [int(seed) for seed in seeds[start : start + batch]]
        images += pipeline(some, seed=own, progress=False, **call)
        if bar is not None:
            bar.update(len(some))
    return images


def shows(image: Image, prompt: str) -> bool | None:
    """Whether the reader sees in the image what the prompt names; None where it can't say.

    It can't for a prompt outside the grammar of the embedded model.
    """
    if parse(prompt) is None:
        return None
    return accuracy.matches_prompt(np.asarray(image.convert("RGB")), prompt)


def distance(a: Image, b: Image) -> float:
    """Root mean square difference of two images' pixels, in levels of 0..255."""
    x, y = (np.asarray(one.convert("RGB"), dtype=np.float64) for one in (a, b))
    return float(np.sqrt(np.mean((x - y) ** 2)))
