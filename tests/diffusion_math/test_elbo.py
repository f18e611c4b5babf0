"""The bound's terms one by one: the step's closed forms, the variances, lambda_t, the whole."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math import noise, prediction
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.elbo import (
    Bound,
    bound,
    lambda_t,
    prior_term,
    quantized_log_probability,
    reconstruction_term,
    reverse_step,
    step_term,
)
from diffusion_math.gaussian import Gaussian, forward_step, kl, marginal, posterior
from diffusion_math.grid import trailing
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.testing.strategies import betas, events
from diffusion_math.variance import (
    constant_variance,
    large_variance,
    optimal_variance,
    small_variance,
)
from tests.support.mixtures import normal, seeded

EPS = torch.finfo(torch.float64).eps
CONTINUOUS = [VPLinear(), VPCosine(), VE(), RectifiedFlow()]
VARIANCES = {
    "small": small_variance,
    "large": large_variance,
    "optimal": optimal_variance(0.3),
    "constant": constant_variance(0.7),
}

tables = betas(steps=(2, 8), values=(1e-3, 0.6)).map(Discrete)


def at(value):
    return torch.tensor(value, dtype=torch.float64)


def network(x_t, time):
    """No good denoiser, but a smooth function of all it sees."""
    return torch.sin(1.3 * x_t + time.reshape(-1, *[1] * (x_t.ndim - 1))) + 0.2 * x_t


def wild(x_t, t):
    """The same as a denoiser."""
    return network(x_t, t.to(x_t).expand(len(x_t)))


def squared(x):
    return x.square()[:, None].flatten(1).sum(1)


def draw(schedule, t, event=(2,), batch=3, seed=0):
    generator = seeded(seed)
    x0, eps = normal(generator, batch, *event), normal(generator, batch, *event)
    return x0, eps, marginal(schedule, x0, t).sample(eps)


@pytest.mark.claim("C18", "diffusion_math.elbo.lambda_t")
@settings(max_examples=40)
@given(tables, st.data(), events(dims=(0, 2), sides=(1, 2)), st.integers(0, 999))
def test_c18_the_step_term_is_a_weighted_error_in_eps(measured, schedule, data, event, seed):
    """C18 per example and draw: L = lambda_t norm(eps - eps_theta)^2 + D (r - 1 - log r) / 2.

    The two sides share no line: the left is a KL of two posteriors, the right is DDPM's eq. 12.
    The means' rounding, EPS, stands against the error times beta >= 1e-3: relative 1e-9 is ample.
    """
    t = data.draw(st.integers(2, int(schedule.T)))
    name = data.draw(st.sampled_from(list(VARIANCES)))
    x0, eps, x_t = draw(schedule, t, event, seed=seed)
    eps_theta = network(x_t, at([float(t)]))

    def denoise(x, time):
        return prediction.x0_from_eps(schedule, x, eps_theta, time)

    got = step_term(schedule, denoise, x0, x_t, t, t - 1, VARIANCES[name])
    v = VARIANCES[name](schedule, t, t - 1)
    r = small_variance(schedule, t, t - 1) / v
    constant = math.prod(event) * (r - 1 - r.log()) / 2
    weight, error = lambda_t(schedule, t, VARIANCES[name]), squared(eps - eps_theta)
    off = (got - weight * error - constant).abs() / (0.01 + got.abs())
    measured(off.max(), 1e-9, "relative error of the step's KL: EPS / beta, and a margin")


def test_c18_wrong_weights_are_rejected():
    """Each is off by more than 1% where the equality above holds to 1e-9."""
    schedule, t, v = Discrete(at([0.1, 0.3, 0.5])), 3, at(0.7)
    x0, eps, x_t = draw(schedule, t)
    got = step_term(schedule, wild, x0, x_t, t, t - 1, constant_variance(0.7))
    error = squared(eps - prediction.eps_from_x0(schedule, x_t, wild(x_t, at(3.0)), t))
    r = small_variance(schedule, t, t - 1) / v
    rest = got - (r - 1 - r.log())  # D = 2
    beta, abar = schedule.betas[t - 1], schedule(t)[0].square()
    before, weight = schedule(t - 1)[0].square(), lambda_t(schedule, t, constant_variance(0.7))
    torch.testing.assert_close(rest, weight * error, rtol=1e-11, atol=0)
    wrong = {
        "beta for beta^2": weight / beta,
        "lost half": 2 * weight,
        "v for its square root": weight * v.sqrt(),
        "without 1 - beta": weight * (1 - beta),
        "E4, 1 - alpha for 1 - abar": weight * (1 - abar) / beta,
        "abar of t - 1": weight * (1 - abar) / (1 - before),
    }
    for what, other in wrong.items():
        assert not torch.allclose(rest, other * error, rtol=1e-2), what


def test_c18_at_ddpm_s_own_table():
    """T = 1000, a batch of times, and both ends: lambda_1 = 1 / (2 (1 - beta_1))."""
    schedule = Discrete.linear()
    times = at([1.0, 2.0, 500.0, 1000.0])
    beta = schedule.betas[times.long() - 1]
    abar = torch.cumprod(1 - schedule.betas, 0)[times.long() - 1]
    wanted = beta / (2 * (1 - beta) * (1 - abar))  # v = beta
    torch.testing.assert_close(lambda_t(schedule, times), wanted, rtol=1e-9, atol=0)
    assert lambda_t(schedule, 1).item() == pytest.approx(0.5 / (1 - 1e-4), rel=1e-9)
    shorter = lambda_t(schedule, times[1:], small_variance)
    assert bool((shorter > lambda_t(schedule, times[1:])).all())  # beta_hat < beta
    for bad in (0, 1001, 1.5):
        with pytest.raises(ValueError, match=r"^t: wanted"):
            lambda_t(schedule, bad)
    with pytest.raises(ValueError, match="variance: wanted v > 0"):
        lambda_t(schedule, 1, small_variance)


@pytest.mark.claim("C17", "diffusion_math.elbo.step_term")
@settings(max_examples=20)
@given(tables, st.data(), st.floats(0.01, 3))
def test_c17_at_a_shared_variance_only_the_means_count(measured, schedule, data, value):
    """C17: L - norm(mu_hat - mu_theta)^2 / (2 v) is one constant for all denoisers and draws."""
    t = data.draw(st.integers(2, int(schedule.T)))
    x0, _, x_t = draw(schedule, t)
    mu_hat = posterior(schedule, x_t, x0, t, t - 1).mean
    rests = []
    for denoise in (wild, lambda x, t: 0 * x, lambda x, t: 3 - x):
        mu_theta = posterior(schedule, x_t, denoise(x_t, at(float(t))), t, t - 1).mean
        got = step_term(schedule, denoise, x0, x_t, t, t - 1, constant_variance(value))
        rests.append(got - squared(mu_hat - mu_theta) / (2 * value))
        lost_half = squared(mu_hat - mu_theta) / value + rests[0]
        assert not torch.allclose(got, lost_half, rtol=0, atol=1e-10)
    rests = torch.stack(rests)
    off = (rests - rests[0, 0]).abs() / (1 + rests[0, 0].abs())
    measured(off.max(), 1e-10, "spread of the constant over models and draws, relative")


@pytest.mark.parametrize("schedule", [*CONTINUOUS, Discrete.linear(20)], ids=lambda s: repr(s)[:8])
@pytest.mark.parametrize("parts", [(1.0, 0.4), (0.5, 0.45), (0.2, 0.1)])
def test_at_the_small_variance_it_is_a_difference_of_snr(schedule, parts):
    """L = (snr(s) - snr(t)) norm(x0 - x0_hat)^2 / 2 for any s < t, neighbours or not.

    Tolerance: the difference of two log-SNRs of size 10 keeps EPS 10 / 0.1, the posterior's sum of
    two terms another EPS norm(x)^2 sigma_t^2 / sigma_s^2: 1e-10 relative.
    """
    t, s = (part * schedule.T for part in parts)
    x0, _, x_t = draw(schedule, t)
    got = step_term(schedule, wild, x0, x_t, t, s, small_variance)
    snr = [schedule.log_snr(time).exp() for time in (s, t)]
    error = squared(x0 - wild(x_t, at(t)))
    torch.testing.assert_close(got, (snr[0] - snr[1]) * error / 2, rtol=1e-10, atol=1e-12)
    for wrong in ((snr[0] - snr[1]) * error, (snr[0].sqrt() - snr[1].sqrt()) * error / 2):
        assert not torch.allclose(got, wrong, rtol=1e-3)


@pytest.mark.parametrize("schedule", [*CONTINUOUS, Discrete.linear(20)], ids=lambda s: repr(s)[:8])
@settings(max_examples=10)
@given(c=st.floats(0, 10), parts=st.sampled_from([(1.0, 0.5), (0.5, 0.45), (0.05, 0.0)]))
def test_the_optimal_variance_is_bayes_rule_s(schedule, c, parts):
    """It and the step's mean are those of the oracle's q(x_s | x_t) for data N(m, c I)."""
    t, s = (part * schedule.T for part in parts)
    data = GaussianMixture(torch.zeros(1), normal(seeded(1), 1, 2), at(c)[None])
    x_t = normal(seeded(2), 1, 2)
    kernel = data.reverse(schedule, x_t[0], t, s)
    got = optimal_variance(c)(schedule, t, s)
    torch.testing.assert_close(got, kernel.covariances[0], rtol=1e-9, atol=0)
    if got > 0:  # not so into s = 0 where c is 0, or as good as 0: 5e-324 halved is 0
        p = reverse_step(schedule, data.denoiser(schedule), x_t, t, s, optimal_variance(c))
        torch.testing.assert_close(p.mean, kernel.means, rtol=1e-9, atol=1e-10)


@settings(max_examples=40)
@given(tables, st.data(), st.floats(0, 1))
def test_the_variances_are_ordered(schedule, data, c):
    """beta_hat = optimal(0) <= optimal(c) <= optimal(1) = beta for c in [0, 1], and rising in c."""
    t = data.draw(st.integers(1, int(schedule.T)))
    at_each = (0.0, c, 1.0, 1.5)
    values = torch.stack([optimal_variance(x)(schedule, t, t - 1) for x in at_each])
    # Two variances that differ by less than their rounding may come out in either order.
    assert bool((values.diff() >= -16 * torch.finfo(values.dtype).eps * values[1:]).all())
    if 0.01 < c < 0.99 and schedule.betas[t - 1] > 0.01:
        assert values[0] < values[1] < values[2] < values[3]
    beta, abar, before = schedule.betas[t - 1], schedule(t)[0] ** 2, schedule(t - 1)[0] ** 2
    torch.testing.assert_close(values[0], beta * (1 - before) / (1 - abar), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(values[2], beta, rtol=1e-9, atol=0)
    assert small_variance(schedule, t, t - 1) == values[0]
    one_step = forward_step(schedule, torch.ones(1, dtype=torch.float64), t).variance
    torch.testing.assert_close(large_variance(schedule, t, t - 1), one_step, rtol=1e-9, atol=0)


def test_times_of_a_batch_are_taken_row_by_row():
    """t and s of shape (batch,) give what each row gives alone, for every variance."""
    schedule, t, s = VPLinear(), at([0.9, 0.5, 0.3]), at([0.2, 0.4, 0.1])
    x0, _, x_t = draw(schedule, t, (2, 1))
    for variance in VARIANCES.values():
        got = step_term(schedule, wild, x0, x_t, t, s, variance)
        rows = [
            step_term(schedule, wild, x0[[i]], x_t[[i]], t[i], s[i], variance) for i in range(3)
        ]
        torch.testing.assert_close(got, torch.cat(rows), rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", [Discrete.linear(1), Discrete.linear(1000), VPLinear()])
def test_c14_the_prior_term_knows_no_model(schedule):
    """C14: L_T = sum (abar x^2 + (1 - abar) - 1 - log(1 - abar)) / 2, small where abar is."""
    x0 = 3 * normal(seeded(0), 2, 5)
    abar = schedule(schedule.T)[0].square()
    wanted = (abar * x0.square() - abar - torch.log1p(-abar)).sum(1) / 2
    got = prior_term(schedule, x0)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-14)
    q, p = marginal(schedule, x0, schedule.T), Gaussian(0 * x0, torch.ones(()).double())
    assert not torch.allclose(got, kl(p, q), rtol=1e-6)


def test_the_whole_is_the_sum_of_its_terms():
    """Every node of the grid has its term, at its own draw; none counts twice."""
    schedule, x0 = Discrete.linear(6, 0.05, 0.4), normal(seeded(3), 2, 3)
    grid, source = trailing(schedule, 6), noise.from_seeds([5, 6])
    log_likelihood = Gaussian.log_density
    got = bound(schedule, wild, x0, grid, source, log_likelihood=log_likelihood)
    assert got.steps.shape == (5, 2)

    def x_at(t):
        return marginal(schedule, x0, t).sample(source(x0, t, torch.zeros(())))

    terms = [step_term(schedule, wild, x0, x_at(t), t, s) for t, s in pairwise(grid[:-1])]
    torch.testing.assert_close(got.steps, torch.stack(terms), rtol=0, atol=0)
    last = reconstruction_term(schedule, wild, x0, x_at(grid[-2]), log_likelihood=log_likelihood)
    assert bool((got.reconstruction == last).all())
    x0_hat = wild(x_at(grid[-2]), grid[-2])
    density = Gaussian(x0_hat, schedule.betas[0]).log_density(x0)
    torch.testing.assert_close(last, -density, rtol=1e-9, atol=1e-9)
    wanted = got.prior + sum(terms) + last
    torch.testing.assert_close(got.nats, wanted, rtol=4 * EPS, atol=0)
    bits = wanted / (3 * math.log(2))
    torch.testing.assert_close(got.bits_per_dimension, bits, rtol=4 * EPS, atol=0)
    other = bound(schedule, wild, x0, grid, source, small_variance, log_likelihood=log_likelihood)
    assert not torch.allclose(other.steps, got.steps)
    assert bool((other.reconstruction == got.reconstruction).all())


def test_one_step_one_example_and_none():
    """T = 1 has no middle terms; a batch may be empty, an event (); float32 stays float32."""
    schedule = Discrete.linear(1, 0.3, 0.3)
    for shape in ((1, 2), (0, 2), (3,)):
        x0 = torch.zeros(shape) + 1 / 255
        seeds = range(len(x0))
        got = bound(schedule, wild, x0, trailing(schedule, 1), noise.from_seeds(seeds))
        assert got.steps.shape == (0, len(x0))
        assert got.nats.shape == (len(x0),)
        assert got.nats.dtype == torch.float32
        assert got.dimensions == math.prod(shape[1:])
        assert bool(got.bits_per_dimension.isfinite().all())


def test_a_level_known_exactly_costs_nothing_and_one_unknown_eight_bits():
    """C15: with the oracle's x0 and a tiny variance L_0 = 0; far too wide a Gaussian, bits grow."""
    schedule = Discrete.linear(10, 1e-6, 0.5)
    x0 = (2 * torch.arange(256, dtype=torch.float64) / 255 - 1)[:, None]
    got = reconstruction_term(schedule, lambda x, t: x0, x0, x0)
    assert got.abs().max().item() < 1e-3  # bins are 7.8 standard deviations wide
    p = Gaussian(0 * x0, at(1e6))
    inner = quantized_log_probability(p, x0)[1:-1]
    flat = math.log(2 / 255 / math.sqrt(2 * math.pi) / 1e3)
    torch.testing.assert_close(inner, torch.full_like(inner, flat), rtol=1e-5, atol=0)
    whole = Bound(got, got[None], got, 1)
    torch.testing.assert_close(whole.nats, 3 * got, rtol=4 * EPS, atol=0)


@pytest.mark.usefixtures("unchecked")
def test_illegal_arguments():
    """Each ValueError names its argument."""
    schedule, x0 = Discrete.linear(3), torch.zeros(1, 2, dtype=torch.float64) + 1 / 255
    grid, source = trailing(schedule, 3), noise.zeros
    with pytest.raises(ValueError, match=r"^s: wanted a time > 0"):
        step_term(schedule, wild, x0, x0, 1, 0)
    with pytest.raises(ValueError, match=r"^s: wanted s < t"):
        step_term(schedule, wild, x0, x0, 1, 2)
    with pytest.raises(ValueError, match=r"^variance: wanted v > 0"):
        reconstruction_term(schedule, wild, x0, x0, 1, small_variance)
    for bad in (grid[1:], grid[:-1], grid[:1]):
        with pytest.raises(ValueError, match=r"^grid: wanted nodes from T = 3 to 0"):
            bound(schedule, wild, x0, bad, source)
    with pytest.raises(ValueError, match=r"^grid: wanted a non-empty, strictly decreasing"):
        bound(schedule, wild, x0, grid.flip(0), source)
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^value: wanted"):
            constant_variance(value)
    for value in (-1e-3, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^data_variance: wanted"):
            optimal_variance(value)
    with pytest.raises(ValueError, match=r"^x0's distance from a level: wanted"):
        bound(schedule, wild, x0 + 0.002, grid, source)
