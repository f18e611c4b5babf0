"""Solvers, one step at a time: the papers' formulas, the two ends, the marginals."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import gaussian, noise, prediction
from diffusion_math.grid import GRIDS
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import ddim, ddpm, euler, heun
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from tests.support.solver_step import (
    MIXTURE,
    SCHEDULES,
    X,
    forbidden_noise,
    marginal_error,
    one_step,
    time_at,
)
from tests.support.tensors import f64

by_name = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


times = given(
    schedule=st.sampled_from(SCHEDULES),
    t=st.sampled_from([0.3, 0.7, 0.95, 1.0]),
    s=st.sampled_from([0.0, 0.05, 0.2]),
    eta=st.floats(0, 1),
)


# One step, against the paper's formula in the paper's own symbols.


@pytest.mark.claim("C09", "diffusion_math.solvers.one_step.ddpm")
@pytest.mark.parametrize("t", [1, 2, 20, 40])
def test_ddpm_is_algorithm_2(measured, t):
    """C09, C20: one step in DDPM's betas and alphas, by Eq. 11's mean and beta-tilde of Eq. 7."""
    schedule = Discrete.scaled_linear(40)
    beta, abar = schedule.betas[t - 1], (1 - schedule.betas).cumprod(0)
    before = abar[t - 2] if t > 1 else 1.0
    x0 = MIXTURE.posterior_mean(schedule, X, t)
    eps = (X - abar[t - 1].sqrt() * x0) / (1 - abar[t - 1]).sqrt()
    mean = (X - beta / (1 - abar[t - 1]).sqrt() * eps) / (1 - beta).sqrt()
    std = ((1 - before) / (1 - abar[t - 1]) * beta) ** 0.5
    got = one_step(ddpm(schedule), schedule, f64(t)[0], f64(t - 1)[0])
    off = (got - mean - std).abs().max()
    measured(off, 1e-12, "error of a step from mu_theta + sigma_t, in float64")


@times
def test_ddim_is_equation_12(schedule, t, s, eta):
    """sigma of Eq. 16 as eta times the posterior's deviation, its square taken off sigma_s^2.

    Tolerance: here the difference of squares cancels, to sqrt(EPS) = 1.5e-8 at worst.
    """
    t, s = time_at(schedule, t), time_at(schedule, s)
    alpha_s, sigma_s = schedule(s)
    x0 = MIXTURE.posterior_mean(schedule, X, t)
    eps = prediction.eps_from_x0(schedule, X, x0, t)
    std = eta * gaussian.posterior(schedule, X, x0, t, s).variance.sqrt()
    wanted = alpha_s * x0 + (sigma_s**2 - std**2).clamp(min=0).sqrt() * eps + std
    got = one_step(ddim(schedule, eta), schedule, t, s)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-6)


@times
def test_ddim_with_eta_one_is_ddpm(schedule, t, s, eta):
    """Two formulas, one step: coefficients to rounding, amplified by 1 / sigma_t < 20."""
    t, s = time_at(schedule, t), time_at(schedule, s)
    left = one_step(ddim(schedule, 1), schedule, t, s)
    right = one_step(ddpm(schedule), schedule, t, s)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@times
def test_euler_is_euler_in_the_variable_of_karras(schedule, t, s, eta):
    """y + (r_s - r_t) dy/dr with y = x / alpha, r = sigma / alpha, where alpha_t > 0; ddim(0)."""
    t, s = time_at(schedule, min(t, 0.95)), time_at(schedule, s)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    y, r = X / alpha_t, sigma_t / alpha_t
    slope = (y - MIXTURE.posterior_mean(schedule, X, t)) / r
    wanted = alpha_s * (y + (sigma_s / alpha_s - r) * slope)
    got = one_step(euler(schedule), schedule, t, s, source=forbidden_noise)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)
    same = one_step(ddim(schedule), schedule, t, s, source=forbidden_noise)
    torch.testing.assert_close(got, same, rtol=1e-14, atol=1e-14)


@times
def test_heun_is_edm_s_algorithm_1(schedule, t, s, eta):
    """Lines 4-8 in y = x / alpha and r = sigma / alpha, with line 6's exception for sigma_s = 0."""
    t, s = time_at(schedule, min(t, 0.95)), time_at(schedule, s)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    y, r_t, r_s = X / alpha_t, sigma_t / alpha_t, sigma_s / alpha_s
    d = (y - MIXTURE.posterior_mean(schedule, X, t)) / r_t
    wanted = y + (r_s - r_t) * d
    if r_s > 0:
        after = (wanted - MIXTURE.posterior_mean(schedule, alpha_s * wanted, s)) / r_s
        wanted = y + (r_s - r_t) * (d + after) / 2
    got = one_step(heun(schedule), schedule, t, s, source=forbidden_noise)
    torch.testing.assert_close(got, alpha_s * wanted, rtol=1e-10, atol=1e-10)


@times
def test_dpmpp_2m_is_algorithm_2(schedule, t, s, eta):
    """D = (1 + 1/(2r)) x0 - 1/(2r) x0_before, r = h_before / h, in lambda = log(alpha / sigma)."""
    before, t, s = (time_at(schedule, part) for part in (0.97, min(t, 0.7), max(s, 0.05)))
    lam = {u: (schedule(u)[0] / schedule(u)[1]).log() for u in (before, t, s)}
    h, h_before = lam[s] - lam[t], lam[t] - lam[before]
    x0, x0_before = MIXTURE.posterior_mean(schedule, X, t), X.flip(0)
    r = h_before / h
    D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
    (alpha_s, sigma_s), (_, sigma_t) = schedule(s), schedule(t)
    wanted = sigma_s / sigma_t * X - alpha_s * ((-h).exp() - 1) * D
    history = ((before, x0_before),)
    got = one_step(dpmpp_2m(schedule), schedule, t, s, X, MIXTURE, forbidden_noise, history)
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_dpmpp_2m_does_not_invert_its_ratio():
    """h_before / (2 h) for h / (2 h_before) is another step, though it has the same order.

    (Each step then makes its neighbour's error, which no fitted order can see.)
    """
    schedule, (before, t, s) = VPLinear(), f64(0.9, 0.6, 0.5)
    h, h_before = (
        schedule.log_snr(s) - schedule.log_snr(t),
        schedule.log_snr(t) - schedule.log_snr(before),
    )
    x0, x0_before = MIXTURE.posterior_mean(schedule, X, t), X.flip(0)
    got = one_step(dpmpp_2m(schedule), schedule, t, s, history=((before, x0_before),))

    def with_factor(factor):
        D = x0 + factor * (x0 - x0_before)
        alpha_s, sigma_s = schedule(s)
        return alpha_s * D + sigma_s * prediction.eps_from_x0(schedule, X, D, t)

    torch.testing.assert_close(got, with_factor(h / (2 * h_before)), rtol=1e-12, atol=1e-12)
    assert (got - with_factor(h_before / (2 * h))).abs().max() > 1e-2


@times
def test_dpmpp_2m_starts_and_ends_with_order_one(schedule, t, s, eta):
    """Without a past, out of pure noise, and into s = 0 (lambda infinite), it is ddim(0)."""
    t, s, zero = time_at(schedule, t), time_at(schedule, s), f64(0)[0]
    step = dpmpp_2m(schedule)
    first = one_step(step, schedule, t, s)
    same = one_step(ddim(schedule), schedule, t, s)
    torch.testing.assert_close(first, same, rtol=1e-12, atol=1e-12)
    early = time_at(schedule, 1.0)
    t = time_at(schedule, 0.5)
    last = one_step(step, schedule, t, zero, history=((early, X.flip(0)),))
    torch.testing.assert_close(last, MIXTURE.posterior_mean(schedule, X, t), rtol=0, atol=0)


# What every solver owes at the ends.


@pytest.mark.parametrize("name", SOLVERS)
@by_name
def test_the_last_step_returns_the_prediction_without_noise(name, schedule):
    """C20: into s = 0 the answer is E[x_0 | x_t] exactly, and no normal is drawn (z = 0)."""
    t, zero = time_at(schedule, 0.5), f64(0)[0]
    got = one_step(SOLVERS[name](schedule), schedule, t, zero, source=forbidden_noise)
    torch.testing.assert_close(got, MIXTURE.posterior_mean(schedule, X, t), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("schedule", [RectifiedFlow(), VPCosine()], ids=["flow", "cosine"])
def test_pure_noise_is_a_legal_start(name, schedule):
    """alpha_T = 0: log-SNR is -inf and x / alpha is infinite, yet the walk to 0 is finite."""
    grid = torch.linspace(1, 0, 11, dtype=torch.float64)
    source = noise.from_seeds([1, 2, 3])
    end = final(SOLVERS[name](schedule), MIXTURE.denoiser(schedule), X, grid, source)
    assert end.isfinite().all()


@pytest.mark.parametrize(("name", "calls"), [("heun", 9), ("dpmpp_2m", 5), ("ddpm", 5)])
def test_calls_of_the_denoiser(name, calls):
    """Five steps to t = 0: one call a step, and Heun's second in all but the last."""
    schedule, seen = VPLinear(), []

    def denoise(x, t):
        seen.append(t.item())
        return MIXTURE.posterior_mean(schedule, x, t)

    grid = GRIDS["trailing"](schedule, 5)
    list(trajectory(SOLVERS[name](schedule), denoise, X, grid, noise.zeros))
    assert len(seen) == calls
    assert min(seen) > 0


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_the_unit_interval(eta):
    """It is rejected when the step is made."""
    with pytest.raises(ValueError, match=r"eta: wanted a number in \[0, 1\]"):
        ddim(VPLinear(), eta)


# Marginals: with a known x_0, a step carries q(x_t | x_0) into q(x_s | x_0) exactly.


@times
def test_steps_preserve_the_marginals(schedule, t, s, eta):
    """C09: DDIM's Lemma 1 for any s < t and any eta, to 1e-13 of sigma_t <= 10."""
    t, s = time_at(schedule, t), time_at(schedule, s)
    for step in (ddpm(schedule), ddim(schedule, eta), euler(schedule), dpmpp_2m(schedule)):
        assert marginal_error(step, schedule, t, s) < 1e-12
    if schedule(t)[0] > 0:
        assert marginal_error(heun(schedule), schedule, t, s) < 1e-12


def wrong_ddpm(change):
    """A DDPM step on a discrete schedule, from the paper's formula, with one thing `change`d."""

    def make(schedule):
        def step(denoise, state, t, s, noise):
            parts = {"s": s, "of_variance": lambda v: v.sqrt(), "noisy_end": False, "sign": 1}
            parts.update(change(t, s))
            x0 = denoise(state.x, t)
            q = gaussian.posterior(schedule, state.x, x0, t, parts["s"])
            variance = q.variance
            if parts.get("variance_at") is not None:
                variance = gaussian.posterior(schedule, state.x, x0, *parts["variance_at"]).variance
            if parts["noisy_end"] and s == 0:
                variance = gaussian.transition(schedule, state.x, s, t).variance
            z = noise(state.x, t, s)
            mean = q.mean if parts["sign"] == 1 else 2 * state.x - q.mean
            return State(mean + parts["of_variance"](variance) * z, s)

        return step

    return make


WRONG_STEPS = {
    "previous time guessed from the current": wrong_ddpm(lambda t, s: {"s": t - 1}),
    "variance for deviation": wrong_ddpm(lambda t, s: {"of_variance": lambda v: v}),
    "noise in the last step": wrong_ddpm(lambda t, s: {"noisy_end": True}),
    "variance of the wrong index": wrong_ddpm(
        lambda t, s: {"variance_at": (t + 1, s + 1) if t < 40 else (t - 1, s)}
    ),
    "flipped sign": wrong_ddpm(lambda t, s: {"sign": -1}),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_wrong_ancestral_steps_lose_the_marginals(name):
    """C09, C20: each is off by 1e-3 or more at some (t, s) where the right one is not."""
    schedule = Discrete.scaled_linear(40, 0.01, 0.2)
    pairs = [(f64(t)[0], f64(s)[0]) for t, s in [(40, 20), (20, 8), (3, 0), (1, 0)]]
    assert max(marginal_error(ddpm(schedule), schedule, t, s) for t, s in pairs) < 1e-12
    wrong = WRONG_STEPS[name](schedule)
    assert max(marginal_error(wrong, schedule, t, s) for t, s in pairs) > 1e-3
