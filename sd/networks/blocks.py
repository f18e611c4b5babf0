"""The convolutional blocks that the U-Net and the VAE are built from."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sd.networks.chunked import chunked_conv, chunked_norm, plus


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions, each after group norm and SiLU, around a residual.

    Where `time_width` is given, a projection of the time embedding is added between the two.
    Source: Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, eps: float, time_width: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = None if time_width is None else nn.Linear(time_width, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(
        self,
        x: Float[Tensor, "batch inputs height width"],
        time: Float[Tensor, "rows time_width"] | None = None,
    ) -> Float[Tensor, "batch outputs height width"]:
        """Map the feature map `x`, given the embedding of the time where the block has one: a row
        for each of the batch, or one for all."""
        y = chunked_conv(self.conv1, x, chunked_norm(self.norm1, x))
        if self.time_emb_proj is not None:
            y += self.time_emb_proj(F.silu(time))[:, :, None, None]
        y = chunked_conv(self.conv2, y, chunked_norm(self.norm2, y))
        return plus(y, nn.Identity() if self.conv_shortcut is None else self.conv_shortcut, x)


class Downsample(nn.Module):
    """Halve height and width by a strided 3 x 3 convolution.

    `symmetric` pads one pixel on every side (U-Net); otherwise bottom and right only (VAE).
    """

    def __init__(self, channels: int, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel half_height half_width"]:
        """Return the feature map at half the resolution."""
        return self.conv(x if self.symmetric else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Resize to the nearest neighbour (twice the size by default), then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channel height width"], size: torch.Size | None = None
    ) -> Float[Tensor, "batch channel new_height new_width"]:
        """Return the feature map at `size`, or at twice its own."""
        if size is None:
            return chunked_conv(self.conv, x, lambda x: x, twice=True)
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
