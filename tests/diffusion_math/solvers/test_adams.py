"""LMS and PLMS against their published formulas, in VE where alpha = 1 and r = sigma."""

from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad

from diffusion_math.grid import karras
from diffusion_math.noise import zeros
from diffusion_math.prediction import eps_from_x0
from diffusion_math.sample import trajectory
from diffusion_math.schedule import VE, RectifiedFlow, VPLinear
from diffusion_math.solvers.adams import lms, plms
from diffusion_math.solvers.exponential import singlestep
from diffusion_math.solvers.one_step import euler
from diffusion_math.solvers.step import State
from tests.support.solver_step import MIXTURE, X
from tests.support.tensors import f64

SCHEDULE = VE()
GRID = karras(SCHEDULE, 8, start=20, end=0.1)


def eps(x, t):
    return eps_from_x0(SCHEDULE, x, MIXTURE.posterior_mean(SCHEDULE, x, t), t)


def states(step, grid=GRID, schedule=SCHEDULE):
    return list(trajectory(step, MIXTURE.denoiser(schedule), X, grid))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_integrates_the_lagrange_polynomials(order):
    """k-diffusion's coefficients, by quadrature; its start by single steps of order - 1."""
    found = states(lms(SCHEDULE, order))
    slopes = [eps(state.x, state.t) for state in found[:-1]]
    for i, state in enumerate(found[:-1]):
        used = list(range(max(0, i - order + 1), i + 1))
        t, s = float(GRID[i]), float(GRID[i + 1])
        if len(used) < order - 1:
            start = GRID[i], GRID[i + 1]
            step = singlestep(SCHEDULE, order - 1)
            wanted = step(MIXTURE.denoiser(SCHEDULE), State(state.x, GRID[i]), *start, zeros).x
        else:
            wanted = state.x
            for j in used:

                def lagrange(r, j=j, used=used):
                    value = 1.0
                    for k in used:
                        if k != j:
                            value *= (r - float(GRID[k])) / float(GRID[j] - GRID[k])
                    return value

                wanted = wanted + quad(lagrange, t, s, epsabs=1e-13)[0] * slopes[j]
        torch.testing.assert_close(found[i + 1].x, wanted, rtol=1e-9, atol=1e-9)


def test_lms_has_four_nodes_by_default():
    assert torch.equal(states(lms(SCHEDULE))[-1].x, states(lms(SCHEDULE, 4))[-1].x)


def test_plms_is_stable_diffusion_s():
    """Heun's start, then (3, -1)/2, (23, -16, 5)/12 and (55, -59, 37, -9)/24."""
    x, old, wanted = X, [], []
    for t, s in pairwise(GRID):
        e = eps(x, t)
        if len(old) == 0:
            mean = (e + eps(x + (s - t) * e, s)) / 2
        elif len(old) == 1:
            mean = (3 * e - old[-1]) / 2
        elif len(old) == 2:
            mean = (23 * e - 16 * old[-1] + 5 * old[-2]) / 12
        else:
            mean = (55 * e - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24
        old.append(e)
        x = x + (s - t) * mean
        wanted.append(x)
    got = [state.x for state in states(plms(SCHEDULE))[1:]]
    torch.testing.assert_close(torch.stack(got), torch.stack(wanted), rtol=1e-11, atol=1e-11)


def test_pndm_starts_by_simpson_s_rule():
    """Three pseudo Runge-Kutta steps, whose middle is halfway in time; then plms."""
    found = states(plms(SCHEDULE, runge_kutta=True))
    for i in range(3):
        x, t, s = found[i].x, GRID[i], GRID[i + 1]
        middle = (t + s) / 2
        e1 = eps(x, t)
        e2 = eps(x + (middle - t) * e1, middle)
        e3 = eps(x + (middle - t) * e2, middle)
        e4 = eps(x + (s - t) * e3, s)
        wanted = x + (s - t) * (e1 + 2 * e2 + 2 * e3 + e4) / 6
        torch.testing.assert_close(found[i + 1].x, wanted, rtol=1e-11, atol=1e-11)
    e = [eps(state.x, state.t) for state in found[:4]]
    mean = (55 * e[3] - 59 * e[2] + 37 * e[1] - 9 * e[0]) / 24
    wanted = found[3].x + (GRID[4] - GRID[3]) * mean
    torch.testing.assert_close(found[4].x, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("make", [lms, plms])
def test_the_map_is_that_of_the_scaled_line(make):
    """On VPLinear the first step from one node is a step of y = x / alpha in r."""
    schedule = VPLinear()
    t, s = f64(0.6)[0], f64(0.5)[0]
    history = tuple((f64(time)[0], torch.roll(X, i, 0)) for i, time in enumerate((0.9, 0.8, 0.7)))
    got = make(schedule)(MIXTURE.denoiser(schedule), State(X, t, history), t, s, zeros)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    mean = (got.x / alpha_s - X / alpha_t) / (sigma_s / alpha_s - sigma_t / alpha_t)
    assert [float(time) for time, _ in got.history] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    now = eps_from_x0(schedule, X, MIXTURE.posterior_mean(schedule, X, t), t)
    torch.testing.assert_close(got.history[-1][1], now)
    if make is plms:
        old = [value for _, value in history]
        wanted = (55 * now - 59 * old[2] + 37 * old[1] - 9 * old[0]) / 24
        torch.testing.assert_close(mean, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [lms, plms])
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.8), (0.4, 0.0), (0.8, 1.0)])
def test_open_ends_are_euler_s(make, t, s):
    schedule = RectifiedFlow()
    t, s = f64(t)[0], f64(s)[0]
    history = ((f64(0.9)[0], X.flip(0)),)
    got = make(schedule)(MIXTURE.denoiser(schedule), State(X, t, history), t, s, zeros)
    wanted = euler(schedule)(MIXTURE.denoiser(schedule), State(X, t), t, s, zeros)
    assert torch.equal(got.x, wanted.x) and got.history == ()


@pytest.mark.parametrize("order", [0, 5])
def test_orders_that_lms_has_not(order):
    with pytest.raises(ValueError, match="order: wanted a whole number"):
        lms(SCHEDULE, order)
