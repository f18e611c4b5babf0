"""The forward process, its reverse and the bound, derived in symbols and compared with the code.

Nothing here starts at the formula it ends at: the inputs are log-densities of the forward process,
and sympy integrates, conditions and expands. The shipped functions are then evaluated at random
numbers and compared with the derivation in 60 digits.

Tolerances are in ulps, EPS = 2^-52, of what a float64 evaluation of the derived terms has at stake,
times what its inputs carry: a schedule hands out alpha and sigma by way of log-SNRs l, each rounded
to EPS (1 + |l|), and 1 - exp(l_t - l_s) carries that over expm1(l_s - l_t).
"""

import math
from functools import cache

import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from sympy import Expr, Symbol, sqrt

from diffusion_math import elbo, gaussian, variance
from diffusion_math.gaussian import Gaussian
from diffusion_math.schedule import Discrete
from diffusion_math.testing import strategies
from tests.support.derivation import (
    exactly,
    integrated,
    is_zero,
    law,
    log_normal,
    product_of_kept,
    size,
    ulps,
    vanishes,
)
from tests.support.tensors import f64

ULPS = 4
tables = strategies.betas(steps=(2, 12), values=(1e-6, 0.99))
spots = st.floats(-5, 5)

# One forward step x_t = a x_s + sqrt(b) eps out of x_s = alpha x_0 + sqrt(v) eps, for any positive
# a, b, alpha, v; DDPM's has a^2 + b = 1 and alpha^2 + v = 1.
a, b, alpha, v = sympy.symbols("a b alpha v", positive=True)
beta, abar, w = sympy.symbols("beta abar w", positive=True)
x_0, x_s, x_t, eps, eps_theta = sympy.symbols("x_0 x_s x_t eps eps_theta", real=True)
STEP = {a: sqrt(1 - beta), b: beta}
DDPM = {**STEP, alpha: sqrt(abar), v: 1 - abar}
ABAR_T = abar * (1 - beta)
X_0 = (x_t - sqrt(1 - ABAR_T) * eps) / sqrt(ABAR_T)
"""x_0 by x_t and eps, out of x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps."""


@cache
def joint() -> Expr:
    """log q(x_s, x_t given x_0): the forward process is a Markov chain, so its factors multiply."""
    return log_normal(x_s, alpha * x_0, v) + log_normal(x_t, a * x_s, b)


@cache
def forward() -> tuple[Expr, Expr]:
    """(mean, variance) of q(x_t given x_0): x_s integrated out of the joint density."""
    return law(integrated(joint(), x_s), x_t)


@cache
def reverse() -> tuple[Expr, Expr]:
    """(mean, variance) of q(x_s given x_t, x_0): the joint density as a quadratic of x_s."""
    return law(joint(), x_s)


@cache
def ddpm_reverse() -> tuple[Expr, Expr]:
    """The same at DDPM's coefficients."""
    mean, variance = (sympy.factor(part.subs(DDPM)) for part in reverse())
    return mean, variance


@cache
def divergence(shared: bool) -> tuple[Expr, tuple[Symbol, Symbol]]:
    """KL(N(m, v), N(n, w)) by integrating density times log-ratio, a monomial at a time; (m, n)."""
    m, n, y = sympy.symbols("m n y", real=True)
    density = sympy.exp(log_normal(y, m, v))
    other = log_normal(y, n, v if shared else w)
    total = sympy.Integer(0)
    for (power,), coefficient in sympy.Poly(log_normal(y, m, v) - other, y).terms():
        moment = sympy.integrate(y**power * density, (y, -sympy.oo, sympy.oo))
        total += coefficient * sympy.simplify(moment)
    return total, (m, n)


@cache
def weight() -> Expr:
    """lambda_t over a shared variance v: C17's KL of `reverse`'s means at eps and at eps_theta.

    Both means have x_0 written through x_t and a noise; the squared difference is divided out.
    """
    kl, (m, n) = divergence(shared=True)
    mu = ddpm_reverse()[0].subs(x_0, X_0)
    between = sympy.simplify(kl.subs({m: mu, n: mu.subs(eps, eps_theta)}, simultaneous=True))
    return sympy.factor(sympy.simplify(between / (eps - eps_theta) ** 2))


def carried(schedule: Discrete, *times: int) -> float:
    """What the coefficients at positive times bring along: 1 + the sum of |log-SNR|."""
    return 1 + sum(schedule.log_snr(t).abs().item() for t in times if t > 0)


def over_a_step(schedule: Discrete, t: int) -> float:
    """The same where the step's own variance, 1 - exp(l_t - l_{t-1}) of sigma_t^2, has a part."""
    fall = (schedule.log_snr(t - 1) - schedule.log_snr(t)).item()
    return carried(schedule, t - 1, t) * (1 + 1 / math.expm1(fall))


def at_step(values: torch.Tensor, t: int) -> dict[Symbol, object]:
    """beta_t and abar_{t-1} of a table."""
    betas = values.tolist()
    return {beta: betas[t - 1], abar: product_of_kept(betas[: t - 1])}


def test_the_gaussian_integral() -> None:
    """What `integrated` and `law` do by completing the square, sympy does by integrating."""
    y, slope, level = sympy.symbols("y slope level", real=True)
    bend = Symbol("bend", positive=True)
    quadratic = -bend * y**2 / 2 + slope * y + level
    mass, first, second = (
        sympy.integrate(y**power * sympy.exp(quadratic), (y, -sympy.oo, sympy.oo))
        for power in range(3)
    )
    mean, variance = law(quadratic, y)
    assert is_zero(mass / sympy.exp(integrated(quadratic, y)) - 1)
    assert is_zero(first / mass - mean)
    assert is_zero(second / mass - mean**2 - variance)


def test_the_identities() -> None:
    """C05's induction, C11, C16 and C18 as equalities of expressions, for every table and point.

    C05: abar_0 = 1 gives N(x_0, 0), and one step more turns abar into abar (1 - beta).
    C11: q(x_t given x_s) q(x_s given x_0) = q(x_s given x_t, x_0) q(x_t given x_0), normalised.
    C16: mu_hat and beta_hat in DDPM's form; E4's variance of x_t in x_0 gives another mean.
    """
    mean, variance = (part.subs(DDPM) for part in forward())
    assert is_zero(mean - sqrt(ABAR_T) * x_0)
    assert is_zero(variance - (1 - ABAR_T))
    assert (mean.subs({abar: 1, beta: 0}), variance.subs({abar: 1, beta: 0})) == (x_0, 0)

    of_x_s = log_normal(x_s, *reverse())
    assert vanishes(joint() - of_x_s - log_normal(x_t, *forward()))
    assert not vanishes(joint() - of_x_s - log_normal(x_t, forward()[0], b))

    mean, variance = ddpm_reverse()
    mu_hat = (x_t - beta / sqrt(1 - ABAR_T) * eps) / sqrt(1 - beta)
    assert is_zero(mean.subs(x_0, X_0) - mu_hat)
    assert is_zero(variance - beta * (1 - abar) / (1 - ABAR_T))
    assert not is_zero(mean.subs(x_0, (x_t - sqrt(beta) * eps) / sqrt(ABAR_T)) - mu_hat)


def test_the_weight_in_symbols() -> None:
    """C17, C18: half a squared distance over v, and lambda_t of (eps - eps_theta)^2; not others."""
    kl, (m, n) = divergence(shared=True)
    assert is_zero(kl - (m - n) ** 2 / (2 * v))
    assert is_zero(divergence(shared=False)[0].subs(w, v) - kl)
    right = beta**2 / (2 * v * (1 - beta) * (1 - ABAR_T))
    assert is_zero(weight() - right)
    for wrong in (2 * right, right / beta, right * sqrt(v), right * (1 - beta)):
        assert not is_zero(weight() - wrong)
    assert not is_zero(weight() - right * (1 - ABAR_T) / beta)  # E4


@given(tables, spots)
def test_two_steps_are_one(values: torch.Tensor, x0: float) -> None:
    """C04: q(x_2 given x_0) by integrating x_1 out, against `marginal` and `transition`."""
    schedule = Discrete(values)
    mean, variance = (part.subs(DDPM).subs(x_0, 1) for part in forward())
    at, slack = at_step(values, 2), carried(schedule, 1, 2)
    factor, spread = exactly(mean, at), exactly(variance, at)
    for got in (
        gaussian.marginal(schedule, f64(x0), 2),
        gaussian.transition(schedule, f64(x0), 0, 2),
    ):
        assert ulps(got.mean, factor * mpf(x0), abs(x0) * float(factor) * slack) < ULPS
        assert ulps(got.variance, spread, float(spread) * slack) < ULPS


@given(tables, spots, st.data())
def test_t_steps_are_one(values: torch.Tensor, x0: float, data: st.DataObject) -> None:
    """C05: `marginal` at any t, against the derived step iterated t times from N(x_0, 0)."""
    schedule = Discrete(values)
    t = data.draw(st.integers(0, len(values)))
    mean, variance = (part.subs(STEP) for part in forward())
    factor, spread = mpf(1), mpf(0)
    for value in values[:t].tolist():
        factor = exactly(mean, {beta: value, alpha: factor, x_0: 1})
        spread = exactly(variance, {beta: value, v: spread})
    got, slack = gaussian.marginal(schedule, f64(x0), t), carried(schedule, t)
    assert ulps(got.mean, factor * mpf(x0), abs(x0) * float(factor) * slack) < ULPS
    assert ulps(got.variance, spread, float(spread) * slack) < ULPS


@given(tables, spots, st.floats(-3, 3), st.floats(-3, 3), st.data())
def test_bayes_rule_given_x_0(
    values: torch.Tensor, x0: float, e: float, z: float, data: st.DataObject
) -> None:
    """C11: three shipped densities together are the step's, q(x_t given x_{t-1}), as derived.

    A relative error d of a mean m moves a log-density at k <= 3 deviations by k d |m| / deviation,
    and the least deviation is the posterior's.
    """
    schedule = Discrete(values)
    t = data.draw(st.integers(2, len(values)))
    near = gaussian.marginal(schedule, f64(x0), t - 1).sample(f64(e))
    far = gaussian.forward_step(schedule, near, t).sample(f64(z))
    q = gaussian.posterior(schedule, far, f64(x0), t, t - 1)
    given_x_0 = [gaussian.marginal(schedule, f64(x0), u) for u in (t, t - 1)]
    got = q.log_density(near) + given_x_0[0].log_density(far) - given_x_0[1].log_density(near)
    at = {beta: values[t - 1].item(), x_s: near.item(), x_t: far.item()}
    exact = exactly(log_normal(x_t, a * x_s, b).subs(STEP), at)
    means = abs(x0) + abs(near.item()) + abs(far.item())
    k = ((near - q.mean).abs() / q.variance.sqrt()).item() + abs(e) + abs(z)
    slack = over_a_step(schedule, t) * (1 + k**2 + (1 + k) * means / q.variance.sqrt().item())
    assert ulps(got, exact, slack) < ULPS


@given(tables, spots, st.floats(-3, 3), st.data())
def test_the_posterior_completes_the_square(
    values: torch.Tensor, x0: float, e: float, data: st.DataObject
) -> None:
    """C16: mean and variance of q(x_{t-1} given x_t, x_0), in x_0 and in DDPM's eps."""
    schedule = Discrete(values)
    t = data.draw(st.integers(2, len(values)))
    x = gaussian.marginal(schedule, f64(x0), t).sample(f64(e))
    got = gaussian.posterior(schedule, x, f64(x0), t, t - 1)
    mean, variance = ddpm_reverse()
    at, slack = at_step(values, t), over_a_step(schedule, t)
    points = {**at, x_0: x0, x_t: x.item()}
    assert ulps(got.mean, exactly(mean, points), size(mean, points) * slack) < ULPS
    assert ulps(got.variance, exactly(variance, at), float(exactly(variance, at)) * slack) < ULPS


@given(spots, spots, st.floats(1e-3, 1e3), st.floats(-2, 2))
def test_the_kl_of_two_gaussians(first: float, second: float, spread: float, more: float) -> None:
    """C10, C17: `kl` is the integral of q log(q / p), 0 exactly for one Gaussian.

    In d = v / w - 1 it is d - log(1 + d) and a square: an ulp of d, which is exact to rounding,
    moves it by d^2 / (1 + d); the two terms have ulps of their own.
    """
    derived, (m, n) = divergence(shared=False)
    other = spread * math.exp(more)
    at = {m: first, n: second, v: spread, w: other}
    q = Gaussian(f64(first), f64(spread))
    got = gaussian.kl(q, Gaussian(f64(second), f64(other)))
    d = (spread - other) / other
    scale = (first - second) ** 2 / other + abs(d) + d**2 / (1 + d)
    assert ulps(got, exactly(derived, at), scale) < ULPS
    assert gaussian.kl(q, q).item() == 0


@given(tables, st.floats(1e-3, 10), st.data())
def test_the_weight_of_an_error_in_eps(
    values: torch.Tensor, constant: float, data: st.DataObject
) -> None:
    """C18: `lambda_t` at a constant variance, at beta_t, and at the derived posterior's."""
    schedule = Discrete(values)
    t = data.draw(st.integers(2, len(values)))
    at = at_step(values, t)
    kept = 1 - values[t - 1].item()
    slack = over_a_step(schedule, t) + 1 / kept  # 1 - beta_t is rounded to an ulp of 1
    for chosen, known in (
        (variance.constant_variance(constant), mpf(constant)),
        (variance.large_variance, mpf(values[t - 1].item())),
        (variance.small_variance, exactly(ddpm_reverse()[1], at)),
    ):
        exact = exactly(weight(), {**at, v: known})
        assert ulps(elbo.lambda_t(schedule, t, chosen), exact, float(exact) * slack) < ULPS


def test_wrong_posteriors_are_rejected() -> None:
    """The measure above tells off-by-one variances and E4 from rounding: by 1e12 ulps and more."""
    values = f64(0.2, 0.3, 0.1)
    right = exactly(ddpm_reverse()[1], at_step(values, 3))
    got = gaussian.posterior(Discrete(values), f64(0.5), f64(1.0), 3, 2).variance
    assert ulps(got, right, 1.0) < ULPS
    for wrong in (ddpm_reverse()[1] / (1 - abar), ddpm_reverse()[1] * (1 - ABAR_T) / beta, beta):
        assert ulps(got, exactly(wrong, at_step(values, 3)), 1.0) > 1e12
    assert ulps(got, exactly(ddpm_reverse()[1], at_step(values, 2)), 1.0) > 1e12
