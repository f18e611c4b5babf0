"""Exponential integrators: what of x is kept, what is drawn, and where a step may go."""

import math
from functools import cache

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from sympy import exp, sqrt

from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.exponential import (
    Level,
    check_kind,
    exponential_step,
    noise_std,
    stages,
)
from diffusion_math.solvers.one_step import ddim
from diffusion_math.solvers.step import State
from tests.support.derivation import exactly, is_zero
from tests.support.solver_step import MIXTURE, SCHEDULES, X, forbidden_noise, time_at
from tests.support.tensors import f64

KINDS = ("x0", "eps")
h, v, eta, u = sympy.symbols("h v eta u", positive=True)


# The equation that is solved: du/dlambda = (1 + eta) e^lambda x0 - eta u, noise sqrt(2 eta) dw.


@cache
def solved(kind):
    """(what of u_t is kept, the variance that is added), by sympy, over a step of h in lambda.

    Of du = pull u dv + sqrt(2 eta) dw the mean obeys m' = pull m, the variance
    V' = 2 pull V + 2 eta.
    """
    f = sympy.Function("f")
    pull = -eta if kind == "x0" else 1
    mean = sympy.dsolve(f(v).diff(v) - pull * f(v), f(v), ics={f(0): 1}).rhs
    variance = sympy.dsolve(f(v).diff(v) - 2 * pull * f(v) - 2 * eta, f(v), ics={f(0): 0}).rhs
    return mean.subs(v, h), sympy.simplify(variance.subs(v, h))


def test_the_two_equations_are_one():
    """u = e^lambda x0 + eps: the drift in eps is that in x0, and the variances agree at h -> 0."""
    eps, lam, x0 = sympy.symbols("eps lam x0")
    drift = (1 + eta) * exp(lam) * x0 - eta * u
    assert is_zero(drift.subs(x0, (u - eps) * exp(-lam)) - (u - (1 + eta) * eps))
    for kind in KINDS:
        assert sympy.limit(solved(kind)[1] / h, h, 0) == 2 * eta


level = st.floats(-4, 4)
cases = given(
    schedule=st.sampled_from([VPLinear(), VPCosine(), VE(10.0), RectifiedFlow()]),
    parts=st.lists(st.floats(0.01, 0.9), min_size=2, max_size=2, unique=True),
    noisy=st.sampled_from([0, 1 / 4, 1 / 2, 1]),
)


def ends(schedule, parts):
    low, high = sorted(parts)
    t, s = (f64(part * schedule.T)[0] for part in (high, max(low, 0.002)))
    return Level.at(schedule, t), Level.at(schedule, s)


@pytest.mark.parametrize("kind", KINDS)
@cases
def test_what_is_kept_and_what_is_drawn(kind, schedule, parts, noisy):
    """With predictions of 0 a step keeps `solved`'s share and draws the root of its variance."""
    here, there = ends(schedule, parts)
    span = float(there.lam - here.lam)
    if span < 1e-3:
        return
    kept, variance = solved(kind)
    values = {h: span, eta: noisy}
    nothing = [(here.lam, torch.zeros_like(X))]
    got = exponential_step(kind, X, here, there, nothing, noisy)
    wanted = float(there.sigma / here.sigma) * float(exactly(kept, values)) * X
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=0)
    deviation = float(there.sigma) * math.sqrt(float(exactly(variance, values)))
    assert noise_std(kind, here, there, noisy) == pytest.approx(deviation, rel=1e-11)
    noise = exponential_step(kind, X, here, there, nothing, noisy, torch.ones_like(X)) - got
    torch.testing.assert_close(noise, torch.full_like(X, deviation), rtol=1e-9, atol=1e-12)


@cases
def test_a_constant_x0_is_solved_exactly(schedule, parts, noisy):
    """From alpha x0 + sigma e the mean is alpha x0 + sigma_s e^{-eta h} e, in both kinds.

    In eps' kind the prediction e^{-eta (l - lambda_t)} e is no polynomial: eta = 0 alone.
    """
    here, there = ends(schedule, parts)
    e = torch.ones_like(X)
    x_t = here.alpha * X + here.sigma * e
    decay = math.exp(-noisy * (there.lam - here.lam))
    got = exponential_step("x0", x_t, here, there, [(here.lam, X)], noisy)
    torch.testing.assert_close(
        got, there.alpha * X + there.sigma * decay * e, rtol=1e-12, atol=1e-12
    )
    by_eps = exponential_step("eps", x_t, here, there, [(here.lam, e)])
    torch.testing.assert_close(by_eps, there.alpha * X + there.sigma * e, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@cases
def test_two_halves_are_a_whole(kind, schedule, parts, noisy):
    """One polynomial through both: means compose; variances add up, the first having decayed."""
    here, there = ends(schedule, parts)
    if there.lam - here.lam < 1e-2:
        return
    middle = schedule.time(here.lam + there.lam)
    half = Level.at(schedule, middle)
    past = [(here.lam, X.flip(0)), (here.lam - 0.7, X)]
    whole = exponential_step(kind, X, here, there, past, noisy)
    first = exponential_step(kind, X, here, half, past, noisy)
    scale = 1e-10 * whole.abs().max().item() / float(half.lam - here.lam) + 1e-10
    torch.testing.assert_close(
        exponential_step(kind, first, half, there, past, noisy), whole, rtol=0, atol=scale
    )
    zero = [(half.lam, torch.zeros_like(X))]
    carried = exponential_step(
        kind, noise_std(kind, here, half, noisy) * torch.ones_like(X), half, there, zero, noisy
    )
    total = carried.square() + noise_std(kind, half, there, noisy) ** 2
    wanted = torch.full_like(X, noise_std(kind, here, there, noisy) ** 2)
    torch.testing.assert_close(total, wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("noisy", [0.0, 0.4, 1.0])
def test_an_infinite_step_is_a_limit(noisy):
    """Out of, and at eta = 0 into, pure noise: as from 1 - 1e-9; into clean data it is x0."""
    schedule, z = RectifiedFlow(), torch.full_like(X, 0.7)
    pure, near, low = (Level.at(schedule, f64(t)[0]) for t in (1.0, 1 - 1e-9, 0.4))
    past = [(pure.lam, X.flip(0))]
    got = exponential_step("x0", X, pure, low, past, noisy, z)
    close = exponential_step("x0", X, near, low, [(near.lam, X.flip(0))], noisy, z)
    torch.testing.assert_close(got, close, rtol=1e-3 if 0 < noisy < 1 else 1e-7, atol=1e-3)
    wanted = low.alpha * X.flip(0) + low.sigma * (z if noisy else X)
    torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-14)
    clean = Level.at(schedule, f64(0.0)[0])
    assert torch.equal(
        exponential_step("x0", X, low, clean, [(low.lam, X.flip(0))], noisy, z), X.flip(0)
    )
    assert noise_std("x0", low, clean, noisy) == noise_std("x0", low, pure, 0.0) == 0
    up = exponential_step("x0", X, low, pure, [(low.lam, X.flip(0))])
    torch.testing.assert_close(up, (X - low.alpha * X.flip(0)) / low.sigma, rtol=1e-14, atol=0)


def test_an_infinite_step_takes_the_last_prediction():
    """Of several, the one at t."""
    schedule = RectifiedFlow()
    here, clean = (Level.at(schedule, f64(t)[0]) for t in (0.4, 0.0))
    past = [(here.lam - 1, X.flip(0)), (here.lam, X)]
    assert torch.equal(exponential_step("x0", X.flip(0), here, clean, past), X)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_level_is_a_time_s(schedule):
    """alpha, sigma and half the log-SNR; the last is what alpha and sigma say."""
    t = time_at(schedule, 0.4)
    got = Level.at(schedule, t)
    assert (got.alpha, got.sigma) == schedule(t)
    assert got.lam == pytest.approx(math.log(got.alpha / got.sigma), abs=1e-13)


# walk: to a level that need not be a time's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_stages_beyond_t_min_are_left_out(order, kind):
    """A table has no time between 0 and 1: a step to a level there is of one stage, ddim's map.

    A stage at t_min itself is asked for; `first` spares the first call.
    """
    schedule, asked = Discrete.scaled_linear(40), []

    def denoise(x, t):
        asked.append(t.item())
        return MIXTURE.posterior_mean(schedule, x, t)

    one = float(schedule.log_snr(1.0)) / 2
    t = f64(2.0)[0]
    here = Level.at(schedule, t)

    def reach(lam):
        alpha, sigma = (math.sqrt(1 / (1 + math.exp(-sign * 2 * lam))) for sign in (1, -1))
        return Level(alpha, sigma, lam)

    beyond = reach(here.lam + 3.001 * (one - here.lam))
    got = stages(schedule, order, kind, denoise, X, t, beyond)
    assert asked == [2.0]
    x0 = MIXTURE.posterior_mean(schedule, X, t)
    eps = (X - here.alpha * x0) / here.sigma
    torch.testing.assert_close(got, beyond.alpha * x0 + beyond.sigma * eps, rtol=1e-12, atol=1e-12)
    asked.clear()
    within = reach(here.lam + 1.499 * (one - here.lam))
    stages(schedule, order, kind, denoise, X, t, within, first=x0)
    assert len(asked) == order - 1
    assert all(1 <= time < 2 for time in asked)


def test_below_t_min_stages_are_asked_for_going_up():
    """t_min bars no stage between two times that are both nearer to the data, on the way up."""
    schedule, asked = VPLinear(), []

    def denoise(x, t):
        asked.append(t.item())
        return MIXTURE.posterior_mean(schedule, x, t)

    low, high = f64(2e-4)[0], f64(6e-4)[0]
    stages(schedule, 3, "x0", denoise, X, low, Level.at(schedule, high))
    assert len(asked) == 3 and all(low <= time < high for time in asked)
    asked.clear()
    stages(schedule, 3, "x0", denoise, X, high, Level.at(schedule, low))
    assert asked == [high]


def test_the_noise_of_no_step_is_asked_for_at_eta_zero():
    """ddim and the exponential step of one stage are one map: here through `State`."""
    schedule, t, s = VPLinear(), f64(0.6)[0], f64(0.3)[0]
    denoise = MIXTURE.denoiser(schedule)
    got = stages(schedule, 1, "x0", denoise, X, t, Level.at(schedule, s))
    same = ddim(schedule)(denoise, State(X, t), t, s, forbidden_noise).x
    torch.testing.assert_close(got, same, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("unchecked")
def test_kinds():
    check_kind("x0")
    check_kind("eps")
    with pytest.raises(ValueError, match=r"^kind: wanted x0 or eps, got 'v'\Z"):
        check_kind("v")


def test_ddim_s_eta_is_the_root_of_this_one():
    """The two variances agree to first order in h: c^2 = eta'^2 (1 - e^{-2 h}), eta = eta'^2."""
    share = sympy.symbols("share", positive=True)
    ours = solved("x0")[1].subs(eta, share**2)
    assert sympy.limit((ours - share**2 * (1 - exp(-2 * h))) / h, h, 0) == 0
    assert sympy.simplify(sqrt(solved("x0")[1].subs(eta, 1)) - sqrt(1 - exp(-2 * h))) == 0
