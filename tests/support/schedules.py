"""Schedules of continuous time, and the measure of their coefficients' error."""

import mpmath
import torch
from mpmath import mpf

from diffusion_math.schedule import VE, Discrete, Schedule, VPCosine, VPLinear
from diffusion_math.testing import strategies
from diffusion_math.testing.strategies import FAMILIES

continuous = strategies.schedules(families=[one for one in FAMILIES if one != "discrete"])


def relative(got: torch.Tensor, exact: mpf) -> float:
    return float(abs(mpf(got.item()) / exact - 1)) if exact else abs(got.item())


def exact_alpha_sigma(schedule: Schedule, t: float) -> tuple[mpf, mpf]:
    """The definition, in 50 digits."""
    x = mpf(t)
    match schedule:
        case Discrete():
            abar = mpmath.fprod(1 - mpf(b) for b in schedule.betas[: int(t)].tolist())
            return mpmath.sqrt(abar), mpmath.sqrt(1 - abar)
        case VPLinear(low, high):
            log_alpha = -(x**2) * (mpf(high) - mpf(low)) / 4 - x * mpf(low) / 2
            return mpmath.exp(log_alpha), mpmath.sqrt(1 - mpmath.exp(2 * log_alpha))
        case VPCosine():
            return mpmath.cos(mpmath.pi * x / 2), mpmath.sin(mpmath.pi * x / 2)
        case VE():
            return mpf(1), x
        case _:
            return 1 - x, x
