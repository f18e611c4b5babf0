"""Drift and squared diffusion of the SDE that has given levels, by differences of the levels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_math.testing.mistakes.levels import LevelsOf

__all__ = ["Slopes", "slopes"]

DOUBLE = 1e-10
"""A rounding of levels below this is float64's."""


class Slopes(NamedTuple):
    """dx = f x dt + g dw at interior times, each float64 of shape (times,).

    f = d log(alpha) / dt, g^2 = d sigma^2 / dt - 2 f sigma^2, and d sigma^2 / dt; `eps` is the
    relative error of the differences.
    """

    times: tuple[float, ...]
    alpha: Tensor
    sigma: Tensor
    f: Tensor
    g2: Tensor
    sigma2: Tensor
    eps: float


def slopes(levels: LevelsOf, times: Sequence[float], rounding: float) -> Slopes:
    """Differences of the fourth order, at the times that are not too near the first or the last.

    The step is a thousandth of the range of times (three hundredths in float32), and at most a
    hundredth (a tenth) of the way to the nearer end, where levels may diverge.
    """
    share, near, eps = (1e-3, 1e-2, 1e-6) if rounding < DOUBLE else (3e-2, 1e-1, 2e-4)
    low, high = min(times), max(times)
    least = 0.0 if rounding < DOUBLE else 0.1 * (high - low)
    inner = [float(t) for t in times if min(t - low, high - t) > least]
    found = []
    for t in inner:
        h = min(share * (high - low), near * min(t - low, high - t))
        at = [levels(t + k * h) for k in (-2, -1, 0, 1, 2)]
        alpha, sigma = torch.tensor(
            [[float(c) for c in pair] for pair in at], dtype=torch.float64, device="cpu"
        ).T
        weights = torch.tensor([1.0, -8.0, 0.0, 8.0, -1.0], dtype=torch.float64, device="cpu") / (
            12 * h
        )
        f, sigma2 = (weights * alpha.log()).sum(), (weights * sigma.square()).sum()
        found.append(torch.stack([alpha[2], sigma[2], f, sigma2 - 2 * f * sigma[2] ** 2, sigma2]))
    columns = (
        torch.stack(found, 1) if found else torch.empty(5, 0, dtype=torch.float64, device="cpu")
    )
    alpha, sigma, f, g2, sigma2 = columns
    return Slopes(tuple(inner), alpha, sigma, f, g2, sigma2, eps)
