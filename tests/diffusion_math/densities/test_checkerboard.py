"""The checkerboard: its differences of Phi to the last digit, its squares, and its limits."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.densities.checkerboard import Checkerboard, _over_interval
from diffusion_math.schedule import VE, RectifiedFlow, VPCosine, VPLinear
from tests.support.chance import rare, spend
from tests.support.mixtures import seeded


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


@given(
    c=st.floats(-30, 30) | st.floats(-1e9, 1e9) | st.sampled_from([0.0, 8.5, 1e9]),
    h=st.one_of(st.just(0.0), st.floats(1e-12, 0.1), st.floats(0.1, 50), st.floats(50, 1e3))
    | st.sampled_from([1.0, 1 + 2**-52, 1e3]),
)
def test_the_mean_of_a_normal_over_an_interval(c, h):
    """log of (Phi(c + h/2) - Phi(c - h/2)) / h, and k = (c + its slope in c) / h, in 80 digits.

    Rounding alone, in units of c^2 / 2 in the logarithm: wherever the interval lies, however short.
    """
    log_mean, k = _over_interval(scalar(c), scalar(h))
    with mpmath.workdps(80):
        exact, exact_k = exactly(c, h)
    assert log_mean.item() == pytest.approx(float(exact), rel=1e-13, abs=1e-13)
    assert k.item() == pytest.approx(float(exact_k), abs=1e-12)


def exactly(c, h):
    """The same two numbers, at mpmath's precision."""
    exact, exact_k = mpmath.log(mpmath.npdf(c)), mpf(0)
    if h > 0:
        low, high = -abs(mpf(c)) - mpf(h) / 2, -abs(mpf(c)) + mpf(h) / 2
        mass = (mpmath.erfc(-high / mpmath.sqrt(2)) - mpmath.erfc(-low / mpmath.sqrt(2))) / 2
        slope = math.copysign(1, c) * (mpmath.npdf(low) - mpmath.npdf(high)) / mass
        exact, exact_k = mpmath.log(mass / mpf(h)), (mpf(c) + slope) / mpf(h)
    return exact, exact_k


@pytest.mark.parametrize("near", [8.0, 8.3, 8.6, 8.99])
@pytest.mark.parametrize("h", [1.5, 2.0, 5.0, 20.0, 50.0])
def test_from_eight_deviations_on_the_offset_is_exact(near, h):
    """Summed from the edge it is known to 8 roundings of 1/2; by tails it would be to a hundred."""
    holds_to_the_last_digits(near + h / 2, h)


@pytest.mark.parametrize("c", [0.1, 0.3, 0.5, 0.8, 1.0, 2.0, 3.0, 5.0, -8.0])
def test_up_to_one_deviation_of_length_the_offset_is_exact(c):
    holds_to_the_last_digits(c, 1.0)


def holds_to_the_last_digits(c, h):
    log_mean, k = _over_interval(scalar(c), scalar(h))
    with mpmath.workdps(80):
        exact, exact_k = exactly(c, h)
    assert log_mean.item() == pytest.approx(float(exact), rel=4e-15)
    assert k.item() == pytest.approx(float(exact_k), abs=8 * 2**-53)


@pytest.mark.parametrize(("c", "h"), [(12.0, 1.0), (-20.0, 3.0), (0.5, 1e-13)])
def test_the_difference_as_printed_has_no_digits_left_there(c, h):
    """Why the logarithms and the quadrature: Phi(high) - Phi(low) is 0, or all rounding."""
    plain = (torch.special.ndtr(scalar(c + h / 2)) - torch.special.ndtr(scalar(c - h / 2))) / h
    log_mean, _ = _over_interval(scalar(c), scalar(h))
    assert log_mean.isfinite()
    assert not torch.isclose(plain.log(), log_mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("h", [0.5, 1.0, 2.0, 10.0])
def test_the_slopes_at_the_exact_centre_of_an_interval(h):
    """Where an absolute value has none: k' = (1 - var) / h of a truncated normal, by differences.

    (log mean)'' = h k' - 1, and the score's slope at a square's centre is made of it.
    """
    c, step = scalar(0.0).requires_grad_(), 1e-5
    log_mean, k = _over_interval(c, scalar(h))
    ends = [_over_interval(scalar(c), scalar(h))[1] for c in (-step, step)]
    wanted = (ends[1] - ends[0]) / (2 * step)
    (slope,) = torch.autograd.grad(log_mean, c, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, c, retain_graph=True)
    (k_slope,) = torch.autograd.grad(k, c)
    torch.testing.assert_close(k_slope, wanted, rtol=1e-7, atol=0)
    torch.testing.assert_close(curvature, h * wanted - 1, rtol=1e-6, atol=0)


def test_full_and_empty_squares():
    """Inside a full square the density is 1 / area, inside an empty one or outside next to none;
    on an edge it is half, on a corner half again from both colours.
    """
    board, schedule = Checkerboard(squares=4, width=1.0, std=0.02), VPLinear()
    i, j = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
    x = torch.stack([i, j], dim=1).double() - 1.5
    q = board.log_density(schedule, x, 0).exp()
    wanted = torch.where((i + j) % 2 == 0, 1 / 8, 0.0).double()
    torch.testing.assert_close(q, wanted, rtol=0, atol=1e-12)
    beyond = torch.tensor([[2.5, 0.5], [-2.5, -2.5]], dtype=torch.float64)
    assert (board.log_density(schedule, beyond, 0) < -200).all()
    edges = torch.tensor([[0.5, 1.0], [0.0, 0.0], [2.0, 1.5]], dtype=torch.float64)
    q = board.log_density(schedule, edges, 0).exp()
    torch.testing.assert_close(q, torch.full_like(q, 1 / 16), rtol=0, atol=1e-12)
    assert board.score(schedule, edges[2:], 0)[0, 0] < -10  # down, out of the board


@pytest.mark.chance(2e-9, "one draw in fifty on an empty square")
def test_the_colours_of_a_large_board():
    """A draw lies on a full square but for the softening: 3000 draws, none eight std outside.

    A draw lies so far inside with probability (1 - 0.16 / 0.5)^2 = 0.46.
    """
    board = Checkerboard(squares=8, width=0.5, std=0.01)
    x = board.sample(seeded(0), 3000)
    column, row = ((x / 0.5 + 4).floor().long()).T
    away = (x / 0.5 - (x / 0.5).round()).abs().amin(1) * 0.5
    inside, share = away > 0.08, 0.68**2
    spend(3000 * 4 * torch.special.ndtr(scalar(-8.0)).item())  # over any of four edges
    share *= 0.99  # of which the softening moves a little across the border
    spend(32 * (1 - share / 32) ** 3000)  # a square without a draw
    assert rare((1 - share / 50) ** 3000)
    assert ((column + row)[inside] % 2 == 0).all()
    assert len((8 * column + row)[inside].unique()) == 32


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VPCosine()], ids=["flow", "cosine"])
def test_pure_noise_is_the_limit(schedule):
    """alpha_T = 0: q_T = N(0, I), score -x, and the denoiser is the mean 0; continuous up to it."""
    board, T = Checkerboard(), schedule.T
    x = torch.randn(20, 2, generator=seeded(0), dtype=torch.float64)
    wanted = -x.square().sum(1) / 2 - math.log(2 * math.pi)
    torch.testing.assert_close(board.log_density(schedule, x, T), wanted, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(board.score(schedule, x, T), -x, rtol=1e-14, atol=1e-14)
    assert board.posterior_mean(schedule, x, T).abs().max() < 1e-14
    near = T * (1 - 1e-9)
    torch.testing.assert_close(board.score(schedule, x, near), -x, rtol=1e-7, atol=1e-7)


def test_far_away_and_under_much_noise():
    """No overflow, no 0 / 0: at 1e4 from the board, at sigma = 80, and at the least noise."""
    board, schedule = Checkerboard(), VE()
    x = torch.tensor([[1e4, -1e4], [0.5, 0.5], [40.0, 0.0]], dtype=torch.float64)
    for t in (0.0, 0.002, 80.0):
        score, mean = board.score(schedule, x, t), board.posterior_mean(schedule, x, t)
        assert board.log_density(schedule, x, t).isfinite().all()
        assert score.isfinite().all()
        if t > 0:  # drawn to the corner, no further out than that and the softening
            assert (mean.abs()[:, 0] < 2.1 + 0.05**2 * x[:, 0] / t**2).all()
    torch.testing.assert_close(board.score(schedule, x, 80.0), -x / 6400, rtol=0, atol=2.0 / 6400)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Checkerboard(squares=3), "squares"),
        (lambda: Checkerboard(squares=0), "squares"),
        (lambda: Checkerboard(width=0.0), "width"),
        (lambda: Checkerboard(std=0.0), "std"),
        (lambda: Checkerboard(std=math.inf), "std"),
        (lambda: Checkerboard().score(VPLinear(), torch.zeros(3, 3), 0), "x"),
    ],
)
def test_bad_arguments(make, argument, unchecked):
    """Each names its argument."""
    with pytest.raises(ValueError, match=f"^{argument}: wanted"):
        make()
