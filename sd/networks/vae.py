"""The variational autoencoder: images to latents and back (Stable Diffusion's AutoencoderKL)."""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd.config import VAEConfig
from sd.networks.attention import PixelAttention
from sd.networks.blocks import Downsample, ResBlock, Upsample
from sd.networks.chunked import chunked_conv, chunked_norm


class Latent(NamedTuple):
    """The encoder's output q(z | x) = N(mean, variance), diagonal; both scaled for the U-Net."""

    mean: Float[Tensor, "batch channel height width"]
    variance: Float[Tensor, "batch channel height width"]


@runtime_checkable
class Autoencoder(Protocol):
    """What the pipeline needs of a VAE: images in [-1, 1] to latents, and back.

    `encode` takes images `(batch, 3, height, width)`; `decode` takes scaled latents
    `(batch, channel, height / factor, width / factor)`.
    """

    def encode(self, x: Tensor) -> Latent: ...

    def decode(self, z: Tensor) -> Tensor: ...


class MidBlock(nn.Module):
    """ResBlock, attention over pixels, ResBlock, at the lowest resolution."""

    def __init__(self, channels: int, config: VAEConfig) -> None:
        super().__init__()
        groups, eps = config.groups, config.eps
        self.attentions = nn.ModuleList([PixelAttention(channels, groups, eps)])
        self.resnets = nn.ModuleList(ResBlock(channels, channels, groups, eps) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map a feature map to one of the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Level(nn.Module):
    """ResBlocks at one resolution, then a change of resolution unless it is the last level."""

    def __init__(self, inputs: int, outputs: int, config: VAEConfig, up: bool, last: bool) -> None:
        super().__init__()
        count = config.layers_per_block + (1 if up else 0)
        self.resnets = nn.ModuleList(
            ResBlock(inputs if i == 0 else outputs, outputs, config.groups, config.eps)
            for i in range(count)
        )
        self.downsamplers = nn.ModuleList(
            [] if up or last else [Downsample(outputs, symmetric=False)]
        )
        self.upsamplers = nn.ModuleList([Upsample(outputs)] if up and not last else [])

    def __iter__(self) -> Iterator[nn.Module]:
        """Its layers in order, so that a caller holds one large feature map, not two."""
        return chain(self.resnets, self.downsamplers, self.upsamplers)


class Encoder(nn.Module):
    """Image to the moments (mean, log-variance) of its latent."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(widths[max(i - 1, 0)], width, config, up=False, last=i == len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], config)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=config.eps)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image to twice as many channels as the latent has."""
        x = self.conv_in(x)
        for layer in chain.from_iterable(self.down_blocks):
            x = layer(x)
        x = self.mid_block(x)
        return chunked_conv(self.conv_out, x, chunked_norm(self.conv_norm_out, x))


class Decoder(nn.Module):
    """Latent to image."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], config)
        self.up_blocks = nn.ModuleList(
            Level(widths[max(i - 1, 0)], width, config, up=True, last=i == len(widths) - 1)
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=config.eps)
        self.conv_out = nn.Conv2d(widths[-1], config.in_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map an unscaled latent to an image."""
        x = self.mid_block(self.conv_in(z))
        for layer in chain.from_iterable(self.up_blocks):
            x = layer(x)
        return chunked_conv(self.conv_out, x, chunked_norm(self.conv_norm_out, x))


class VAE(nn.Module):
    """q(z | x) and p(x | z) of a variational autoencoder with a spatial latent.

    Images are in [-1, 1]; latents are multiplied by `config.scaling_factor`, which gives them about
    unit variance, as the noise schedule of the U-Net assumes.
    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.1; Kingma & Welling, arXiv:1312.6114.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        moments = 2 * config.latent_channels
        self.quant_conv = nn.Conv2d(moments, moments, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def moments(
        self, x: Float[Tensor, "batch color height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        """Mean and log-variance (clamped to [-30, 20]) of the unscaled latent of `x`."""
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, x: Float[Tensor, "batch color height width"]) -> Latent:
        """The latent's distribution q(z | x), scaled; x in [-1, 1]."""
        mean, log_variance = self.moments(x)
        scale = self.config.scaling_factor
        return Latent(scale * mean, scale**2 * torch.exp(log_variance))

    def decode(
        self, z: Float[Tensor, "batch channel h w"]
    ) -> Float[Tensor, "batch color height width"]:
        """The image of the scaled latent `z`, about in [-1, 1] (not clamped)."""
        return self.decoder(self.post_quant_conv(z / self.config.scaling_factor))
