"""Tuned grids: known optima by brute force, every theta a grid and back, the two losses, guards."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.grids import (
    LEAST,
    blended,
    cosines,
    errors,
    fit_grid,
    fit_grid_of,
    grid_of_logits,
    logits_of_grid,
    robust_residuals,
)
from diffusion_math.grid import GRIDS, karras, trailing, uniform_log_snr
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete, RectifiedFlow, VPLinear
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import euler
from tests.support.mixtures import normal, seeded

SCHEDULES = [VPLinear(), Discrete.scaled_linear(), RectifiedFlow()]
GAUSSIAN = GaussianMixture(torch.zeros(1), torch.tensor([[0.7, -0.4]]), torch.tensor([0.09]))
SPAN = (1.0, 0.05)


def problem(starts):
    """(denoiser, ends) of the exact flow of one Gaussian from T = 1 to 0.05."""
    schedule = VPLinear()
    return GAUSSIAN.denoiser(schedule), GAUSSIAN.probability_flow(schedule, starts, *SPAN)


def brute(starts, ends, denoise, loss):
    """The log-SNR of the best middle node of two Euler steps, by a search on the line."""
    schedule = VPLinear()

    def value(level):
        grid = torch.tensor([SPAN[0], float(schedule.time(level)), SPAN[1]], dtype=torch.float64)
        return loss(errors(euler(schedule), denoise, starts, ends, grid))

    low, high = (float(schedule.log_snr(t)) for t in SPAN)
    return minimize_scalar(value, bounds=(low, high), options={"xatol": 1e-9}).x


def middle(grid):
    return float(VPLinear().log_snr(grid[1]))


def test_two_euler_steps_of_a_gaussian_have_the_best_middle_node():
    schedule, starts = VPLinear(), normal(seeded(1), 40, 2)
    denoise, ends = problem(starts)
    best = brute(starts, ends, denoise, lambda e: float(e.square().mean()))
    for first in (0.2, 0.9):  # from either side
        grid = torch.tensor([SPAN[0], first, SPAN[1]], dtype=torch.float64)
        found = fit_grid(euler(schedule), schedule, denoise, starts, ends, grid)
        assert middle(found) == pytest.approx(best, abs=3e-3)  # differences by NUDGE have a bias
        assert found[[0, 2]].tolist() == list(SPAN)
        assert abs(middle(grid) - best) > 0.1


def test_far_starts_count_less_beyond_the_scale():
    """A quarter of the ends are elsewhere: least squares and the logarithm have other optima.

    The starts are given ones: of drawn ones some have the same optimum under both.
    """
    schedule, c = VPLinear(), 0.02
    starts = torch.linspace(-2, 2, 80, dtype=torch.float64).reshape(2, 40).T
    denoise, ends = problem(starts)
    ends[::4] -= 0.5 * (starts[::4] - ends[::4])
    grid = torch.tensor([SPAN[0], 0.5, SPAN[1]], dtype=torch.float64)
    square = brute(starts, ends, denoise, lambda e: float(e.square().mean()))
    robust = brute(starts, ends, denoise, lambda e: float((1 + (e / c) ** 2).log().mean()))
    assert abs(square - robust) > 0.05
    for scale, best in ((math.inf, square), (c, robust), (1e6, square)):
        found = fit_grid(euler(schedule), schedule, denoise, starts, ends, grid, scale=scale)
        assert middle(found) == pytest.approx(best, abs=3e-3)


def test_residuals_square_to_the_loss():
    schedule, starts = VPLinear(), normal(seeded(3), 6, 2)
    denoise, ends = problem(starts)
    grid = trailing(schedule, 3, 1, 0.05)
    step = euler(schedule)
    last = final(step, denoise, starts, grid)
    by_hand = ((last - ends) ** 2).sum(1) / 2
    assert torch.allclose(errors(step, denoise, starts, ends, grid) ** 2, by_hand, rtol=1e-12)
    plain = robust_residuals(last - ends, math.inf)
    assert float(plain.square().sum()) == pytest.approx(float(by_hand.mean()), rel=1e-12)
    c = 0.1
    some = robust_residuals(last - ends, c)
    rho = c**2 * torch.log1p(by_hand / c**2)
    assert float(some.square().sum()) == pytest.approx(float(rho.mean()), rel=1e-12)
    assert torch.allclose(some / plain, some.abs() / plain.abs())  # turned as the errors are
    exact = robust_residuals(last - last, c)
    assert exact.tolist() == [0] * 12


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@given(data=st.data())
def test_every_theta_is_a_grid_and_comes_back(schedule, data):
    steps = data.draw(st.integers(2, 12))
    theta = data.draw(st.lists(st.floats(-60, 60), min_size=steps - 1, max_size=steps - 1))
    theta = torch.tensor(theta, dtype=torch.float64)
    frame = uniform_log_snr(schedule, steps)
    grid = grid_of_logits(schedule, frame, theta)
    assert grid.shape == frame.shape
    assert grid[[0, -1]].tolist() == frame[[0, -1]].tolist()
    assert all(a > b for a, b in pairwise(grid.tolist()))
    again = grid_of_logits(schedule, frame, logits_of_grid(schedule, grid))
    low, high = schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)
    moved = (schedule.log_snr(again[1:-1]) - schedule.log_snr(grid[1:-1])) / (high - low)
    assert float(moved.abs().max()) < 2 * steps * LEAST
    wide = theta.clamp(-2, 2)
    grid = grid_of_logits(schedule, frame, wide)
    assert torch.allclose(logits_of_grid(schedule, grid), wide, atol=1e-6)


def test_placed_by_definition():
    schedule, theta = VPLinear(), [0.3, -1.0, 0.8]
    frame = torch.tensor([0.9, 0.5, 0.4, 0.3, 0.1], dtype=torch.float64)
    powers = np.exp([*theta, 0.0])
    gaps = 1e-4 + (1 - 4e-4) * powers / powers.sum()
    low, high = float(schedule.log_snr(0.9)), float(schedule.log_snr(0.1))
    inner = schedule.time(torch.tensor(low + (high - low) * np.cumsum(gaps)[:3]))
    found = grid_of_logits(schedule, frame, torch.tensor(theta, dtype=torch.float64))
    assert torch.allclose(found[1:-1], inner, rtol=1e-12)


def test_beyond_the_finite_levels_stand_their_neighbours():
    """From alpha = 0 to sigma = 0: equal shares between t_max and t_min, as they are by theta 0."""
    schedule = RectifiedFlow()
    frame = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64)
    found = grid_of_logits(schedule, frame, torch.zeros(2, dtype=torch.float64))
    levels = schedule.log_snr(torch.tensor([schedule.t_max, *found[1:3], schedule.t_min]))
    assert torch.allclose(levels.diff(), levels.diff().mean(), rtol=1e-6)


def test_a_gap_of_nothing_is_widened():
    schedule = Discrete.scaled_linear()
    grid = karras(schedule, 6)
    assert grid[-2] == schedule.t_min
    found = grid_of_logits(schedule, grid, logits_of_grid(schedule, grid))
    level, most = schedule.log_snr(found[-2]), schedule.log_snr(1)
    share = float((most - level) / (most - schedule.log_snr(1000)))
    assert share == pytest.approx(2e-4, rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.usefixtures("unchecked")  # shapes that disagree at its end
def test_blends_lie_between(schedule):
    """Gaps are geometric means up to their common factor; the ends of the walk stay."""
    one, other = karras(schedule, 6, rho=3), trailing(schedule, 6)
    low, high = schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)

    def gaps(grid):
        return torch.cat([low[None], schedule.log_snr(grid[1:-1]), high[None]]).diff()

    for share in (0.25, 0.5):
        mixed = blended(schedule, one, other, share)
        assert mixed[[0, -1]].equal(one[[0, -1]]) and bool((mixed.diff() < 0).all())
        ratio = (gaps(mixed) / gaps(one) ** (1 - share) / gaps(other) ** share)[1:-1]
        assert float(ratio.max() / ratio.min()) < 1.05  # but for LEAST
    again = blended(schedule, other, one, 0)
    assert torch.allclose(schedule.log_snr(again[1:-1]), schedule.log_snr(other[1:-1]), atol=1e-2)
    with pytest.raises(ValueError, match=r"^other: wanted shape \(7,\), got shape \(6,\)"):
        blended(schedule, one, trailing(schedule, 5), 0.5)


def test_cosines_by_definition_and_span():
    found = cosines(5, 3)
    for i in range(4):
        for m in (1, 2, 3):
            exact = math.cos(math.pi * m * (i + 0.5) / 5) - math.cos(math.pi * m * 4.5 / 5)
            assert float(found[i, m - 1]) == pytest.approx(exact, abs=1e-14)
    for gaps in (2, 3, 9):
        assert torch.linalg.matrix_rank(cosines(gaps, gaps - 1)) == gaps - 1


@pytest.fixture(scope="module")
def two_modes():
    """Two modes on a line of four dimensions: starts and the ends of a fine walk."""
    schedule = VPLinear()
    means = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0.5, 0, 0]])
    data = GaussianMixture(torch.zeros(2), means, torch.tensor([0.05, 0.2]))
    denoise, starts = data.denoiser(schedule), normal(seeded(5), 30, 4)
    last = final(dpmpp_2m(schedule), denoise, starts, uniform_log_snr(schedule, 200))
    return schedule, denoise, starts, last


@pytest.mark.usefixtures("unchecked")
def test_never_worse_and_the_same_again(two_modes):
    schedule, denoise, starts, ends = two_modes
    step = dpmpp_2m(schedule)
    for name, much in (("trailing", 0.5), ("karras", 1.0)):  # karras is good here already
        grid = GRIDS[name](schedule, 5)
        kept = grid.clone()
        before = errors(step, denoise, starts, ends, grid).square().mean()
        given = (step, schedule, denoise, starts, ends, grid)
        found = fit_grid(*given, rounds=6)
        after = errors(step, denoise, starts, ends, found).square().mean()
        assert after < much * before
        assert torch.equal(found, fit_grid(*given, rounds=6))
        assert torch.equal(grid, kept)
        assert found.dtype == torch.float64 and found.shape == grid.shape
        # From the best one what comes back is never worse.
        again = fit_grid(step, schedule, denoise, starts, ends, found, rounds=1)
        assert errors(step, denoise, starts, ends, again).square().mean() <= after * (1 + 1e-9)


@pytest.mark.usefixtures("unchecked")
def test_one_mode_moves_along_one_cosine(two_modes):
    schedule, denoise, starts, ends = two_modes
    grid = uniform_log_snr(schedule, 5, 1.0, 0.01)
    given = (dpmpp_2m(schedule), schedule, denoise, starts, ends, grid)
    change = logits_of_grid(schedule, fit_grid(*given, modes=1, rounds=4)) - logits_of_grid(
        schedule, grid
    )
    wave = cosines(5, 1)[:, 0]
    assert float(change.abs().max()) > 0.05
    assert torch.allclose(change, wave * (change @ wave) / (wave @ wave), atol=1e-6)
    free = logits_of_grid(schedule, fit_grid(*given, rounds=4)) - logits_of_grid(schedule, grid)
    assert not torch.allclose(free, wave * (free @ wave) / (wave @ wave), atol=1e-2)
    same = [fit_grid(*given, modes=modes, rounds=2) for modes in (4, 5, None)]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are its subject
def test_illegal_requests():
    schedule, starts = VPLinear(), normal(seeded(1), 3, 2)
    denoise, ends = problem(starts)
    grid = trailing(schedule, 3)

    def asked(starts=starts, ends=ends, grid=grid, **more):
        return fit_grid(euler(schedule), schedule, denoise, starts, ends, grid, **more)

    for given_, message in (
        ({"grid": grid.flip(0)}, "grid: wanted a non-empty, strictly decreasing"),
        ({"grid": grid[:2]}, "grid: wanted 3 nodes or more: the ends stay, got 2"),
        ({"ends": ends[:2]}, "ends: wanted shape"),
        ({"starts": starts[:0], "ends": ends[:0]}, "starts: wanted 1 or more"),
        ({"scale": 0.0}, "scale: wanted a number above 0, got 0"),
        ({"scale": -1}, "scale: wanted"),
        ({"modes": 0}, "modes: wanted a whole number of at least 1"),
        ({"rounds": 0}, "rounds: wanted a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            asked(**given_)
    with pytest.raises(ValueError, match=r"^theta: wanted shape \(2,\), got \(3,\)"):
        grid_of_logits(schedule, grid, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^ends: wanted shape"):
        errors(euler(schedule), denoise, starts, ends[:1], grid)


def test_rounds_are_counted_and_what_is_no_better_is_the_grid_itself():
    """One evaluation is that of the grid: bit for bit what came in, where thirty move it."""
    schedule, starts = VPLinear(), normal(seeded(1), 8, 2)
    denoise, ends = problem(starts)
    grid = torch.tensor([SPAN[0], 0.9, 0.31, SPAN[1]], dtype=torch.float64)
    once = fit_grid(euler(schedule), schedule, denoise, starts, ends, grid, rounds=1)
    assert once.equal(grid)
    twice = fit_grid(euler(schedule), schedule, denoise, starts, ends, grid, rounds=2)
    many = fit_grid(euler(schedule), schedule, denoise, starts, ends, grid, rounds=30)
    assert not twice.equal(grid) and (many - twice).abs().max() > 1e-6


def test_one_number_is_enough_and_none_is_named():
    schedule, starts = VPLinear(), torch.ones(1, 1, dtype=torch.float64)
    grid = torch.tensor([SPAN[0], 0.5, SPAN[1]], dtype=torch.float64)
    one = fit_grid(euler(schedule), schedule, lambda x, t: x / 2, starts, starts, grid)
    assert one.shape == grid.shape
    none = torch.ones(0, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"starts: wanted 1 or more, got \(0, 1\)"):
        fit_grid(euler(schedule), schedule, lambda x, t: x, none, none, grid)


def test_widened_gaps_still_sum_to_one():
    """Two inner nodes nearly on one another: the theta of the widened gaps, which sum to more."""
    schedule = VPLinear()
    grid = torch.tensor([1.0, 0.5, 0.5 - 1e-13, 0.05], dtype=torch.float64)
    low, high = (float(schedule.log_snr(t)) for t in SPAN)
    levels = schedule.log_snr(grid)
    gaps = (levels.diff() / (high - low)).clamp(min=2 * LEAST)
    wanted = gaps / gaps.sum() - LEAST
    theta = torch.cat([logits_of_grid(schedule, grid), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(theta.softmax(0), wanted / wanted.sum(), rtol=1e-12, atol=0)


@pytest.mark.usefixtures("unchecked")
def test_slopes_are_forward_differences_by_the_nudge():
    """The walk is asked about theta itself, and about theta + nudge w for each wave w."""
    schedule, grid, nudge = VPLinear(), trailing(VPLinear(), 4), 0.07
    asked = []

    def walk(nodes):
        asked.append(nodes)
        return nodes[None, 1:-1]

    fit_grid_of(walk, schedule, torch.zeros(1, 3).double(), grid, rounds=2, nudge=nudge)
    theta, waves = logits_of_grid(schedule, grid), cosines(4, 3)
    for wave in waves.T:
        wanted = grid_of_logits(schedule, grid, theta + nudge * wave)
        apart = min(float((nodes - wanted).abs().max()) for nodes in asked)
        assert apart < 1e-14  # in float32 the nudge is 0.07 to within 1e-9


def test_what_is_as_good_is_the_grid_itself():
    """No error before and after: what comes back has not been to theta, which widens a gap."""
    schedule = Discrete.scaled_linear()
    grid = karras(schedule, 6)
    ends = torch.zeros(2, 3, dtype=torch.float64)
    assert fit_grid_of(lambda nodes: ends, schedule, ends, grid).equal(grid)


def test_errors_whose_squares_are_nothing_stay():
    """rho(u) -> u: what is 1e-170 of the scale counts as it is."""
    apart = torch.full((2, 2), 1e-170, dtype=torch.float64)
    assert robust_residuals(apart, 1.0).equal(apart.flatten() / 2)
