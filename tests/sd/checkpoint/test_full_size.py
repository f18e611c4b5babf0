"""Stable Diffusion v1.5 and v2.1 at full size, random, as diffusers and transformers write them."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd.checkpoint import Loaded, load
from sd.config import V15, V21, ModelConfig
from tests.sd.checkpoint.test_save import far, normal
from tests.support import small_models

diffusers = pytest.importorskip("diffusers")

# One group: two of these models at a time do not fit into the memory of a small machine.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]
TOLERANCE = 1e-4  # a thousand roundings (6e-8) of float32 through a hundred layers
FULL = {"v1.5": V15, "v2.1": V21}


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


def answers(kind: str, model: nn.Module, config: ModelConfig) -> list[Tensor]:
    """What a peer's network computes."""
    if kind == "text_encoder":
        return [model(tokens(config)).last_hidden_state]
    if kind == "vae":
        factor = model.config.scaling_factor
        moments = model.encode(normal(1, 3, 128, 128)).latent_dist
        decoded = model.decode(normal(1, 4, 16, 16) / factor).sample
        return [factor * moments.mean, factor**2 * moments.var, decoded]
    return [model(*noisy(config)).sample]


def ours(kind: str, loaded: Loaded) -> list[Tensor]:
    if kind == "text_encoder":
        return [loaded.text_encoder(tokens(loaded.config))]
    if kind == "vae":
        latent = loaded.vae.encode(normal(1, 3, 128, 128))
        return [latent.mean, latent.variance, loaded.vae.decode(normal(1, 4, 16, 16))]
    return [loaded.unet(*noisy(loaded.config))]


def tokens(config: ModelConfig) -> Tensor:
    found = torch.full((1, config.text.context_length), config.text.end_token)
    found[0, :9] = torch.tensor([config.text.start_token, 320, 1125, 539, 550, 18376, 6765, 9, 7])
    return found


def noisy(config: ModelConfig) -> tuple[Tensor, Tensor, Tensor]:
    context = normal(1, 77, config.unet.context_width, seed=5)
    return normal(1, 4, 32, 32, seed=4), torch.tensor([601.0]), context


@pytest.mark.parametrize("name", FULL)
@torch.no_grad()
def test_the_peers_files_load_and_compute_what_the_peers_compute(name: str, tmp_path: Path) -> None:
    config = FULL[name]
    wanted = {}
    for kind in small_models.KINDS:
        with written(kind, config, tmp_path) as model:
            wanted[kind] = answers(kind, model, config)
            del model
        gc.collect()
    small_models.write_rest(tmp_path, config)
    loaded = load(tmp_path)
    assert loaded.config == config
    for kind, peers in wanted.items():
        for found, answer in zip(ours(kind, loaded), peers, strict=True):
            distance = far(found, answer)
            assert distance < TOLERANCE, (kind, distance)
    parameters = {
        kind: sum(p.numel() for p in getattr(loaded, kind).parameters())
        for kind in small_models.KINDS
    }
    assert parameters["unet"] == {"v1.5": 859_520_964, "v2.1": 865_910_724}[name]
    assert parameters["vae"] == 83_653_863
    assert parameters["text_encoder"] == {"v1.5": 123_060_480, "v2.1": 340_387_840}[name]
