"""Published grids: the released numbers, their interpolation, and weights by quadrature."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad

from diffusion_math.fitting import published_grids
from diffusion_math.fitting.published_grids import (
    ALIGNED,
    align_your_steps,
    error_weighted,
    weighted_error,
)
from diffusion_math.grid import trailing, uniform_log_snr
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

TABLE = Discrete.scaled_linear()
TIMESTEPS = {
    "sd15": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24],
    "sdxl": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13],
}
"""Released beside the levels: indices of a table of 1000, one below our times."""


def levels(grid):
    alphas, sigmas = TABLE(grid)
    return (sigmas / alphas).tolist()


@pytest.mark.parametrize("model", ALIGNED)
def test_ten_steps_are_the_released_ones(model):
    grid = align_your_steps(TABLE, 10, model)
    assert levels(grid) == pytest.approx([*ALIGNED[model][:10], 0], rel=1e-8)
    assert grid[0] == 1000 and grid[-1] == 0 and grid.dtype == torch.float64
    released = [index + 1 for index in TIMESTEPS[model]]
    assert grid[:-1].tolist() == pytest.approx(released, abs=0.75)


def test_other_numbers_lie_between_them():
    ten, twenty = levels(align_your_steps(TABLE, 10)), levels(align_your_steps(TABLE, 20))
    assert twenty[:-1:2] == pytest.approx(ten[:-1], rel=1e-9)
    last = [*ten[:-1], ALIGNED["sd15"][-1]]
    between = [math.sqrt(a * b) for a, b in pairwise(last)]
    assert twenty[1::2] == pytest.approx(between, rel=1e-9)
    assert levels(align_your_steps(TABLE, 5)) == pytest.approx([*ten[:-1:2], 0], rel=1e-9)
    assert align_your_steps(TABLE, 1).tolist() == [1000, 0]
    three = levels(align_your_steps(TABLE, 3))
    third = ALIGNED["sd15"][3] ** (2 / 3) * ALIGNED["sd15"][4] ** (1 / 3)
    assert three[1] == pytest.approx(third, rel=1e-9)


@pytest.mark.parametrize("schedule", [VE(80.0), RectifiedFlow(), VPLinear(), VPCosine()])
def test_the_first_level_is_the_published_one(schedule):
    """These begin noisier, VE at 80 and the straight path at 999: the grid does not."""
    for steps in (1, 3, 10):
        alpha, sigma = schedule(align_your_steps(schedule, steps)[0])
        assert float(sigma / alpha) == pytest.approx(ALIGNED["sd15"][0], rel=1e-9)


def test_a_schedule_that_is_less_noisy_begins_at_its_own_end():
    assert align_your_steps(VE(10.0), 10)[0] == 10


def by_quadrature(schedule, grid, order, power):
    """The same sum with Lagrange's polynomials integrated numerically."""
    lam = (schedule.log_snr(grid) / 2).tolist()
    alphas, sigmas = (values.tolist() for values in schedule(grid))
    N = len(lam) - 1
    c = [0.0] * N
    for n in range(N):
        k = min(order, n + 1, N - n)
        some = list(range(n - k + 1, n + 1))
        for i in some:

            def weighed(x, i=i, some=some):
                factors = [(x - lam[m]) / (lam[i] - lam[m]) for m in some if m != i]
                return math.exp(x) * math.prod(factors)

            c[i] += quad(weighed, lam[n], lam[n + 1], epsabs=1e-12)[0]
    return sum(abs(c[i]) * sigmas[i] ** power / alphas[i] for i in range(N))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("power", [1, 2])
def test_weights_by_quadrature(order, power):
    schedule = VPLinear()
    grid = torch.tensor([0.95, 0.8, 0.55, 0.4, 0.2, 0.05], dtype=torch.float64)
    exact = by_quadrature(schedule, grid, order, power)
    assert weighted_error(schedule, grid, order, power) == pytest.approx(exact, rel=1e-8)


def test_one_step_lets_through_what_it_weighs():
    schedule, grid = VPLinear(), torch.tensor([0.9, 0.3], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule(grid)
    exact = (alpha_s / sigma_s - alpha_t / sigma_t) * sigma_t**2 / alpha_t
    assert weighted_error(schedule, grid) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("schedule", [TABLE, RectifiedFlow()], ids=["table", "straight"])
def test_the_least_weighted_error_is_a_least_one(schedule):
    steps = 6
    grid, first = error_weighted(schedule, steps), uniform_log_snr(schedule, steps)
    finite = slice(int(schedule.t_max < schedule.T), steps)
    assert grid.shape == first.shape and bool((grid[1:] < grid[:-1]).all())
    assert grid[0] == schedule.T and grid[-1] == 0
    assert grid[finite.start] == schedule.t_max and grid[steps - 1] == schedule.t_min
    best = weighted_error(schedule, grid[finite])
    assert best < 0.97 * weighted_error(schedule, first[finite])
    moved = range(finite.start + 1, steps - 1) if schedule is TABLE else ()  # the other has kinks
    for k in moved:
        for off in (-0.05, 0.05):
            other = grid.clone()
            other[k] = schedule.time(schedule.log_snr(grid[k]) + off)
            assert weighted_error(schedule, other[finite]) > best - 1e-4
    assert not torch.equal(error_weighted(schedule, steps, power=1), grid)
    assert not torch.equal(error_weighted(schedule, steps, order=1), grid)


def test_a_little_more_noise_than_the_first_level_is_cut_off():
    """VE at 20 begins at r_0 = 14.6. Up to 1e-9 of log-SNR more it begins where it would."""
    r_0 = ALIGNED["sd15"][0]
    assert align_your_steps(VE(20.0), 3)[0].item() == pytest.approx(r_0, rel=1e-12)
    first, most = torch.tensor([r_0], dtype=torch.float64).log(), r_0 * math.exp(5e-10)
    ways = [VE(most * (1 + k * 2**-52)) for k in range(-60, 61)]
    ties = [way for way in ways if way.log_snr(way.t_max) + 1e-9 == -2 * first]
    assert ties and all(align_your_steps(way, 3)[0] == way.t_max for way in ties)


def test_few_steps_have_nothing_to_move():
    for steps in (1, 2):
        assert torch.equal(error_weighted(TABLE, steps), uniform_log_snr(TABLE, steps))
    assert not torch.equal(error_weighted(TABLE, 3), uniform_log_snr(TABLE, 3))


def test_illegal_requests():
    with pytest.raises(ValueError, match=r"^model: wanted one of sd15, sdxl, got 'sd3'"):
        align_your_steps(TABLE, 5, "sd3")
    with pytest.raises(ValueError, match=r"^steps: wanted a whole number of at least 1"):
        align_your_steps(TABLE, 0)
    grid = trailing(VPLinear(), 3, 1, 0.1)
    for order in (0, 5):
        with pytest.raises(ValueError, match=r"^order: wanted a whole number"):
            weighted_error(VPLinear(), grid, order)
    for power in (-1, 5, math.nan):
        with pytest.raises(ValueError, match=r"^power: wanted a number in \[0, 4\]"):
            weighted_error(VPLinear(), grid, power=power)


def test_three_predictions_are_the_default(monkeypatch):
    schedule, told = VPLinear(), []
    grid = uniform_log_snr(schedule, 9)[:-1]
    assert weighted_error(schedule, grid) == weighted_error(schedule, grid, 3)
    assert weighted_error(schedule, grid) != weighted_error(schedule, grid, 4)

    def flat(schedule, grid, order, power):
        told.append((order, power))
        return 0.0

    monkeypatch.setattr(published_grids, "weighted_error", flat)
    error_weighted(schedule, 4)
    assert set(told) == {(3, 2)}
