"""Schedules by lot, and the measure of their coefficients' error."""

import mpmath
import torch
from hypothesis import assume
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear

vp_linear = st.tuples(st.floats(1e-3, 20), st.floats(0, 100)).map(
    lambda p: VPLinear(p[0], p[0] + p[1])
)
continuous = st.one_of(
    vp_linear,
    st.just(VPCosine()),
    st.floats(0.01, 1e4).map(VE),
    st.just(RectifiedFlow()),
)


def discrete(values: torch.Tensor) -> Discrete:
    """A schedule of those betas; examples that float64 cannot tell apart are not legal ones."""
    try:
        return Discrete(values)
    except ValueError:
        assume(False)
        raise


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
