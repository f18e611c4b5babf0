"""Attention: over tokens (self and cross) in the U-Net, over pixels in the VAE."""

from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sd.networks.chunked import chunked_linear

Keys: TypeAlias = tuple[Float[Tensor, "batch head key part"], Float[Tensor, "batch head key part"]]
"""Keys and values."""


@final
class Conditioning:
    """The context of all cross-attentions, `(batch, token, context_width)`, with a cache.

    Keys and values depend on the prompt alone, so each layer computes them once per sampling; in
    each call where gradients are recorded, and again where its weights have changed.
    """

    def __init__(self, states: Float[Tensor, "batch token context_width"]) -> None:
        self.states = states
        self._made: dict[Attention, tuple[object, Keys]] = {}

    def of(self, layer: "Attention") -> Keys:
        """The layer's keys and values."""
        if torch.is_grad_enabled():
            return layer.keys(self.states)
        version, (known, keys) = _version(layer), self._made.get(layer, (None, None))
        if keys is None or known != version:
            keys = layer.keys(self.states)
            self._made[layer] = version, keys
        return keys


def _version(layer: "Attention") -> tuple[object, ...]:
    """Another one after each change of the weights that make keys and values."""
    if torch.compiler.is_compiling():
        return ()
    weights = (*layer.to_k.parameters(), *layer.to_v.parameters())
    return tuple(
        (id(one), one.data_ptr(), None if one.is_inference() else one._version) for one in weights
    )


class Attention(nn.Module):
    """Multi-head scaled dot-product attention: softmax(Q K^T / sqrt(d)) V, then a linear map.

    Queries come from `x`, keys and values from `context` (from `x` if there is none).
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """

    def __init__(self, width: int, context_width: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width, width, bias=bias)
        self.to_v = nn.Linear(context_width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(
        self,
        x: Float[Tensor, "batch query width"],
        context: Float[Tensor, "batch key context_width"] | Conditioning | None = None,
    ) -> Float[Tensor, "batch query width"]:
        """Mix the values of `context` into each query; shapes as annotated."""
        if isinstance(context, Conditioning):
            k, v = context.of(self)
        else:
            k, v = self.keys(x if context is None else context)
        mixed = F.scaled_dot_product_attention(self._by_head(self.to_q(x)), k, v)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def keys(self, context: Float[Tensor, "batch key context_width"]) -> Keys:
        """Keys and values of a context."""
        return self._by_head(self.to_k(context)), self._by_head(self.to_v(context))

    def _by_head(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Gated feed-forward layer: W2 (a * gelu(b)) with (a, b) = W1 x, four times as wide as x.

    Source: Shazeer 2020, arXiv:2002.05202 (GEGLU).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        gated = nn.ModuleDict({"proj": nn.Linear(width, 8 * width)})
        self.net = nn.ModuleList([gated, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply the layer to each token by itself."""
        return chunked_linear(self._few, x, 2 * self.net[2].in_features)

    def _few(self, x: Tensor) -> Tensor:
        value, gate = self.net[0]["proj"](x).chunk(2, dim=-1)
        return self.net[2](value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt, feed-forward; pre-norm, each with a residual.

    Source: Rombach et al. 2022, arXiv:2112.10752, appendix E.2.1.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(
        self,
        x: Float[Tensor, "batch pixel width"],
        context: Float[Tensor, "batch token context_width"] | Conditioning,
    ) -> Float[Tensor, "batch pixel width"]:
        """Let every pixel attend to all pixels, then to all tokens."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map, between two pointwise projections.

    The projections are 1 x 1 convolutions or, with `linear`, linear layers: they differ only in the
    shapes of their weights.
    """

    def __init__(
        self, channels: int, context_width: int, heads: int, groups: int, linear: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = (
            nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
            for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_width, heads)])

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        context: Float[Tensor, "batch token context_width"] | Conditioning,
    ) -> Float[Tensor, "batch channel height width"]:
        """Condition the feature map on the prompt; residual."""
        tokens = _pixelwise(self.proj_in, self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        tokens = _pixelwise(self.proj_out, tokens)
        return x + tokens.transpose(1, 2).reshape_as(x)


def _pixelwise(layer: nn.Linear | nn.Conv2d, tokens: Tensor) -> Tensor:
    """The layer on each token, whichever shape its weight has."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)


class PixelAttention(nn.Module):
    """Single-head self-attention over the pixels of a feature map, with a residual (VAE)."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Let every pixel attend to all pixels."""
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            self.to_q(tokens)[:, None], self.to_k(tokens)[:, None], self.to_v(tokens)[:, None]
        )
        return x + self.to_out[0](mixed[:, 0]).transpose(1, 2).reshape_as(x)
