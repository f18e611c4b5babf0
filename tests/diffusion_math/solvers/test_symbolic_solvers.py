"""Every solver's coefficients, derived in symbols and read off the shipped step by unit vectors.

At given predictions a step is affine: x_s = k_x x_t + k_d x0 + k_e x0' + k_z z, where x0 is the
denoiser's answer at t and x0' that at s (heun) or the one remembered (dpmpp_2m). ddpm is Bayes'
rule; ddim is every step that has the right marginals; the others are quadratures of the probability
flow in y = x / alpha, r = sigma / alpha = exp(-lambda),

    dy/dr = (y - x0) / r,    that is    dy/dlambda = -(y - x0),

with x0 constant (euler), the slope linear between both ends (heun), or x0 at the middle of a line
through two predictions (dpmpp_2m). sympy solves the equations and matches the series.

Tolerances: ULPS ulps of the derived terms, times what alpha and sigma carry (see test_symbolic).
"""

from dataclasses import dataclass
from functools import cache

import mpmath
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from sympy import Expr, Rational, Symbol, exp, log, sqrt

from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import ddim, ddpm, euler, heun
from diffusion_math.solvers.step import State, Step
from diffusion_math.testing.strategies import grids
from tests.support.derivation import DIGITS, exactly, is_zero, law, log_normal, size, ulps
from tests.support.schedules import exact_alpha_sigma

ULPS = 2
SCHEDULES = [Discrete.scaled_linear(40), VPLinear(), VPCosine(), VE(10.0), RectifiedFlow()]

NONE = sympy.Integer(0)
alpha_t, sigma_t, alpha_s, sigma_s = sympy.symbols("alpha_t sigma_t alpha_s sigma_s", positive=True)
alpha_b, sigma_b, c, eta = sympy.symbols("alpha_b sigma_b c eta", positive=True)
x_t, x0, other = sympy.symbols("x_t x0 other", real=True)
Y_T, R_T, R_S = x_t / alpha_t, sigma_t / alpha_t, sigma_s / alpha_s
H = log(alpha_s / sigma_s) - log(alpha_t / sigma_t)
H_BEFORE = log(alpha_t / sigma_t) - log(alpha_b / sigma_b)


@dataclass(frozen=True)
class Coefficients:
    """Of x_t, x0, x0' and z, each as summands that a float64 evaluation adds."""

    of_x: tuple[Expr, ...]
    of_x0: tuple[Expr, ...]
    of_other: tuple[Expr, ...] = (NONE,)
    of_z: tuple[Expr, ...] = (NONE,)

    def each(self) -> tuple[tuple[Expr, ...], ...]:
        return self.of_x, self.of_x0, self.of_other, self.of_z


def linear_in(*parts: Expr, z: Expr = NONE) -> Coefficients:
    """The coefficients of x_t, x0 and x0' in a sum, part by part."""
    of = [tuple(sympy.diff(part, name) for part in parts) for name in (x_t, x0, other)]
    return Coefficients(*of, of_z=(z,))


@cache
def posterior() -> tuple[Expr, Expr]:
    """(mean, variance) of q(x_s given x_t, x_0): the two Gaussians of x_s, multiplied."""
    x_s = Symbol("x_s", real=True)
    ratio = alpha_t / alpha_s
    link = sigma_t**2 - ratio**2 * sigma_s**2  # so that q(x_t given x_0) has variance sigma_t^2
    both = log_normal(x_s, alpha_s * x0, sigma_s**2) + log_normal(x_t, ratio * x_s, link)
    return law(both, x_s)


@cache
def right_marginals() -> tuple[Expr, Expr]:
    """(k_x, k_d) of the steps x_s = k_x x_t + k_d x_0 + c z with q(x_s given x_0) as it must be.

    With x_t = alpha_t x_0 + sigma_t eps the mean must be alpha_s x_0 and the variance sigma_s^2;
    of the two solutions the one that keeps eps's sign.
    """
    k_x, k_d = sympy.symbols("k_x k_d")
    mean, variance = k_x * alpha_t + k_d - alpha_s, k_x**2 * sigma_t**2 + c**2 - sigma_s**2
    solutions = sympy.solve([mean, variance], [k_x, k_d], dict=True)
    (kept,) = [s for s in solutions if s[k_x].subs(c, 0).is_positive]
    return kept[k_x], kept[k_d]


@cache
def constant_x0(at: Expr) -> Expr:
    """y at r_s on the flow whose x0 is `at` all the way, solved for."""
    y, r = sympy.Function("y"), Symbol("r", positive=True)
    start, end, level, here = sympy.symbols("start end level here", positive=True)
    line = sympy.Eq(y(r).diff(r), (y(r) - level) / r)
    found = sympy.dsolve(line, y(r), ics={y(start): here}).rhs
    return found.subs(r, end).subs({start: R_T, end: R_S, level: at, here: Y_T}, simultaneous=True)


@cache
def trapezoid() -> tuple[Expr, Expr, Expr]:
    """y at r_s by the integral of the line between the slopes at both ends: y_t and two terms."""
    r, first, last = sympy.symbols("r first last")
    line = first + (last - first) * (r - R_T) / (R_S - R_T)
    area = sympy.expand(sympy.simplify(sympy.integrate(line, (r, R_T, R_S)) / (R_S - R_T)))
    first_slope, last_slope = (Y_T - x0) / R_T, (constant_x0(x0) - other) / R_S
    weights = [sympy.diff(area, name) * (R_S - R_T) for name in (first, last)]
    return Y_T, weights[0] * first_slope, weights[1] * last_slope


@cache
def middle() -> Expr:
    """Where on a line in lambda a constant x0 must be taken, as a share of the step h.

    Solving dy/dlambda = -(y - x0) with x0 = d + g (lambda - lambda_t) gives the exact step; with
    x0 = d + g p h throughout, an approximation. They agree to h^2 at one p only.
    """
    y, at = sympy.Function("y"), Symbol("at", positive=True)
    h, g, p, d, here = sympy.symbols("h g p d here", positive=True)
    steps = [
        sympy.dsolve(sympy.Eq(y(at).diff(at), level - y(at)), y(at), ics={y(0): here}).rhs
        for level in (d + g * at, d + g * p * h)
    ]
    off = sympy.series((steps[0] - steps[1]).subs(at, h), h, 0, 3).removeO()
    assert off.coeff(h, 0) == off.coeff(h, 1) == 0
    (share,) = sympy.solve(off.coeff(h, 2), p)
    return share


@cache
def derived(name: str) -> Coefficients:
    mean, variance = posterior()
    match name:
        case "ddpm":
            return linear_in(mean, z=sqrt(variance))
        case "ddim":
            fresh = eta * sqrt(variance)
            k_x, k_d = (k.subs(c, fresh) for k in right_marginals())
            return Coefficients((k_x,), tuple(k_d.args), of_z=(fresh,))
        case "euler":
            return linear_in(alpha_s * constant_x0(x0))
        case "heun":
            return linear_in(*(alpha_s * part for part in trapezoid()))
        case _:
            there = x0 + (x0 - other) / H_BEFORE * middle() * H
            return linear_in(alpha_s * constant_x0(there))


MAKERS = {"ddpm": ddpm, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}


def read_off(step: Step, before: float, t: float, s: float) -> list[float]:
    """The four coefficients, a batch row each, and a row in which everything is 0."""
    x, at_t, elsewhere, z = torch.eye(5, dtype=torch.float64)[:, :4].T[:, :, None]
    times = [torch.tensor(time, dtype=torch.float64) for time in (t, s, before)]

    def denoise(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return at_t if time == t else elsewhere

    state = State(x, times[0], ((times[2], elsewhere),))
    end = step(denoise, state, times[0], times[1], lambda x, t, s: z)
    got: list[float] = end.x.flatten().tolist()
    assert got.pop() == 0
    return got


def draw_times(data: st.DataObject, schedule: Schedule) -> tuple[float, float, float]:
    """before > t > s > 0, whole on a discrete schedule; alpha is positive at all three."""
    _, before, t, s, _ = data.draw(grids(schedule, steps=(4, 4), ratio=200)).tolist()
    return before, t, s


def at_times(schedule: Schedule, before: float, t: float, s: float) -> dict[Symbol, object]:
    names = {before: (alpha_b, sigma_b), t: (alpha_t, sigma_t), s: (alpha_s, sigma_s)}
    values: dict[Symbol, object] = {}
    for time, pair in names.items():
        with mpmath.workdps(DIGITS):
            values |= zip(pair, exact_alpha_sigma(schedule, time), strict=True)
    return values


def slack(schedule: Schedule, name: str, before: float, t: float, s: float) -> float:
    """What log-SNRs carry into alpha and sigma, and over a difference h of them where it counts."""
    levels = [schedule.log_snr(time).item() for time in (before, t, s)]
    over = 1.0
    if name in ("ddpm", "ddim", "dpmpp_2m"):
        over += 1 / (levels[2] - levels[1])
    if name == "dpmpp_2m":
        over += 1 / (levels[1] - levels[0])
    return (1 + sum(map(abs, levels))) * over


@pytest.mark.parametrize("name", MAKERS)
@given(st.sampled_from(SCHEDULES), st.data())
def test_coefficients(name: str, schedule: Schedule, data: st.DataObject) -> None:
    """Each coefficient of the shipped step is the derived one, whatever the schedule and times."""
    times = draw_times(data, schedule)
    compare(derived(name), MAKERS[name](schedule), schedule, name, times)


@given(st.sampled_from(SCHEDULES), st.integers(0, 64), st.data())
def test_coefficients_of_ddim(schedule: Schedule, part: int, data: st.DataObject) -> None:
    """At every eta: 1 - eta^2 is exact for a 64th, so no rounding of eta's own is compared."""
    times = draw_times(data, schedule)
    step = ddim(schedule, part / 64)
    compare(derived("ddim"), step, schedule, "ddim", times, {eta: part / 64})


def compare(
    coefficients: Coefficients,
    step: Step,
    schedule: Schedule,
    name: str,
    times: tuple[float, float, float],
    more: dict[Symbol, object] | None = None,
) -> None:
    at = at_times(schedule, *times) | (more or {})
    got = read_off(step, *times)
    for parts, value in zip(coefficients.each(), got, strict=True):
        exact = exactly(sympy.Add(*parts, evaluate=False), at)
        scale = sum(size(part, at) for part in parts)
        assert ulps(value, exact, scale * slack(schedule, name, *times)) < ULPS


@given(st.sampled_from(SCHEDULES), st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.data())
def test_heun_asks_at_eulers_point(
    schedule: Schedule, numbers: list[float], data: st.DataObject
) -> None:
    """x0' is the denoiser's answer to Euler's x_s: denoisers p x + q, composed in symbols."""
    before, t, s = draw_times(data, schedule)
    p, q = sympy.symbols("p q")
    there = p * alpha_s * constant_x0(x0) + q
    names = dict(zip((x_t, x0, p, q), numbers, strict=True))

    def denoise(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, numbers[1]) if time == t else numbers[2] * x + numbers[3]

    times = [torch.tensor(time, dtype=torch.float64) for time in (t, s)]
    state = State(torch.tensor([[numbers[0]]], dtype=torch.float64), times[0])
    got = heun(schedule)(denoise, state, *times, lambda x, t, s: x).x
    parts = [alpha_s * part.subs(other, there) for part in trapezoid()]
    at = {**at_times(schedule, before, t, s), **names}
    scale = sum(size(part, at) for part in parts) * slack(schedule, "heun", before, t, s)
    assert ulps(got, exactly(sympy.Add(*parts, evaluate=False), at), scale) < ULPS


def test_the_identities_between_solvers() -> None:
    """DDIM at the posterior's deviation is Bayes' rule (ddpm), at 0 the flow with x0 constant.

    Of all c, only the posterior's gives Bayes' coefficient of x_t. Euler's is also one step of
    slope (y - x0) / r, and Heun's mean coefficient of x_t is Euler's. 2M at equal steps is the
    3/2, -1/2 of Adams and Bashforth.
    """
    mean, variance = posterior()
    k_x, k_d = right_marginals()
    assert is_zero(k_x.subs(c, sqrt(variance)) ** 2 - sympy.diff(mean, x_t) ** 2)
    assert is_zero(sympy.solve(k_x**2 - sympy.diff(mean, x_t) ** 2, c**2)[0] - variance)
    assert is_zero((k_d + k_x * alpha_t) - (sympy.diff(mean, x0) + sympy.diff(mean, x_t) * alpha_t))

    flow = alpha_s * constant_x0(x0)
    assert is_zero(k_x.subs(c, 0) - sympy.diff(flow, x_t))
    assert is_zero(k_d.subs(c, 0) - sympy.diff(flow, x0))
    assert is_zero(constant_x0(x0) - (Y_T + (R_S - R_T) * (Y_T - x0) / R_T))
    assert is_zero(sympy.diff(alpha_s * sympy.Add(*trapezoid()), x_t) - sympy.diff(flow, x_t))

    assert middle() == Rational(1, 2)
    there = (x0 + (x0 - other) / H_BEFORE * middle() * H).subs(H_BEFORE, H)
    assert is_zero(there - (3 * x0 - other) / 2)
    assert is_zero(constant_x0(x0) - (Y_T * exp(-H) + x0 * (1 - exp(-H))))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler"])
def test_into_clean_data_the_limit_is_the_prediction(name: str) -> None:
    """As sigma_s -> 0 and alpha_s = 1 the derived step tends to x0, without x_t, without noise."""
    sums = (sympy.Add(*parts).subs(alpha_s, 1) for parts in derived(name).each())
    assert [sympy.limit(total, sigma_s, 0, "+") for total in sums] == [0, 1, 0, 0]


WRONG = {
    "ddpm: variance for deviation": ("ddpm", 3, lambda k: k**2),
    "ddpm: sigma for sigma^2": ("ddpm", 0, lambda k: k.subs(sigma_s, sqrt(sigma_s))),
    "euler: sign of eps": ("euler", 0, lambda k: -k),
    "heun: no half": ("heun", 2, lambda k: 2 * k),
    "2m: sign of the difference": ("dpmpp_2m", 2, lambda k: -k),
    "2m: h / h_before": ("dpmpp_2m", 2, lambda k: 2 * k),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_coefficients_are_rejected(name: str) -> None:
    """Each is 1e10 ulps or more from the shipped one where the derived one is within ULPS."""
    solver, which, change = WRONG[name]
    schedule, before, t, s = VPLinear(), 0.9, 0.6, 0.25
    at = at_times(schedule, before, t, s)
    got = read_off(MAKERS[solver](schedule), before, t, s)[which]
    right = sympy.Add(*derived(solver).each()[which])
    assert ulps(got, exactly(right, at), 100) < ULPS
    assert ulps(got, exactly(change(right), at), 100) > 1e10
