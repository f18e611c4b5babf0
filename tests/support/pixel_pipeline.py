"""A pipeline on pictures of 2 x 2 pixels: the VAE is the identity, the context is the tokens."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_math.schedule import Discrete
from diffusion_math.solvers.step import State
from sd.config import SHAPES_CONFIG, ModelConfig, UNetConfig, VAEConfig
from sd.networks.vae import Latent
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer

EVENT = (3, 2, 2)
SCHEDULE = Discrete.scaled_linear()


class Words(nn.Module):
    """The context is the tokens themselves."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[..., None].double()


class Identity(nn.Module):
    """A VAE that changes nothing."""

    def encode(self, x: Tensor) -> Latent:
        return Latent(x, torch.zeros_like(x))

    def decode(self, z: Tensor) -> Tensor:
        return z


class Nothing(nn.Module):
    """A network that costs and says nothing."""

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        assert bool((t >= 0).all()) and bool((t <= 999).all())
        return torch.zeros_like(x)


def model(
    unet: nn.Module, dtype: torch.dtype = torch.float64, inputs: int = 3, **options: Any
) -> TextToImage:
    """`inputs` is 7 for a network that reads a mask and the known pixels."""
    config = ModelConfig(
        text=SHAPES_CONFIG.text,
        vae=VAEConfig(latent_channels=3, channels=(4,), groups=4),
        unet=UNetConfig(inputs, 3, (4,), 1, 1, SHAPES_CONFIG.text.width, (True,), 4),
        image_size=2,
        **{"long_prompt": "refuse", **options},
    )
    parts = (Tokenizer.embedded(24), Words(), Identity(), unet)
    return TextToImage(config, *parts, torch.device("cpu"), dtype)


def sampled(pipeline: TextToImage, prompt: str | list[str], **options: object) -> list[State]:
    """All states of one call."""
    states: list[State] = []
    pipeline(prompt, watch=states.append, progress=False, **options)
    return states


def photo(seed: int, side: int = 2) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
