"""Small networks on points of the plane, and the one loop that trains them."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffusion_math.schedule import Schedule

Loss = Callable[[torch.Generator], Tensor]
"""Draws a batch from the generator and gives the loss of its average, `()`."""

FREQUENCIES = 4
"""The log-SNR enters a network as itself and as this many sines and cosines."""


def mlp(inputs: int, width: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Three hidden layers of SiLU, each a `linear`."""
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, width, width, width, outputs]):
        layers += [linear(before, after, generator), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def linear(before: int, after: int, generator: torch.Generator) -> nn.Linear:
    """A layer whose weights are drawn from `generator` alone, uniform as torch's own."""
    layer = nn.Linear(before, after)
    with torch.no_grad():
        for parameter in layer.parameters():
            uniform = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2 * uniform - 1) / math.sqrt(before))
    return layer


def parameters(network: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(one.numel() for one in network.parameters())


class Timed(nn.Module):
    """A network of points and their time: `(x_t, t) -> (batch, D)`, in x_t's dtype.

    The time enters as log-SNR, which is what tells x_t's noise whatever the schedule. Unlike a
    network trained on a table's indices it is fed the schedule's own t.
    """

    def __init__(
        self, schedule: Schedule, width: int, generator: torch.Generator, size: int = 2
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.body = mlp(size + 1 + 2 * FREQUENCIES, width, size, generator)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The prediction at every point, each at its own time or all at one."""
        log_snr = self.schedule.log_snr(t).clamp(-20, 20).expand(len(x))[:, None] / 10
        angles = log_snr * math.pi * 2.0 ** torch.arange(FREQUENCIES)
        features = torch.cat([log_snr, angles.sin(), angles.cos()], dim=1).to(torch.float32)
        out: Tensor = self.body(torch.cat([x.to(torch.float32), features], dim=1))
        return out.to(x)


def fit(
    network: nn.Module,
    loss: Loss,
    generator: torch.Generator,
    steps: int,
    rate: float = 2e-3,
    average: float = 0.995,
) -> None:
    """Adam with a cosine-decaying rate; the network ends as the running average of its weights."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    # Early on the average is that of fewer steps.
    keep = [min(average, step / (step + 10)) for step in range(steps)]
    mean = AveragedModel(network, avg_fn=lambda mean, one, n: mean.lerp(one, 1 - keep[int(n)]))
    for _ in range(steps):
        optimizer.zero_grad()
        loss(generator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
        mean.update_parameters(network)
    network.load_state_dict(mean.module.state_dict())
