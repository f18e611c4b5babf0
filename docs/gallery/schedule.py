"""The discrete schedule on which the assertions run."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 20
TIMES = range(STEPS)
BETAS = torch.linspace(1e-3, 0.2, STEPS, dtype=torch.float64)
ABARS = torch.cumprod(1 - BETAS, 0)
PREVS = F.pad(ABARS[:-1], (1, 0), value=1.0)
VARIANCES = BETAS * (1 - PREVS) / (1 - ABARS)


def levels(t: Any) -> tuple[Tensor, Tensor]:
    return ABARS[t].sqrt(), (1 - ABARS[t]).sqrt()


def at(t: Tensor) -> dict[str, Tensor]:
    """Names of a schedule at a batch of times."""
    abar, beta, prev = (table[t][:, None] for table in (ABARS, BETAS, PREVS))
    return {
        "abar": abar,
        "beta": beta,
        "alpha": abar.sqrt(),
        "sigma": (1 - abar).sqrt(),
        "prev": prev,
    }
