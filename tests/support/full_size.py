"""Stable Diffusion v1.5 and v2.1 at full size, random, as diffusers and transformers write them."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sd.config import V15, V21, ModelConfig
from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level
from tests.support import small_models
from tests.support.tensors import normal

FULL = {"v1.5": V15, "v2.1": V21}
V15_INPAINTING = replace(V15, unet=replace(V15.unet, in_channels=9))


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Weights out of one pool of normal numbers, each tensor's from a place of its own."""
    pool = normal(2**22, seed=seed)
    start = 0
    for name, weight in model.named_parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 25
        flat, at = weight.view(-1), 0
        while at < len(flat):
            piece = flat[at : at + len(pool) - start]
            piece.copy_(pool[start : start + len(piece)])
            at, start = at + len(piece), (start + len(piece) + 12_345) % len(pool)
        weight.div_(fan**0.5)
        if "norm" in name and name.endswith("weight"):
            weight.add_(1.0)


def large(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A peer's network without the time its own start would take; it must have no buffers."""
    with torch.device("meta"):
        model = build()
    assert not list(model.buffers())
    model = model.to_empty(device="cpu").eval()
    fill(model, seed)
    return model


@contextmanager
def written(kind: str, config: ModelConfig, folder: Path) -> Iterator[nn.Module]:
    """A peer's network, saved in its folder."""
    if kind == "text_encoder":
        model = small_models.peer_text(config.text)
        fill(model, 1)
    elif kind == "vae":
        model = large(lambda: small_models.peer_vae(config.vae), 2)
    else:
        model = large(lambda: small_models.peer_unet(config.unet), 3)
        size = config.image_size // config.vae.factor
        model.register_to_config(sample_size=size)
    model.save_pretrained(folder / kind)
    yield model
    del model
    gc.collect()


def whole(config: ModelConfig, folder: Path) -> tuple[dict[str, nn.Module], TextToImage]:
    """The peer's networks, and our pipeline of the folder that they are saved in."""
    networks = {}
    for kind in small_models.KINDS:
        with written(kind, config, folder) as model:
            networks[kind] = model
    small_models.write_rest(folder, config)
    (folder / "tokenizer").mkdir()
    words = word_level([f"word{i}" for i in range(config.text.vocab_size - 3)])
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    return networks, TextToImage.load(folder, device="cpu")
