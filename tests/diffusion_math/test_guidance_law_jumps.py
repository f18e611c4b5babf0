"""Jumps of a guided field near each other, near clean data and near noise: pieces in order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import guidance_law
from diffusion_math.guidance_law import CLEAN, GAP

LEVELS = st.floats(0, 1e12) | st.sampled_from([0.0, 1e-5, 1.0000000001e-5, 1.0, 1e9, 1e10])


@st.composite
def jumps(draw):
    """Levels, some of them with a neighbour within a few gaps or a few roundings."""
    some = draw(st.lists(LEVELS, max_size=5))
    near = [r * (1 + draw(st.sampled_from([2**-52, 1e-12, 1e-10, 1e-9, 3e-9, 1e-8]))) for r in some]
    return [*some, *near[: draw(st.integers(0, len(near)))]]


@given(jumps())
def test_pieces_rise_and_leave_out_the_jumps_alone(levels):
    pieces = guidance_law._pieces(levels)
    ends = [end for piece in pieces for end in piece]
    assert ends == sorted(ends) and all(s < t for s, t in pieces)
    assert ends[0] >= CLEAN and ends[-1] <= 1
    cuts = [r / (1 + r) for r in levels]
    for cut in cuts:
        assert all(not s < cut < t for s, t in pieces)
    # What is left out is within two gaps of a jump.
    length = sum(t - s for s, t in pieces)
    assert length >= 1 - CLEAN - 2.01 * GAP * len(set(cuts))


@pytest.mark.parametrize("jump", [(1.0, 1.0 + 1e-9), (1e-5, 1.0), (1.00001e-5,), (1.0, 1e10)])
def test_jumps_near_others_change_nothing(jump):
    """N(0, 1/4) has no jump: its density, whatever is left out as one."""
    x = torch.tensor([[0.1], [0.7]], dtype=torch.float64)

    def denoise(x_t, t):
        return 0.25 * (1 - t) * x_t / (0.25 * (1 - t) ** 2 + t**2)

    exact = -2 * x[:, 0].square() - 0.5 * torch.log(torch.tensor(2 * torch.pi * 0.25).double())
    got = guidance_law.log_density(denoise, x, jump, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-6)
