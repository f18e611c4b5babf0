"""The training of a linear map, a thousand times as fast as a network's."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sd.train.trainer import Training

SETTINGS = Training(
    steps=40,
    batch_size=8,
    learning_rate=0.05,
    out=Path(),
    warmup=5,
    ema=0.9,
    checkpoint_every=10,
    log_every=10,
    bfloat16=False,
    cpu=True,
)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(SETTINGS.batch_size, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]])


def loss(
    module: nn.Module, examples: tuple[Tensor, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    x, y = examples
    jitter = 0.01 * torch.randn(x.shape, generator=generator)
    return {"loss": (module(x + jitter) - y).square().mean()}


def module() -> nn.Module:
    linear = nn.Linear(3, 1)
    with torch.no_grad():
        linear.weight.fill_(0.1)
        linear.bias.fill_(0.3)
    return linear
