"""The U-Net: noise (or v, or x_0) from a latent, a time and a prompt (UNet2DConditionModel)."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion_math.checks import require
from sd.config import UNetConfig
from sd.networks.attention import Conditioning, SpatialTransformer
from sd.networks.blocks import Downsample, ResBlock, Upsample
from sd.networks.chunked import chunked_conv, chunked_norm


def time_features(
    t: Float[Tensor, " batch"], width: int, longest: float = 10_000.0
) -> Float[Tensor, "batch width"]:
    """Sinusoids of the network's time index: (cos(t f_i), sin(t f_i)), f_i = longest^(-2i/width).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; cosines first, as in Stable
    Diffusion.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * torch.exp(-math.log(longest) / half * steps)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


Context: TypeAlias = Tensor | Conditioning | None
"""The prompt `(batch, token, context_width)`, with or without a cache; None: no prompt is read."""


class TimeEmbedding(nn.Module):
    """Linear, SiLU, linear, on the sinusoids of the time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, features: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Embed the features of `time_features`."""
        return self.linear_2(F.silu(self.linear_1(features)))


class Level(nn.Module):
    """ResBlocks at one resolution, each followed by attention to the prompt where it attends."""

    def __init__(self, inputs: list[int], outputs: int, config: UNetConfig, attend: bool) -> None:
        super().__init__()
        time_width = 4 * config.channels[0]
        self.resnets = nn.ModuleList(
            ResBlock(width, outputs, config.groups, config.eps, time_width) for width in inputs
        )
        if attend:
            self.attentions = nn.ModuleList(transformer(outputs, config) for _ in inputs)
        self.attend = attend

    def layer(self, i: int, x: Tensor, time: Tensor, context: Context) -> Tensor:
        """ResBlock i and, where the level attends, transformer i."""
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context) if self.attend else x


class Down(Level):
    """A level of the downward half; every feature map is a skip connection to the upward half."""

    def __init__(
        self, inputs: int, outputs: int, config: UNetConfig, attend: bool, last: bool
    ) -> None:
        widths = [inputs] + [outputs] * (config.layers_per_block - 1)
        super().__init__(widths, outputs, config, attend)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(outputs, symmetric=True)])

    def forward(self, x: Tensor, time: Tensor, context: Context) -> list[Tensor]:
        """All feature maps of the level; the last one goes to the next level."""
        maps = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, context)
            maps.append(x)
        return maps + [resize(x) for resize in self.downsamplers]


class Up(Level):
    """A level of the upward half; each ResBlock also reads a skip connection."""

    def __init__(
        self,
        inputs: int,
        across: list[int],
        outputs: int,
        config: UNetConfig,
        attend: bool,
        last: bool,
    ) -> None:
        below = [inputs] + [outputs] * (len(across) - 1)
        widths = [a + b for a, b in zip(below, across, strict=True)]
        super().__init__(widths, outputs, config, attend)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(outputs)])

    def forward(self, x: Tensor, maps: list[Tensor], time: Tensor, context: Context) -> Tensor:
        """Pop the level's skip connections off `maps`, then resize to the next of them."""
        for i in range(len(self.resnets)):
            x = self.layer(i, torch.cat([x, maps.pop()], dim=1), time, context)
        for resize in self.upsamplers:
            x = resize(x, maps[-1].shape[-2:])
        return x


class Mid(Level):
    """ResBlock, attention to the prompt, ResBlock, at the lowest resolution.

    Of a U-Net that takes no prompt, one ResBlock (`UNetMidBlock2D` in diffusers).
    """

    def __init__(self, width: int, config: UNetConfig) -> None:
        blocks = 2 if config.context_width else 1
        super().__init__([width] * blocks, width, config, attend=False)
        if config.context_width:
            self.attentions = nn.ModuleList([transformer(width, config)])

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        """Map a feature map to one of the same shape."""
        x = self.resnets[0](x, time)
        if len(self.resnets) == 1:
            return x
        return self.resnets[1](self.attentions[0](x, context), time)


def transformer(width: int, config: UNetConfig) -> SpatialTransformer:
    """The attention of a level of this width."""
    heads = config.heads_at(width)
    return SpatialTransformer(
        width, config.context_width, heads, config.groups, config.linear_projection
    )


def valid_labels(labels: Tensor | None, classes: int, x: Tensor) -> Tensor | None:
    """The labels `(rows,)`, of a network with so many classes. Raises ValueError unless they fit.

    With no classes there must be no labels; else integers in 0..classes - 1, one for all or one for
    each of the batch x.
    """
    if classes == 0:
        require(labels is None, "labels", "none: the U-Net has no class embedding", "labels")
        return None
    batch = len(x)  # no tracer comes here, which would warn of a number that it keeps
    wanted = f"one integer, or one for each of {batch}: the U-Net is class-conditional"
    given = type(labels).__name__
    if isinstance(labels, Tensor):
        given = f"{labels.dtype} of shape {tuple(labels.shape)}"
        integer = not labels.is_floating_point() and labels.dtype is not torch.bool
        if integer and labels.shape in ((), (batch,)):
            low, high = (int(labels.min()), int(labels.max())) if batch else (0, 0)
            valid = low >= 0 and high < classes
            require(valid, "labels", f"integers in 0..{classes - 1}", f"{low}..{high}")
            return labels.reshape(-1)
    raise ValueError(f"labels: wanted {wanted}, got {given}")


class Encoder(nn.Module):
    """The downward half and the middle block, which a ControlNet copies."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, top = config.channels, len(config.channels) - 1
        self.time_embedding = TimeEmbedding(widths[0], 4 * widths[0])
        if config.num_class_embeds:
            self.class_embedding = nn.Embedding(config.num_class_embeds, 4 * widths[0])
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        below = widths[0]
        self.down_blocks = nn.ModuleList()
        for i, (width, attend) in enumerate(zip(widths, config.attention, strict=True)):
            self.down_blocks.append(Down(below, width, config, attend, last=i == top))
            below = width
        self.mid_block = Mid(below, config)

    def time(
        self,
        x: Float[Tensor, "batch channel height width"],
        t: Float[Tensor, "*rows"],
        labels: Int[Tensor, "*some"] | None = None,
    ) -> Float[Tensor, "any time_width"]:
        """The embedding of the network times `t`, plus that of the labels; in the dtype of `x`."""
        known = valid_labels(labels, self.config.num_class_embeds, x)
        features = time_features(t.to(x.device).reshape(-1), self.config.channels[0])
        time = self.time_embedding(features.to(x.dtype))
        return time if known is None else time + self.class_embedding(known.to(x.device))

    def encode(self, x: Tensor, time: Tensor, context: Context) -> list[Tensor]:
        """The skip connections, and after them the output of the middle block.

        Args:
            x: `(batch, own_width, height, width)`, what follows `conv_in`.
            time: the embedded times.
            context: the prompt; None for a U-Net that takes none.

        Raises ValueError if the U-Net takes a prompt and there is none, or the other way round.
        """
        width = self.config.context_width
        wanted = f"a context {width} wide" if width else "none: the U-Net takes no prompt"
        found = "none" if context is None else "a context"
        require((context is not None) == (width > 0), "context", wanted, found)
        maps = [x]
        for level in self.down_blocks:
            maps += level(maps[-1], time, context)
        return [*maps, self.mid_block(maps[-1], time, context)]


def skip_widths(config: UNetConfig) -> list[int]:
    """The width of each skip connection, from the first."""
    widths, layers = config.channels, config.layers_per_block
    levels = [[width] * (layers + (i < len(widths) - 1)) for i, width in enumerate(widths)]
    return [widths[0], *chain.from_iterable(levels)]


class UNet(Encoder):
    """eps_theta(x_t, t, context, label): the noise in x_t, for a network time index t in 0..T-1.

    The embedding of the label is added to that of the time. The label of a dropped condition is one
    more index, the null class (Ho & Salimans 2022, arXiv:2207.12598, section 3.2).

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.3; for the label Nichol & Dhariwal
    2021, arXiv:2102.09672, section 4.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        widths, across = config.channels, skip_widths(config)
        below = widths[-1]
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(widths))):
            taken = [across.pop() for _ in range(config.layers_per_block + 1)]
            level = Up(below, taken, widths[i], config, config.attention[i], last=i == 0)
            self.up_blocks.append(level)
            below = widths[i]
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0], eps=config.eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        t: Float[Tensor, " batch"] | Float[Tensor, ""],
        context: Float[Tensor, "batch token context_width"] | Conditioning | None = None,
        residuals: Sequence[Tensor] | None = None,
        labels: Int[Tensor, "*rows"] | None = None,
    ) -> Float[Tensor, "batch out_channel height width"]:
        """The noise in `x` at network time `t` (one for all, or one each), given the prompt.

        Of an inpainting model, `x` has further channels after those of the latent, whose noise it
        is.

        A time for all is embedded once. A `Conditioning` caches keys and values of the prompt.
        `residuals`, as of a ControlNet, are added to the skip connections and, the last of them, to
        the output of the middle block. `labels` are one for all of the batch, `()`, or one each.

        Raises ValueError for a prompt or labels that the configuration does not have, for missing
        ones, and for labels outside 0..num_class_embeds - 1.
        """
        time = self.time(x, t, labels)
        maps = self.encode(self.conv_in(x), time, context)
        if residuals is not None:
            maps = [one + more for one, more in zip(maps, residuals, strict=True)]
        x = maps.pop()
        for level in self.up_blocks:
            x = level(x, maps, time, context)
        return chunked_conv(self.conv_out, x, chunked_norm(self.conv_norm_out, x))
