"""Evaluation of trained networks on images and prompts outside the training data."""

from collections.abc import Sequence

import numpy as np
import torch

from sd import control_map
from sd.control import Control
from sd.files import image_tensor
from sd.networks.controlnet import ControlNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.shapes.accuracy import evaluate_prompts, fresh_prompts, matches_prompt
from sd.shapes.caption import describe
from sd.shapes.data import FRESH, described, example
from sd.shapes.placement import NEAR, placement_errors
from sd.shapes.reader import agrees, describe_image
from sd.shapes.semantic import class_map
from sd.train.source import images
from sd.train.vae import psnr

__all__ = ["accuracy", "controlled", "reconstruction"]


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
    """Share of prompts whose image shows all that they name, with and without guidance.

    A distilled model takes no guidance: it has one share.
    """
    figures: dict[str, float | int] = {"judged": count}
    ways = {"_guided": True, "_unguided": False}
    for pairs in ("seen", "held_out"):
        asked = fresh_prompts(0, count, held_out=pairs == "held_out")
        for name, guided in {"": False}.items() if model.config.distilled else ways.items():

            def generate(some: Sequence[str], seeds: Sequence[int], guided: bool = guided):
                drawn = model(some, seed=list(seeds), do_cfg=guided, progress=False)
                return [np.asarray(one) for one in drawn]

            figures[f"{pairs}{name}"] = float(np.mean(evaluate_prompts(generate, asked)))
    return figures


def controlled(model: TextToImage, network: ControlNet, count: int) -> dict[str, float | int]:
    """Share of things in their place in a map, and of prompts matched with and without the map.

    A place counts within `NEAR` pixels. Prompts and seeds are those of `accuracy`, of seen pairs.
    """
    near: list[bool] = []
    right: list[bool] = []
    for index in range(count):
        scene, prompt = described(FRESH, index)
        control = Control(network, control_map.of_scene(scene, model.config.image_size))
        (drawn,) = model(prompt, seed=index, controls=[control], progress=False)
        pixels = np.asarray(drawn)
        labels = class_map(scene, model.config.image_size)
        near += [error <= NEAR for error in placement_errors(pixels, labels)]
        right.append(matches_prompt(pixels, prompt))

    def generate(some: Sequence[str], seeds: Sequence[int]):
        drawn = model(some, seed=list(seeds), progress=False)
        return [np.asarray(one) for one in drawn]

    return {
        "judged": count,
        "in_place": float(np.mean(near)),
        "with_map": float(np.mean(right)),
        "without_map": float(np.mean(evaluate_prompts(generate, fresh_prompts(0, count)))),
    }
