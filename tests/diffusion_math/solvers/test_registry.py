"""What `SOLVERS` claims, measured: orders of the law and of the flow, calls, noise."""

import math
from functools import cache

import pytest
import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.sample import final, inversion, trajectory
from diffusion_math.schedule import VE, RectifiedFlow, VPLinear
from diffusion_math.solvers.one_step import heun
from diffusion_math.solvers.registry import SOLVERS
from tests.support.counted_noise import law
from tests.support.solver_step import MIXTURE, X, unit_noise
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

DATA = GaussianMixture(f64(0.0), f64([0.7, -0.4, 0.2]), f64([0.1, 0.5, 1.4]))
COUNTS = (32, 64)
SLACK = 0.35  # how far below its limit the order of so few steps lies
SCHEDULES = {"vp": VPLinear(), "flow": RectifiedFlow()}
ORDERED = [name for name in SOLVERS if name != "adaptive"]


def grids(schedule, stop=3.0):
    start = max(float(schedule.log_snr(schedule.t_max)), -4.0)
    levels = [torch.linspace(start, stop, n + 1, dtype=torch.float64) for n in COUNTS]
    return [schedule.time(level) for level in levels]


def end(name, grid):
    schedule = VPLinear()
    x = schedule(grid[0])[1] * X
    last = final(SOLVERS[name](schedule), MIXTURE.denoiser(schedule), x, grid)
    return last


@cache
def exact():
    schedule = VPLinear()
    first = float(schedule.log_snr(grids(schedule)[0][0]))
    levels = torch.linspace(first, 3.0, 2049, dtype=torch.float64)
    return end("deis", schedule.time(levels))


def order_of(errors):
    """Of the last halving: log2 of the ratio."""
    return math.log2(errors[-2] / errors[-1])


def errors_of(name, schedule):
    step, found = SOLVERS[name](schedule), []
    for grid in grids(schedule):
        mean, covariance = DATA.marginal(schedule, grid[0]).moments()
        got = law(step, DATA.denoiser(schedule), mean, covariance, grid)
        _, wanted = DATA.marginal(schedule, grid[-1]).moments()
        found.append(float((got[1] - wanted).norm()))
    return found


@pytest.mark.parametrize("where", SCHEDULES)
@pytest.mark.parametrize("name", ORDERED)
def test_the_law_has_the_claimed_order(name, where):
    """The covariance of the end, exactly, by unit vectors."""
    errors = errors_of(name, SCHEDULES[where])
    if errors[-1] > 1e-9:
        assert order_of(errors) > SOLVERS[name].order - SLACK, errors


@pytest.mark.parametrize("name", [name for name in ORDERED if not SOLVERS[name].noisy])
def test_the_flow_of_a_mixture_has_the_claimed_order(name):
    """Against many more steps of DEIS, whose error is below all that are measured here."""
    errors = [float((end(name, grid) - exact()).norm()) for grid in grids(VPLinear())]
    assert order_of(errors) > SOLVERS[name].order - SLACK, errors


@pytest.mark.parametrize("name", SOLVERS)
def test_calls_and_noise_are_as_claimed(name):
    """Once under way a step makes `calls` calls, and asks for noise if and only if it is noisy."""
    schedule, calls, asks = VPLinear(), [], []

    def denoise(x, t):
        calls.append(t)
        return MIXTURE.posterior_mean(schedule, x, t)

    def source(x, t, s):
        asks.append(t)
        return unit_noise(x, t, s)

    states = trajectory(SOLVERS[name](schedule), denoise, X, grids(schedule)[0], source)
    counts = [len(calls) for _ in states]
    late = counts[-1] - counts[-2]
    assert late == SOLVERS[name].calls or (name == "adaptive" and late % 3 == 1)
    assert bool(asks) == SOLVERS[name].noisy
    assert SOLVERS[name].about


REVERSE_SDE = [
    name
    for name, claimed in SOLVERS.items()
    if claimed.noisy and name not in ("ddpm_large", "edm_churn", "langevin_corrected")
]


@pytest.mark.parametrize("schedule", [VPLinear(), VE()], ids=["vp", "ve"])
@pytest.mark.parametrize("name", REVERSE_SDE)
def test_a_sampler_of_the_reverse_sde_forgets_as_it_does(name, schedule):
    """At x0 = 0 a step is exact: x_s = (sigma_s / sigma_t) rho x_t + sigma_s sqrt(1 - rho^2) z.

    rho = r_s / r_t. All eta have one law in the limit, so only this tells eta = 1 from another:
    any eta keeps rho^eta. The kept share and the fresh variance of three steps, by unit vectors.
    """
    grid = schedule.time(torch.linspace(-2, 2, 4, dtype=torch.float64))
    mean, variance = f64(1.7), f64([0.6])
    got = law(SOLVERS[name](schedule), lambda x, t: torch.zeros_like(x), mean, variance, grid)
    _, (start, *_, stop) = schedule(grid)
    rho = math.exp(-2)  # log r falls from 1 to -1
    kept = stop / start * rho
    torch.testing.assert_close(got[0], kept * mean, rtol=1e-10, atol=0)
    fresh = stop**2 * (1 - rho**2)
    torch.testing.assert_close(got[1], kept**2 * variance + fresh, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sampler_that_draws_is_not_given_zeros(name):
    """Without a source it is refused where it draws; a deterministic one asks for none."""
    schedule = VPLinear()
    states = trajectory(SOLVERS[name](schedule), MIXTURE.denoiser(schedule), X, f64(0.6, 0.3))
    if SOLVERS[name].noisy:
        with pytest.raises(
            ValueError, match=r"^noise: wanted a noise source for a stochastic solver"
        ):
            list(states)
    else:
        assert len(list(states)) == 2


def test_inversion_leads_back():
    """Up the flow and down again: the error of both walks, of the solver's order."""
    schedule = VPLinear()
    denoise = MIXTURE.denoiser(schedule)
    errors = []
    for grid in grids(schedule):
        *_, up = inversion(heun(schedule), denoise, X, grid)
        assert up.t == grid[0]
        back = final(heun(schedule), denoise, up.x, grid)
        errors.append(float((back - X).norm()))
    assert order_of(errors) > 1.7 and errors[-1] < 1e-2


@pytest.mark.parametrize("nodes", [[0.5, 0.0], [0.2, 0.5]])
def test_inversion_starts_above_clean_data(nodes):
    with pytest.raises(ValueError, match="grid: wanted"):
        inversion(heun(VPLinear()), MIXTURE.denoiser(VPLinear()), X, f64(*nodes))


ONE = GaussianMixture(f64(0.0), f64([0.7]), f64(0.3))


@pytest.mark.parametrize("schedule", [VPLinear(), VE()], ids=["vp", "ve"])
@pytest.mark.parametrize("name", [name for name in SOLVERS if not SOLVERS[name].noisy])
def test_up_the_grid_is_the_flow_to_noise(name, schedule):
    """Every solver without noise runs either way, `adaptive` in steps of its own."""
    t, s = (schedule.time(f64(level)[0]) for level in (-3.0, 2.0))
    x, nodes = f64([1.3], [-0.4]), 2 if name == "adaptive" else 33
    grid = schedule.time(torch.linspace(-3, 2, nodes, dtype=torch.float64))
    *_, end = inversion(SOLVERS[name](schedule), ONE.denoiser(schedule), x, grid)
    exact = ONE.probability_flow(schedule, x, s, t)
    error = (end.x - exact).abs().max() / sum(schedule(t))
    assert error < (0.03 if SOLVERS[name].order == 1 else 3e-3)
