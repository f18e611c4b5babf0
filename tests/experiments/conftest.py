"""A model of random weights with the embedded model's layout: tests of wiring need no training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sd import weights
from sd.config import SHAPES_CONFIG, TextConfig, UNetConfig, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.shapes.caption import VOCABULARY
from sd.text.tokenizer import word_level


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights that `--weights` takes."""
    folder = tmp_path_factory.mktemp("tiny")
    text = replace(SHAPES_CONFIG.text, width=16, layers=2, heads=2, intermediate=16)
    vae = VAEConfig(channels=(8, 8, 8, 8), layers_per_block=1, groups=4, scaling_factor=1.0)
    unet = UNetConfig(
        channels=(8, 8), layers_per_block=1, heads=2, context_width=16, attention=(True, True),
        groups=4,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: list[tuple[str, torch.nn.Module, TextConfig | VAEConfig | UNetConfig]] = [
            ("text_encoder", TextEncoder(text), text),
            ("vae", VAE(vae), vae),
            ("unet", UNet(unet), unet),
        ]
    for name, module, config in made:
        figures = {"figures": {"loss": 0.25}, "licence": "MIT"}
        weights.save_network(folder / f"{name}.safetensors", module, config, **figures)
    word_level(VOCABULARY).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def pipeline(tiny: Path) -> TextToImage:
    return TextToImage.load(tiny, device="cpu")
