"""Solvers, many steps: their order against the exact flow, and their exact law on Gaussian data."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from diffusion_math import gaussian, noise, prediction
from diffusion_math.grid import GRIDS
from diffusion_math.sample import final
from diffusion_math.schedule import VE, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import ddim, ddpm, heun
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from tests.support.solver_step import MIXTURE, ONE, X
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own


# Orders, against the exact solution of the probability flow.

ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2}
LADDER = [24, 48, 96]
SPANS = {
    "VPLinear": (VPLinear(), 1.0, 0.02),
    "VE": (VE(10.0), 10.0, 0.05),
    "RectifiedFlow": (RectifiedFlow(), 0.98, 0.02),
    "VPCosine": (VPCosine(), 0.98, 0.02),
}


def fitted_order(errors, ladder=LADDER):
    """Minus the slope of log error against log steps, by least squares."""
    return -np.polyfit(np.log(ladder), np.log(errors), 1)[0]


def exact_flow(data, schedule, x, t, s):
    """The probability flow from t to s by DOP853, in y = x / alpha and log-SNR, to 1e-10."""
    denoise = data.denoiser(schedule)

    def slope(log_snr, y):
        at = schedule.time(f64(log_snr)[0])
        y = torch.from_numpy(y).reshape(x.shape)
        return (-(y - denoise(schedule(at)[0] * y, at)) / 2).flatten().numpy()

    ends = (schedule.log_snr(t).item(), schedule.log_snr(s).item())
    start = (x / schedule(t)[0]).flatten().numpy()
    path = solve_ivp(slope, ends, start, method="DOP853", rtol=1e-10, atol=1e-10)
    return schedule(s)[0] * torch.from_numpy(path.y[:, -1]).reshape(x.shape)


def end_of(step, data, schedule, x, grid, source=noise.zeros):
    end = final(step, data.denoiser(schedule), x, grid, source)
    return end


def flow_errors(step, data, schedule, t, s, exact, spacing):
    x = schedule(t)[1] * X
    ends = (end_of(step, data, schedule, x, GRIDS[spacing](schedule, n, t, s)) for n in LADDER)
    return [(end - exact).square().mean().sqrt().item() for end in ends]


@pytest.mark.parametrize(
    ("span", "spacing"),
    [
        ("VPLinear", "uniform_log_snr"),
        ("VE", "karras"),
        ("RectifiedFlow", "uniform_log_snr"),
        ("VPCosine", "karras"),
    ],
)
def test_orders_on_gaussian_data(span, spacing):
    """ddim(0) and euler: 1; heun and dpmpp_2m: 2; within 0.1, against the closed-form flow."""
    schedule, t, s = SPANS[span]
    exact = ONE.probability_flow(schedule, schedule(t)[1] * X, t, s)
    for name, order in ORDERS.items():
        errors = flow_errors(SOLVERS[name](schedule), ONE, schedule, t, s, exact, spacing)
        assert fitted_order(errors) == pytest.approx(order, abs=0.1), name


@pytest.mark.parametrize("span", ["VPLinear", "RectifiedFlow"])
def test_orders_on_a_mixture(span):
    """The same on a mixture, against an eighth-order integration to 1e-10."""
    schedule, t, s = SPANS[span]
    exact = exact_flow(MIXTURE, schedule, schedule(t)[1] * X, t, s)
    for name, order in ORDERS.items():
        step = SOLVERS[name](schedule)
        errors = flow_errors(step, MIXTURE, schedule, t, s, exact, "uniform_log_snr")
        assert fitted_order(errors) == pytest.approx(order, abs=0.1), name


def wrong_2m(factor):
    """DPM-Solver++(2M) with another coefficient of x0 - x0_before than h / (2 h_before)."""

    def make(schedule):
        def step(denoise, state, t, s, noise):
            x0 = denoise(state.x, t)
            D = x0
            if state.history:
                before, x0_before = state.history[-1]
                h = schedule.log_snr(s) - schedule.log_snr(t)
                h_before = schedule.log_snr(t) - schedule.log_snr(before)
                D = x0 + factor(h, h_before) * (x0 - x0_before)
            return State(gaussian_free_step(schedule, state.x, D, t, s), s, ((t, x0),))

        return step

    return make


def gaussian_free_step(schedule, x, x0, t, s):
    alpha_s, sigma_s = schedule(s)
    return alpha_s * x0 + sigma_s * prediction.eps_from_x0(schedule, x, x0, t)


def one_sided_heun(schedule):
    """Heun with the last slope alone in the place of the mean of both."""

    def step(denoise, state, t, s, noise):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x_s = gaussian_free_step(schedule, state.x, denoise(state.x, t), t, s)
        eps = prediction.eps_from_x0(schedule, x_s, denoise(x_s, s), s)
        return State(
            alpha_s * (state.x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * eps), s
        )

    return step


def shifted(make):
    """A solver that asks the denoiser at s where t is meant."""

    def wrong(schedule):
        step = make(schedule)

        def shifted_step(denoise, state, t, s, noise):
            return step(lambda x, time: denoise(x, s), state, t, s, noise)

        return shifted_step

    return wrong


WRONG_SOLVERS = {
    "2m: right": (wrong_2m(lambda h, before: h / (2 * before)), 2, True),
    "2m: lost one half": (wrong_2m(lambda h, before: h / before), 2, False),
    "2m: flipped sign": (wrong_2m(lambda h, before: -h / (2 * before)), 2, False),
    "2m: steps taken as equal": (wrong_2m(lambda h, before: 0.5), 2, False),
    "heun: end slope only": (one_sided_heun, 2, False),
    "heun: s for t": (shifted(heun), 2, False),
    "2m: s for t": (shifted(dpmpp_2m), 2, False),
}


@pytest.mark.parametrize("name", WRONG_SOLVERS)
def test_wrong_solvers_lose_their_order(name):
    """On a grid that alternates long and short steps, wrong coefficients drop to order 1.

    The alternation does not fade as the grid is refined, so no step ratio tends to one.
    """
    make, order, right = WRONG_SOLVERS[name]
    schedule, t, s = SPANS["VPLinear"]
    exact = ONE.probability_flow(schedule, schedule(t)[1] * X, t, s)
    errors = []
    ladder = [32, 64, 128]
    for n in ladder:
        u = torch.arange(n + 1, dtype=torch.float64)
        u[1::2] += 0.4
        levels = schedule.log_snr(t) + u / n * (schedule.log_snr(s) - schedule.log_snr(t))
        grid = schedule.time(levels)
        end = end_of(make(schedule), ONE, schedule, schedule(t)[1] * X, grid)
        errors.append((end - exact).square().mean().sqrt().item())
    assert (abs(fitted_order(errors, ladder) - order) < 0.1) == right


def test_into_zero_the_last_stretch_is_a_mean():
    """At exact 0 the last step returns E[x_0 | x_t]: off the flow's end by O(t_min^2) only.

    On N(m, C) the flow ends at m + sqrt(C / S) (x - alpha m) and the mean is m + alpha C / S
    (x - alpha m): on rectified flow from t = 0.1, 0.05, .. their distance falls with order 2.
    """
    schedule, ladder = RectifiedFlow(), [10, 20, 40, 80]
    errors = []
    for n in ladder:
        exact = ONE.probability_flow(schedule, X, 1 / n, 0)
        got = end_of(ddim(schedule), ONE, schedule, X, f64(1 / n, 0))
        errors.append((got - exact).square().mean().sqrt().item())
    assert fitted_order(errors, ladder) > 1.8


# The exact law of the output on Gaussian data, by basis vectors for noise.


def law_errors(make, schedule, t, s, ladder):
    """Errors of the output's mean and covariance at s, from the exact q(x_t) at t.

    The start's covariance is brought in by hand: the rows that move the start move it by a
    square root of the covariance of x_t.
    """
    start, end = ONE.marginal(schedule, t).moments(), ONE.marginal(schedule, s).moments()
    root = torch.linalg.cholesky(start[1])
    errors = []
    for n in ladder:
        grid = GRIDS["uniform_log_snr"](schedule, n, t, s)
        basis = noise.UnitNoise(grid, (2,))
        x = start[0] + basis.start(torch.zeros_like(start[0]), 1.0) @ root.T
        out = end_of(make(schedule), ONE, schedule, x, grid, basis)
        mean, covariance = basis.mean(out), basis.covariance(out)
        errors.append(((mean - end[0]).norm().item(), (covariance - end[1]).norm().item()))
    return np.array(errors).T


STOCHASTIC = {
    "ddpm": ddpm,
    "ddim(0.5)": lambda schedule: ddim(schedule, 0.5),
    "ddim(1)": lambda schedule: ddim(schedule, 1.0),
    "ddim(0)": ddim,
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_output_s_law_converges_with_order_one(name):
    """C09, C20: from q(x_t) to q(x_s), exactly, without sampling; the order within 0.1 of 1.

    The mean is carried exactly by every step: at the mean of x_t, x0 is the mean of x_0.
    """
    schedule, ladder = VPLinear(), [32, 64, 128]
    mean, covariance = law_errors(STOCHASTIC[name], schedule, 0.9, 0.05, ladder)
    assert fitted_order(covariance, ladder) == pytest.approx(1, abs=0.1)
    assert mean.max() < 1e-13


@pytest.mark.parametrize("name", ["ddpm", "ddim(1)"])
def test_ancestral_sampling_converges_to_the_true_reverse_kernel(name):
    """C08, C09: from one point x_t, the output's exact law tends to Bayes' q(x_s | x_t).

    The mean is exact at any step count: E[x_s | x_t] is linear in E[x_0 | x_t]. The covariance
    has order 1 within 0.1. Wrong alternative: ddim(1/2) tends to another law, in mean and
    covariance.
    """
    schedule, ladder, t, s = VPLinear(), [32, 64, 128], 0.6, 0.05
    kernel = ONE.reverse(schedule, X[0], t, s).moments()

    def errors(make):
        for n in ladder:
            grid = GRIDS["uniform_log_snr"](schedule, n, t, s)
            basis = noise.UnitNoise(grid, (2,))
            out = end_of(make(schedule), ONE, schedule, basis.start(X[0], 0.0), grid, basis)
            law = basis.mean(out), basis.covariance(out)
            yield [(got - wanted).norm().item() for got, wanted in zip(law, kernel, strict=True)]

    mean, covariance = zip(*errors(STOCHASTIC[name]), strict=True)
    assert max(mean) < 1e-12
    assert fitted_order(covariance, ladder) == pytest.approx(1, abs=0.1)
    for error in zip(*errors(STOCHASTIC["ddim(0.5)"]), strict=True):
        assert fitted_order(error, ladder) < 0.5


def test_a_wrong_variance_does_not_converge():
    """C20: a step whose noise has sigma^2 for sigma keeps an error that no step count removes."""

    def wrong(schedule):
        def step(denoise, state, t, s, noise):
            q = gaussian.posterior(schedule, state.x, denoise(state.x, t), t, s)
            return State(q.mean + q.variance * noise(state.x, t, s), s)

        return step

    ladder = [16, 32, 64]
    _, covariance = law_errors(wrong, VPLinear(), 0.9, 0.05, ladder)
    assert fitted_order(covariance, ladder) < 0.2
