"""FLOP and stored activations of a U-Net: by formula, and counted without memory or time."""

from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sd.config import UNetConfig
from sd.networks.unet import UNet, skip_widths

BACKWARD = 2
"""A product y = W x has two in its backward pass, dx = W^T dy and dW = dy x^T, of the same size."""


def flop(config: UNetConfig, side: int, tokens: int) -> int:
    """Floating-point operations of one forward pass for one latent of side x side.

    Two for each multiplication with its addition; norms and activations are left out. With p
    pixels, n tokens, width w, context width d, time width 4 c, inputs i and outputs o:

        convolution k x k:   2 k^2 i o p
        ResBlock:            18 i o p + 18 o^2 p + 8 c o, and 2 i o p where i != o
        SpatialTransformer:  40 w^2 p + 4 w p^2 + 4 n w (d + p)

    Of the latter, projections in and out take 4 w^2 p, self-attention 8 w^2 p + 4 w p^2,
    cross-attention 4 w^2 p + 4 d w n + 4 w n p, and the gated feed-forward layer 24 w^2 p.
    """
    return sum(_parts(config, side, tokens))


def _parts(config: UNetConfig, side: int, tokens: int) -> Iterator[int]:
    widths, layers, c = config.channels, config.layers_per_block, config.channels[0]

    def block(i: int, o: int, p: int, attend: bool) -> int:
        found = 18 * i * o * p + 18 * o * o * p + 8 * c * o + (2 * i * o * p if i != o else 0)
        return found + (transformer(o, p) if attend else 0)

    def transformer(w: int, p: int) -> int:
        return 40 * w * w * p + 4 * w * p * p + 4 * tokens * w * (config.context_width + p)

    yield 2 * (c * 4 * c + 16 * c * c)
    yield 18 * config.in_channels * c * side**2
    sides, below = [side], c
    for i, width in enumerate(widths):
        for _ in range(layers):
            yield block(below, width, sides[-1] ** 2, config.attention[i])
            below = width
        if i < len(widths) - 1:
            sides.append(ceil(sides[-1] / 2))
            yield 18 * width * width * sides[-1] ** 2
    last = sides[-1] ** 2
    yield 2 * block(below, below, last, False) + transformer(below, last)
    across = skip_widths(config)
    for i in reversed(range(len(widths))):
        for _ in range(layers + 1):
            yield block(below + across.pop(), widths[i], sides[i] ** 2, config.attention[i])
            below = widths[i]
        if i > 0:
            yield 18 * below * below * sides[i - 1] ** 2
    yield 18 * c * config.out_channels * side**2


def weights(config: UNetConfig) -> dict[str, int]:
    """The number of weights: in all, and of the largest block that FSDP gathers."""
    from sd.train.fsdp import BLOCKS

    with torch.device("meta"):
        network = UNet(config)
    blocks = [_size(one) for one in network.modules() if isinstance(one, BLOCKS)]
    return {"all": _size(network), "largest": max(blocks), "rest": _size(network) - sum(blocks)}


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def counted(config: UNetConfig, side: int, tokens: int, backward: bool) -> int:
    """FLOP by torch's counter, for one latent on the meta device."""
    with torch.device("meta"):
        network = UNet(config)
    given = _inputs(config, side, tokens, 1, torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        loss = network(*given).square().mean()
        if backward:
            loss.backward()
    return int(counter.get_total_flops())


def saved(config: UNetConfig, side: int, tokens: int, batch: int, fake: bool = True) -> int:
    """Bytes that a forward pass in bfloat16 (autocast) keeps for the backward pass.

    Counted by storage, without the weights themselves; of fake tensors, which have none, or of real
    ones.
    """
    with FakeTensorMode() if fake else torch.device("cpu"):
        network = UNet(config)
        given = _inputs(config, side, tokens, batch, torch.device("cpu"))
        own = {weight.untyped_storage()._cdata for weight in network.parameters()}
        kept: dict[int, tuple[int, Tensor]] = {}  # the tensors live until all are counted

        def keep(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = (storage.nbytes(), x.detach())
            return x

        with (
            saved_tensors_hooks(keep, lambda x: x),
            torch.autocast("cpu", torch.bfloat16),
        ):
            loss = network(*given).float().square().mean()
        del loss
    return sum(size for size, _ in kept.values())


def _inputs(
    config: UNetConfig, side: int, tokens: int, batch: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(batch, config.in_channels, side, side, device=device),
        torch.zeros(batch, device=device),
        torch.zeros(batch, tokens, config.context_width, device=device),
    )
