"""More ends: widths, single examples, empty batches, the largest legal numbers."""

from types import SimpleNamespace

import mpmath
import pytest
import torch
from mpmath import mpf

from diffusion_math.densities import checkerboard, second_order
from diffusion_math.densities.banana_funnel import banana
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.likelihood import flow_log_density
from diffusion_math.noise import UnitNoise, from_seeds
from diffusion_math.schedule import Discrete, VPLinear
from tests.support.chance import pinned
from tests.support.mixtures import mixture, normal

ONE = GaussianMixture(torch.zeros(1), torch.ones(1, 2), torch.full((1,), 0.3))


@pytest.mark.parametrize("c", [0.0, 0.3, -1.5, 2.0, -3.5])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.97, 1.03, 2.0])
def test_the_mean_over_an_interval_on_both_sides_of_the_series(c, part):
    """Against 60 digits, from short intervals (the series) to longer ones (differences of Phi)."""
    h = part * 0.02 / (1 + abs(c))
    exact_c, exact_h = mpf(c), mpf(h)
    low, high = exact_c - exact_h / 2, exact_c + exact_h / 2
    mass = mpmath.ncdf(high) - mpmath.ncdf(low)
    slope = (mpmath.npdf(high) - mpmath.npdf(low)) / mass
    got = checkerboard._over_interval(*(torch.tensor([v], dtype=torch.float64) for v in (c, h)))
    # Differences lose 1 / h, twice in the offset; the series there its next term, of order h^5.
    loose, next_term = (0.0, 5e-4 * h**5 * (1 + c**4 / 16)) if part < 1 else (1.0, 0.0)
    log_bound = 2e-15 * (2 + c * c) * (1 + 4 * loose / h)
    assert abs(got[0].item() - mpmath.log(mass / exact_h)) < log_bound
    offset_bound = 1e-15 * (1 + 4 * loose / h**2) + next_term
    assert abs(got[1].item() - (exact_c + slope) / exact_h) < offset_bound


def test_boards_of_other_widths_have_mass_one():
    """By the trapezoid rule, at a time that smooths the edges."""
    line = torch.linspace(-6, 6, 241, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    for width in (0.5, 0.8, 1.5):
        board = Checkerboard(width=width, squares=2)
        mass = board.log_density(VPLinear(), points, 0.3).exp().sum() * 0.05**2
        assert mass.item() == pytest.approx(1, abs=1e-6)


def test_a_board_is_the_mean_of_points_on_it():
    """A board of four squares 0.8 wide, two of them black, by 50 x 50 narrow Gaussians on each."""
    board, schedule = Checkerboard(width=0.8, squares=2), VPLinear()
    inside = (torch.arange(50, dtype=torch.float64) + 0.5) / 50 - 0.5
    square = 0.8 * torch.cartesian_prod(inside, inside)
    corners = torch.tensor([[-0.4, -0.4], [0.4, 0.4]], dtype=torch.float64)
    means = (corners[:, None] + square).reshape(-1, 2)
    flat = torch.zeros(len(means), dtype=torch.float64)
    points = GaussianMixture(flat, means, flat + board.std**2)
    x = normal(pinned(4), 20, 2)
    got, wanted = (data.log_density(schedule, x, 0.3) for data in (board, points))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-3)


def test_answers_are_like_the_question():
    x = torch.zeros(3, 2)
    assert banana().posterior_mean(VPLinear(), x, 0.5).dtype == torch.float32
    assert ONE.probability_flow(VPLinear(), x, 0.5, 0.2).dtype == torch.float32


def test_a_clean_point_has_a_covariance_of_zero():
    got = second_order.posterior_covariance(mixture("diagonal"), VPLinear(), torch.ones(3, 2), 0)
    assert torch.equal(got, torch.zeros(3, 2, 2, dtype=torch.float64))


def test_the_largest_legal_numbers():
    VPLinear(1.0, 1000.0)
    assert Discrete(torch.full((307,), 0.9, dtype=torch.float64)).T == 307
    with pytest.raises(ValueError, match="normal range"):
        Discrete(torch.full((308,), 0.9, dtype=torch.float64))


def test_a_basis_starts_at_the_mean_plus_a_deviation():
    basis = UnitNoise(torch.tensor([1.0, 0.0]), (2,))
    start = basis.start(torch.tensor([5.0, 7.0]), 0.5)
    assert start[:3].tolist() == [[5, 7], [5.5, 7], [5, 7.5]]


def test_the_sign_of_a_zero_time_is_no_key():
    """-0.0 and 0.0 are one time at both ends of a step: chains of moves begin at -0.0."""
    noise, x = from_seeds([4]), torch.zeros(1, 3)
    zero, s = torch.tensor(0.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    assert torch.equal(noise(x, zero, s), noise(x, -zero, s))


@pytest.mark.usefixtures("unchecked")
def test_one_example_and_none_have_a_likelihood(monkeypatch):
    schedule, x = VPLinear(), normal(pinned(1), 3, 2)

    def prior(x):
        return ONE.log_density(schedule, x, schedule.T)

    def of(x):
        return flow_log_density(schedule, ONE.denoiser(schedule), x, prior)

    single, none = of(x[:1]), of(x[:0])
    exact = ONE.log_density(schedule, x[:1], schedule.t_min)
    torch.testing.assert_close(single.log_density, exact, rtol=0, atol=1e-6)
    assert (none.log_density.shape, none.evaluations) == ((0,), 0)
    stuck = SimpleNamespace(success=False, message="the step is too small")
    monkeypatch.setattr("scipy.integrate.solve_ivp", lambda *a, **k: stuck)
    with pytest.raises(RuntimeError, match="solve_ivp: the step is too small"):
        of(x)
