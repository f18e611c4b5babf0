"""Schedules by lot, and the measure of their coefficients' error."""

import torch
from hypothesis import assume
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear

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
