"""Stable Diffusion v1.5 and v2.1 at full size, random, as diffusers and transformers write them."""

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sd.checkpoint import Loaded, load
from sd.config import ModelConfig
from tests.support import small_models
from tests.support.full_size import FULL, written
from tests.support.tensors import far, normal

diffusers = pytest.importorskip("diffusers")

pytestmark = [pytest.mark.slow, pytest.mark.full_size]
TOLERANCE = 1e-4  # a thousand roundings (6e-8) of float32 through a hundred layers


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
