"""The forward process's four Gaussians, by composition and by Bayes: C02-C05, C16, E4.

Tolerances: a transition's variance is sigma_t^2 (1 - SNR_t / SNR_s); both log-SNRs carry some
EPS (1 + |log-SNR|), over their difference (C02's beta where that is small). `rounding` below.
"""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.gaussian import forward_step, marginal, posterior, transition
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.testing.strategies import betas, grids
from tests.support.measuring import Measured

EPS = torch.finfo(torch.float64).eps
TINY = 1e-300  # below it float64 is subnormal and a relative bound has no meaning
SCHEDULES: list[Schedule] = [
    Discrete.linear(), Discrete.cosine(20), VPLinear(), VPCosine(), VE(), RectifiedFlow()
]  # fmt: skip
tables = betas(steps=(1, 30), values=(1e-6, 0.99))


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def times(schedule: Schedule, data: st.DataObject, count: int, clean: bool = True) -> list[float]:
    """`count` increasing times, the ends among the possible ones, at least T / 1000 apart."""
    steps = (count + 1, count + 1)
    grid = data.draw(grids(schedule, steps=steps, ratio=200)).flip(0).tolist()
    first = data.draw(st.integers(0 if clean else 1, 2))
    return [float(t) for t in grid[first : first + count]]


def rounding(schedule: Schedule, s: float, t: float) -> float:
    """A relative bound on the rounding of sigma_{t|s}^2, as the module's docstring says it."""
    if s == 0:
        return 64 * EPS
    below, above = schedule.log_snr(t).item(), schedule.log_snr(s).item()
    if math.isinf(below):
        return 64 * EPS
    return 64 * EPS * (1 + (1 + abs(below) + abs(above)) / min(1.0, above - below))


@given(tables, st.floats(-10, 10), st.data())
def test_t_forward_steps_are_the_marginal(
    values: torch.Tensor, x0: float, data: st.DataObject
) -> None:
    """C02 iterated is C05: mean a m, variance a^2 v + beta, t times, from N(x_0, 0)."""
    schedule = Discrete(values)
    t = data.draw(st.integers(1, len(values)))
    mean, variance = vector(x0), vector(0.0)
    for i in range(1, t + 1):
        step = forward_step(schedule, mean, i)
        factor = forward_step(schedule, vector(1.0), i).mean
        mean, variance = step.mean, factor.square() * variance + step.variance
    exact = marginal(schedule, vector(x0), t)
    bound = 16 * EPS * (t + 1 + schedule.log_snr(t).abs().item())
    assert torch.allclose(mean, exact.mean, rtol=bound, atol=TINY)
    assert torch.allclose(variance, exact.variance, rtol=bound, atol=TINY)


@pytest.mark.claim("C05", "diffusion_math.gaussian.marginal")
def test_a_thousand_forward_steps_are_the_marginal(measured: Measured) -> None:
    """The same over DDPM's and Stable Diffusion's tables, at every t in 1..1000."""
    for schedule in (Discrete.linear(), Discrete.scaled_linear(), Discrete.cosine()):
        mean, variance = 1.0, 0.0
        steps = torch.arange(1, 1001)
        closed = marginal(schedule, torch.ones(1000).double(), steps)
        for t, beta in enumerate(schedule.betas.tolist()):
            mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
            off = abs(closed.mean[t] / mean - 1), abs(closed.variance[t] / variance - 1)
            measured(float(max(off)), 2000 * EPS, "relative error of mean and variance: 2 a step")


@pytest.mark.claim("C02", "diffusion_math.gaussian.forward_step")
@given(tables, st.floats(-10, 10), st.data())
def test_a_forward_step_is_the_transition_between_neighbours(
    measured: Measured, values: torch.Tensor, x: float, data: st.DataObject
) -> None:
    """C02: beta_t itself, out of the table and out of the log-SNRs."""
    schedule = Discrete(values)
    t = data.draw(st.integers(1, len(values)))
    exact, got = forward_step(schedule, vector(x), t), transition(schedule, vector(x), t - 1, t)
    beta = float(values[t - 1])
    wanted = math.sqrt(1 - beta) * x
    error = abs(exact.mean.item() - wanted) / max(abs(wanted), TINY)
    measured(error, 2 * EPS, "relative error of the mean: a root and a product; beta_t is exact")
    assert exact.variance.item() == beta
    bound = rounding(schedule, t - 1, t)
    assert torch.allclose(got.mean, exact.mean, rtol=bound, atol=TINY)
    assert torch.allclose(got.variance, exact.variance, rtol=bound, atol=TINY)


@pytest.mark.claim("C04", "diffusion_math.gaussian.transition")
@given(st.sampled_from(SCHEDULES), st.data(), st.floats(-10, 10))
def test_transitions_compose(
    measured: Measured, schedule: Schedule, data: st.DataObject, x: float
) -> None:
    """C04 for any r < s < t: q(t|s) after q(s|r) is q(t|r); r = 0 gives C05."""
    r, s, t = times(schedule, data, 3)
    first, whole = transition(schedule, vector(x), r, s), transition(schedule, vector(x), r, t)
    second = transition(schedule, first.mean, s, t)
    factor = transition(schedule, vector(1.0), s, t).mean
    bound = sum(rounding(schedule, *pair) for pair in ((r, s), (s, t), (r, t)))
    assert torch.allclose(second.mean, whole.mean, rtol=bound, atol=TINY)
    variance = second.variance + factor.square() * first.variance
    off = (variance - whole.variance).abs() / (bound * whole.variance + TINY)
    measured(off.item(), 1, "error of the variance, in units of the log-SNRs' rounding")
    if r == 0:
        exact = marginal(schedule, vector(x), t)
        assert torch.equal(whole.mean, exact.mean)
        assert torch.allclose(whole.variance, exact.variance, rtol=4 * EPS, atol=TINY)


@pytest.mark.claim("C11", "diffusion_math.gaussian.posterior")
@given(st.sampled_from(SCHEDULES), st.data(), st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_posterior_is_bayes(
    measured: Measured, schedule: Schedule, data: st.DataObject, x: list[float]
) -> None:
    """C16 by C11: q(x_t|x_s) q(x_s|x_0) / q(x_t|x_0) as log-densities in 50 digits, at several x_s.

    Three points fix a quadratic, five over-determine it: mean and variance are both tested."""
    s, t = times(schedule, data, 2, clean=False)
    x_t, x0 = x[0], x[1]
    q = posterior(schedule, vector(x_t), vector(x0), t, s)
    mean, variance = mpf(q.mean.item()), mpf(q.variance.item())
    alpha_s, sigma_s = (mpf(c.item()) for c in schedule(s))
    alpha_t, sigma_t = (mpf(c.item()) for c in schedule(t))
    ratio = alpha_t / alpha_s

    def log_normal(x: mpf, mean: mpf, variance: mpf) -> mpf:
        return -((x - mean) ** 2) / variance / 2 - mpmath.log(2 * mpmath.pi * variance) / 2

    step = sigma_t**2 - ratio**2 * sigma_s**2
    # The coefficients are float64, so 1e-16 / step of relative error is in this reference too.
    bound = float(rounding(schedule, s, t)) + 64 * EPS * float(sigma_t**2 / step)
    for k in (-2, -1, 0, 1, 2):
        x_s = mean + k * mpmath.sqrt(variance)
        bayes = (
            log_normal(mpf(x_t), ratio * x_s, step)
            + log_normal(x_s, alpha_s * mpf(x0), sigma_s**2)
            - log_normal(mpf(x_t), alpha_t * mpf(x0), sigma_t**2)
        )
        # A relative error e of the mean moves the log-density by e |mean| / std.
        size = 10 + 20 * (abs(mean) + 10) / mpmath.sqrt(variance)
        off = abs(log_normal(x_s, mean, variance) - bayes) / (bound * (1 + float(size)) * 20)
        measured(float(off), 1, "error of the log-density, in units of its inputs' rounding")


@pytest.mark.claim("C16", "diffusion_math.gaussian.posterior")
@given(tables, st.floats(-5, 5), st.floats(-5, 5), st.data())
def test_posterior_is_ddpms(
    measured: Measured, values: torch.Tensor, x0: float, eps: float, data: st.DataObject
) -> None:
    """C16 with E4 corrected: mu = (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(1 - beta_t), and
    beta_hat = (1 - abar_{t-1}) / (1 - abar_t) beta_t, in 50 digits; wrong versions fail."""
    schedule = Discrete(values)
    t = data.draw(st.integers(1, len(values)))
    b = [mpf(v) for v in values[:t].tolist()]
    abar, before = mpmath.fprod(1 - v for v in b), mpmath.fprod(1 - v for v in b[:-1])
    x_t = float(mpmath.sqrt(abar) * x0 + mpmath.sqrt(1 - abar) * eps)
    got = posterior(schedule, vector(x_t), vector(x0), t, t - 1)
    mean = (x_t - b[-1] / mpmath.sqrt(1 - abar) * eps) / mpmath.sqrt(1 - b[-1])
    variance = (1 - before) / (1 - abar) * b[-1]
    bound = rounding(schedule, t - 1, t)
    # mu is a difference in this form: its rounding is that of its two terms.
    scale = (abs(x_t) + abs(eps) + abs(x0)) / math.sqrt(1 - float(b[-1]))
    off = abs(got.mean.item() - float(mean)) / (bound * scale + TINY)
    spread = abs(got.variance.item() - float(variance)) / (bound * float(variance) + TINY)
    measured(max(off, spread), 1, "error of mu_hat and beta_hat, in units of their rounding")
    if t == 1:
        assert got.mean.item() == x0
        assert got.variance.item() == 0


def _posterior_parts() -> dict[str, tuple[float, float]]:
    """Wrong (mean, variance) at betas (0.2, 0.3), t = 2, x_0 = 1, eps = -0.5."""
    b, abar, before = 0.3, 0.8 * 0.7, 0.8
    eps, x_t = -0.5, math.sqrt(abar) + math.sqrt(1 - abar) * -0.5
    mean = (x_t - b / math.sqrt(1 - abar) * eps) / math.sqrt(1 - b)
    variance = (1 - before) / (1 - abar) * b
    return {
        "right": (mean, variance),
        "sign of eps": ((x_t + b / math.sqrt(1 - abar) * eps) / math.sqrt(1 - b), variance),
        "lost root in the mean": ((x_t - b / (1 - abar) * eps) / math.sqrt(1 - b), variance),
        "E4: 1 - alpha_t for 1 - abar_t": ((x_t - b / math.sqrt(b) * eps) / 0.7**0.5, variance),
        "lost division": (x_t - b / math.sqrt(1 - abar) * eps, variance),
        "variance beta_t": (mean, b),
        "variance without its root... squared": (mean, variance**0.5),
        "s for t": (mean, (1 - abar) / (1 - before) * b),
        "one step off": (mean, (1 - before) / (1 - abar) * 0.2),
    }


@pytest.mark.parametrize("name", _posterior_parts())
def test_wrong_posteriors_are_rejected(name: str) -> None:
    """C16, E4."""
    schedule = Discrete(vector(0.2, 0.3))
    x_t = math.sqrt(0.56) + math.sqrt(0.44) * -0.5
    got = posterior(schedule, vector(x_t), vector(1.0), 2, 1)
    mean, variance = _posterior_parts()[name]
    fits = math.isclose(got.mean.item(), mean, rel_tol=1e-12) and math.isclose(
        got.variance.item(), variance, rel_tol=1e-12
    )
    assert fits == (name == "right")


@pytest.mark.claim("E4", "diffusion_math.gaussian.marginal")
def test_the_printed_marginal_variance_is_rejected(measured: Measured) -> None:
    """E4: q(x_t|x_0) has variance 1 - abar_t; the printed 1 - alpha_t is right at t = 1 only."""
    schedule = Discrete(vector(0.2, 0.3))
    assert marginal(schedule, vector(0.0), 1).variance.item() == pytest.approx(0.2, rel=8 * EPS)
    variance = marginal(schedule, vector(0.0), 2).variance.item()
    measured(abs(variance / 0.44 - 1), 8 * EPS, "relative error of 1 - abar_2: rounding")
    assert variance != pytest.approx(0.3, rel=0.1)


@pytest.mark.claim("C03", "diffusion_math.gaussian.transition")
@given(st.sampled_from(SCHEDULES), st.data(), st.floats(0, 4))
def test_variance_is_preserved_where_the_name_says_so(
    measured: Measured, schedule: Schedule, data: st.DataObject, variance: float
) -> None:
    """C03: with Var x_s = 1, Var x_t = 1 under VP; plain addition (VE) adds t^2 - s^2. A variance
    other than 1 moves towards 1 under VP."""
    s, t = times(schedule, data, 2)
    q = transition(schedule, vector(1.0), s, t)
    after = (q.mean.square() + q.variance).item()
    if isinstance(schedule, VE):
        assert after == pytest.approx(1 + t**2 - s**2, rel=rounding(schedule, s, t))
    elif not isinstance(schedule, RectifiedFlow):
        off = abs(after - 1) / rounding(schedule, s, t)
        measured(off, 1, "error of the unit variance, in units of the log-SNRs' rounding")
        moved = (q.mean.square() * variance + q.variance).item()
        assert abs(moved - 1) <= abs(variance - 1) + rounding(schedule, s, t)


@given(st.sampled_from(SCHEDULES), st.floats(-5, 5), st.floats(-5, 5), st.data())
def test_the_ends_are_exact(schedule: Schedule, x_t: float, x0: float, data: st.DataObject) -> None:
    (t,) = times(schedule, data, 1, clean=False)
    end = posterior(schedule, vector(x_t), vector(x0), t, 0)
    assert end.mean.item() == x0
    assert end.variance.item() == 0
    clean = marginal(schedule, vector(x0), 0)
    assert (clean.mean.item(), clean.variance.item()) == (x0, 0)
    if schedule(schedule.T)[0] == 0:  # x_T holds nothing of x_0 nor of x_s
        far = posterior(schedule, vector(x_t), vector(x0), schedule.T, 0.5)
        exact = marginal(schedule, vector(x0), 0.5)
        assert far.mean.item() == pytest.approx(exact.mean.item(), rel=4 * EPS)
        assert far.variance.item() == pytest.approx(exact.variance.item(), rel=4 * EPS)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s}"[:9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_times_is_its_rows(schedule: Schedule, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, x0 = (torch.randn(3, 2, 2, generator=generator, dtype=dtype) for _ in range(2))
    t = torch.tensor([1.0, 0.8, 0.5], dtype=torch.float64) * schedule.T
    s = torch.tensor([0.6, 0.0, 0.1], dtype=torch.float64) * schedule.T
    for batched, rows in (
        (marginal(schedule, x0, t), [marginal(schedule, x0[i : i + 1], t[i]) for i in range(3)]),
        (
            transition(schedule, x, s, t),
            [transition(schedule, x[i : i + 1], s[i], t[i]) for i in range(3)],
        ),
        (
            posterior(schedule, x, x0, t, s),
            [posterior(schedule, x[i : i + 1], x0[i : i + 1], t[i], s[i]) for i in range(3)],
        ),
    ):
        assert batched.mean.dtype == batched.variance.dtype == dtype
        assert batched.variance.shape == (3, 1, 1)
        for i, row in enumerate(rows):
            assert torch.equal(batched.mean[i : i + 1], row.mean)
            assert torch.equal(batched.variance[i].reshape(()), row.variance)
    assert posterior(schedule, x[:0], x0[:0], t[0], s[0]).mean.shape == (0, 2, 2)


@pytest.mark.usefixtures("unchecked")
def test_illegal_arguments() -> None:
    x, schedule = torch.ones(2, 3), VPCosine()
    for s, t in ((0.5, 0.5), (0.1, 0.1), (0.7, 0.7), (0.6, 0.5), (math.nan, 0.5)):
        with pytest.raises(ValueError, match=r"^s: wanted s < t"):
            transition(schedule, x, s, t)
        with pytest.raises(ValueError, match=r"^s: wanted s < t"):
            posterior(schedule, x, x, t, s)
    with pytest.raises(ValueError, match=r"^t: wanted"):
        marginal(schedule, x, 1.5)
    for t in (0, 11, -1):
        with pytest.raises(ValueError, match=r"^t: wanted a whole number"):
            forward_step(Discrete.linear(10), x, t)
    with pytest.raises(ValueError, match="wanted shape"):
        posterior(schedule, x, x[:1], 0.5, 0.1)
