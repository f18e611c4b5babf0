"""What the schedules' claims say: C03, C04, C06 and C07, errata E1 and E2."""

import math

import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.schedule import VE, Discrete, Schedule, VPCosine, VPLinear
from diffusion_math.testing import strategies
from tests.support.measuring import Measured
from tests.support.schedules import relative

EPS = torch.finfo(torch.float64).eps


@given(strategies.schedules(), st.data())
def test_variance_is_preserved(schedule: Schedule, data: st.DataObject) -> None:
    """C03: alpha^2 + sigma^2 = 1 for every VP schedule, so a unit variance stays one (and the
    additive VE does not preserve it)."""
    t = data.draw(strategies.times(schedule))
    alpha, sigma = schedule(t)
    total = (alpha.square() + sigma.square()).item()
    if isinstance(schedule, Discrete | VPLinear | VPCosine):
        assert abs(total - 1) < 32 * EPS
    elif isinstance(schedule, VE):
        assert total == 1 + t**2


def test_two_steps_compose_to_one() -> None:
    """C04, symbolically: (1 - b2) b1 + b2 = 1 - (1 - b1)(1 - b2); and in the code's table."""
    import sympy

    b1, b2 = sympy.symbols("b1 b2")
    assert sympy.expand((1 - b2) * b1 + b2 - (1 - (1 - b1) * (1 - b2))) == 0
    schedule = Discrete(torch.tensor([0.25, 0.5]))
    assert schedule(2)[0].item() == pytest.approx(math.sqrt(0.75 * 0.5), rel=4 * EPS)
    assert schedule(2)[1].square().item() == pytest.approx(0.5 * 0.25 + 0.5, rel=4 * EPS)


@pytest.mark.claim("C06", "diffusion_math.schedule.Discrete")
@pytest.mark.claim("E2", "diffusion_math.schedule.Discrete")
def test_half_a_thousand_times(measured: Measured) -> None:
    """C06 and E2: alpha_t^DDPM = 1/2 for 1000 steps leaves (1/2)^500 of x_0, and the noise
    coefficient is sqrt(1 - (1/2)^1000): the printed 500 is rejected at the first step that shows
    it in float64, t = 2, where sqrt(1 - (1/2)^2) is not sqrt(1 - (1/2)^1)."""
    schedule = Discrete(torch.full((1000,), 0.5))
    signal = relative(schedule(1000)[0], mpf(2) ** -500) / (1000 * math.log(2))
    # 1 - sigma itself is below float64 at t = 1000, but the log-SNR holds it: log(2^-1000).
    assert schedule.log_snr(1000).item() == pytest.approx(-1000 * math.log(2), rel=8 * EPS)
    right, printed = math.sqrt(1 - 0.5**2), math.sqrt(1 - 0.5 ** (2 / 2))
    measured(
        max(signal, abs(schedule(2)[1].item() / right - 1) / 4),
        2 * EPS,
        "relative error of alpha_1000, over its logarithm, and of sigma_2, over 4: rounding",
    )
    assert schedule(2)[1].item() != pytest.approx(printed, rel=0.1)


@pytest.mark.claim("E1", "diffusion_math.schedule.Discrete")
@pytest.mark.parametrize("steps", [1, 10, 100, 1000])
def test_small_betas_leave_half_of_the_signal(measured: Measured, steps: int) -> None:
    """E1: beta_t = 1/(t+1)^2 lies in (0, 1), yet abar_T = (T+2)/(2(T+1)) -> 1/2 and not 0: C07
    needs sum beta_t = inf."""
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    abar = Discrete((t + 1) ** -2)(steps)[0].square().item()
    error = abs(abar * 2 * (steps + 1) / (steps + 2) - 1)
    measured(error / (steps + 16), EPS, "relative error of abar_T, over T + 16: rounding a step")
    assert abar > 0.5


@pytest.mark.claim("C07", "diffusion_math.schedule.Discrete")
@given(st.floats(1e-3, 0.5), st.integers(1, 1000))
def test_signal_vanishes_where_the_betas_sum_to_infinity(
    measured: Measured, beta: float, steps: int
) -> None:
    """C07 with its condition: abar_T = (1 - b)^T, and 1 - b <= exp(-b), so that
    abar_T <= exp(-sum beta) -> 0. Equal to it in 50 digits: the bound alone would let alpha_T be
    abar_T itself."""
    assume(steps * -math.log1p(-beta) < 700)
    alpha, sigma = Discrete(torch.full((steps,), beta, dtype=torch.float64))(steps)
    exact = (1 - mpf(beta)) ** steps
    off = max(relative(alpha, mpmath.sqrt(exact)), relative(sigma, mpmath.sqrt(1 - exact)))
    # The rounding of a thousand factors, and of an exponential of up to e^700.
    measured(off, 5e3 * EPS, "relative error of sqrt(abar_T) and of sqrt(1 - abar_T)")
    assert alpha.square().item() <= math.exp(-beta * steps) * (1 + 5e3 * EPS)
