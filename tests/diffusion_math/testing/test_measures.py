"""What the audit measures with: fits, exact flows, exact moments."""

import math

import pytest
import torch

from diffusion_math.grid import uniform_log_snr
from diffusion_math.noise import from_generator, zeros
from diffusion_math.schedule import Discrete, RectifiedFlow, VPLinear
from diffusion_math.testing import Sampler
from diffusion_math.testing.convergence import fit_order
from diffusion_math.testing.moments import exact_moments
from diffusion_math.testing.order import (
    flow_order,
    running_order,
    start_order,
    strong_order,
    weak_order,
)
from diffusion_math.testing.problems import GAUSSIAN, MIXTURE, flow, starts
from diffusion_math.testing.work_precision import work
from tests.support.chance import Mean, rare, seeded
from tests.support.distribution import line
from tests.support.tensors import f64
from tests.support.wrong_samplers import SCHEDULE, right

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own


def test_a_power_law_is_fitted_exactly():
    sizes = (0.4, 0.2, 0.1, 0.05)
    found = fit_order(sizes, [7 * h**3 for h in sizes], 0.0)
    assert found.order == pytest.approx(3) and found.constant == pytest.approx(7)
    assert found.low == pytest.approx(3) == found.high and not found.floor


def test_the_trend_of_a_slope_is_told():
    """h^2 + h^3: the slope falls from above towards 2, and the trend is below it."""
    sizes = (0.8, 0.4, 0.2)
    found = fit_order(sizes, [h**2 + h**3 for h in sizes], 0.0)
    assert 2 < found.trend < found.order < found.high


def test_rounding_is_left_out():
    found = fit_order((4.0, 2.0, 1.0, 0.5), [1.6, 0.4, 0.1, 1e-9], 1e-6)
    assert found.order == pytest.approx(2) and found.floor
    assert fit_order((4.0, 2.0, 1.0), [1e-9, 1e-9, 1e-9], 1e-6).order == math.inf
    assert fit_order((4.0, 2.0, 1.0), [1.0, math.nan, 0.1], 1e-6).order == -math.inf


@pytest.mark.parametrize("sizes", [(1.0, 0.5), (1.0, 2.0, 0.5), (1.0, 0.5, -0.1)])
def test_a_ladder_has_three_falling_steps(sizes):
    with pytest.raises(ValueError, match="wanted"):
        fit_order(sizes, [1.0] * len(sizes), 0.0)


def test_the_exact_flow_is_one_flow_on_every_schedule():
    """At equal log-SNR y = x / alpha is the same, whatever the schedule."""
    levels = f64(-3.0, 0.0, 3.0)
    found = []
    for schedule in (VPLinear(), RectifiedFlow(), Discrete.scaled_linear()):
        times = schedule.time(levels)
        alpha, _ = schedule(times)
        found.append(flow(schedule, times) / alpha[:, None, None])
    assert (found[0] - found[1]).abs().max() < 1e-9
    assert (found[0] - found[2]).abs().max() < 1e-9


def test_the_exact_flow_agrees_with_many_steps():
    schedule = VPLinear()
    grid = schedule.time(torch.linspace(-4, 3, 801, dtype=torch.float64))
    exact = flow(schedule, grid[[0, -1]])
    end = right("dpmpp_3m").end(MIXTURE.denoiser(schedule), exact[0], grid, zeros)
    assert (end - exact[1]).abs().max() < 2e-6
    with pytest.raises(ValueError, match=r"times: wanted tau of at least 0\.0001"):
        flow(schedule, f64(1e-9))


def test_starts_are_always_the_same():
    assert torch.equal(starts(), starts()) and starts(3).shape == (3, 2)
    assert torch.equal(starts(3), starts()[:3])


def test_orders_of_known_samplers():
    assert flow_order(right("ddim")).order == pytest.approx(1, abs=0.05)
    assert running_order(right("dpmpp_2m")).order == pytest.approx(2, abs=0.1)
    assert start_order(right("dpmpp_2m")).order == pytest.approx(1, abs=0.1)
    assert weak_order(right("ddpm")).order == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_the_strong_order_of_additive_noise_is_one():
    found = strong_order(right("ddpm"))
    assert found.order == pytest.approx(1, abs=0.25)


@pytest.mark.slow
@pytest.mark.chance(3.1e-9, "a standard deviation that is off by half a percent")
def test_the_exact_law_is_that_of_ten_million_samples():
    """ddpm in 4 steps, 1e7 plain samples: the mean square of each coordinate, in exact units."""
    sampler, n = right("ddpm"), 10_000_000
    grid = uniform_log_snr(SCHEDULE, 4, 0.9, 0.05)
    start = GAUSSIAN.marginal(SCHEDULE, grid[0])
    denoise = GAUSSIAN.denoiser(SCHEDULE)
    exact = exact_moments(sampler, denoise, *start.moments(), grid)
    spread = exact.covariances[-1].diagonal().sqrt()
    generator, total = seeded(11), torch.zeros(3, dtype=torch.float64)
    for _ in range(10):
        x = start.sample(generator, n // 10)
        end = sampler.end(denoise, x, grid, from_generator(generator))
        total += ((end - exact.means[-1]) / spread).square().sum(0)
    bound = Mean(line().of(torch.square), n, 1e-9)
    assert all(bound.holds(one) for one in total / n)
    assert rare(bound.misses(line().of(lambda z: (1.005 * z).square())))


def test_a_sampler_that_shows_the_wrong_number_of_states_is_told():
    def sample(denoise, x, grid, noise):
        return [x, x]

    sampler = Sampler("two", SCHEDULE, sample, lambda n: uniform_log_snr(SCHEDULE, n))
    with pytest.raises(ValueError, match="two: states: wanted 1 state or one for each of 3 steps"):
        sampler.states(lambda x, t: x, f64([0.0, 0.0]), f64(0.9, 0.5, 0.2, 0.0), zeros)
    with pytest.raises(ValueError, match="grid: wanted 2 times or more that do not rise"):
        sampler.states(lambda x, t: x, f64([0.0, 0.0]), f64(0.1, 0.5), zeros)
    with pytest.raises(ValueError, match="order: wanted a whole number"):
        Sampler("none", SCHEDULE, sample, lambda n: uniform_log_snr(SCHEDULE, n), order=0)


def test_work_counts_calls_and_errors():
    """Heun makes two calls a step; four times the steps have a sixteenth of the error."""
    few, many = work(right("heun"), (16, 64), copies=2)
    assert (few.steps, few.calls, many.calls) == (16, 32, 128)
    assert few.error / many.error == pytest.approx(16, rel=0.2) and many.seconds > 0
    with pytest.raises(ValueError, match="sampler: wanted a deterministic one that takes any grid"):
        work(right("ddpm"))
