"""A right diffusion as plain functions: a table of 30 indices, and what the assertions look at."""

from typing import Any

import torch
from torch import Tensor

ABAR = (1 - torch.linspace(1e-3, 0.2, 30, dtype=torch.float64)).cumprod(0)
BEFORE = torch.cat([torch.ones(1, dtype=torch.float64), ABAR[:-1]])
TIMES = range(30)


def levels(t: Any) -> tuple[Tensor, Tensor]:
    return ABAR[t].sqrt(), (1 - ABAR[t]).sqrt()


def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """In the dtype of x0."""
    alpha, sigma = levels(t[:, None])
    return (alpha * x0 + sigma * noise).to(x0.dtype)


def posterior(x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    abar, before = ABAR[t, None], BEFORE[t, None]
    beta = 1 - abar / before
    mean = before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x_t
    return mean / (1 - abar), beta * (1 - before) / (1 - abar)


def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The simple one."""
    return (noise - network(q_sample(x0, t, noise), t)).square().mean()
