"""Networks that predict the noise in a digit, given its time and its label."""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from diffusion_math.denoiser import Network
from experiments.common.networks import linear
from sd.config import UNetConfig
from sd.networks.unet import UNet

PIXELS = 64
CLASSES = 10
NO_LABEL = CLASSES
"""The label that stands for none: what a dropped label becomes (C28)."""

GROUPS = 8
"""Groups of the U-Net's norms; its width is a multiple."""

FREQUENCIES = 16
"""The time enters as this many sines and cosines."""


@final
class DigitNetwork(nn.Module):
    """Residual layers over the 64 pixels, each conditioned on the time and the label.

        h <- h + W_2 silu(W_1 norm(h) + e),    e = a layer of silu(time + label)

    An argument each: x `(batch, 64)`; time `(batch,)`, indices 0..T-1 as `network_time` gives
    them; label `(batch,)`, 0..9 or `NO_LABEL`.
    """

    pixels = PIXELS

    def __init__(self, width: int, blocks: int, T: int, generator: torch.Generator) -> None:
        super().__init__()
        self.T = T
        self.enter = linear(PIXELS, width, generator)
        self.time = linear(2 * FREQUENCIES, width, generator)
        self.label = nn.Embedding.from_pretrained(
            torch.randn(CLASSES + 1, width, generator=generator) / 2, freeze=False
        )
        self.inner = nn.ModuleList(linear(width, width, generator) for _ in range(blocks))
        self.conditions = nn.ModuleList(linear(width, width, generator) for _ in range(blocks))
        self.outer = nn.ModuleList(linear(width, width, generator) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks + 1))
        self.leave = linear(width, PIXELS, generator)
        with torch.no_grad():
            for one in (*self.outer, self.leave):
                one.weight.mul_(0.1)  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """The predicted noise, like x."""
        # Periods from the table's length down to a few indices.
        rates = math.pi / self.T * torch.logspace(0, 2.5, FREQUENCIES)
        angles = time[:, None].float() * rates
        condition = self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.label(label)
        condition, h = silu(condition), self.enter(x.float())
        parts = zip(self.norms[:-1], self.inner, self.conditions, self.outer, strict=True)
        for norm, inner, conditions, outer in parts:
            h = h + outer(silu(inner(norm(h)) + conditions(condition)))
        out: Tensor = self.leave(self.norms[-1](h))
        return out.to(x)

    def given(self, label: Tensor) -> Network:
        """The network of one label a row: `(x_t, time) -> eps`, `label` `(batch,)`."""
        return lambda x, time: self(x, time, label)


@final
class DigitUNet(nn.Module):
    """The U-Net of `sd` on digits of `side` x `side` pixels, with the arguments of `DigitNetwork`.

    Two levels, `width` and twice as wide, without attention. The embedding of the label is added to
    that of the time; the null class of dropped labels is its last row.
    """

    def __init__(self, side: int, width: int, blocks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.side, self.pixels = side, side**2
        config = UNetConfig(
            in_channels=1,
            out_channels=1,
            channels=(width, 2 * width),
            layers_per_block=blocks,
            context_width=0,
            attention=(False, False),
            groups=GROUPS,
            num_class_embeds=CLASSES + 1,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.unet = UNet(config)

    @property
    def label(self) -> nn.Embedding:
        """The embedding of the labels."""
        return self.unet.class_embedding

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """The predicted noise, like x."""
        image = x.float().unflatten(1, (1, self.side, self.side))
        return self.unet(image, time, labels=label).flatten(1).to(x)

    def given(self, label: Tensor) -> Network:
        """The network of one label a row, as that of `DigitNetwork`."""
        return lambda x, time: self(x, time, label)
