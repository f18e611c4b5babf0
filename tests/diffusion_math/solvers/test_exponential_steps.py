"""Exponential solvers, a step or a walk at a time, against the papers' formulas in their symbols.

Notation of the papers: lambda = log(alpha / sigma), h a step in it, m a prediction of x0, e one of
eps. `Paper` has alpha, sigma and lambda of a time; no helper of the shipped solvers is used.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.schedule import VE, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.exponential import multistep, singlestep
from diffusion_math.solvers.one_step import ddim, ddpm
from diffusion_math.solvers.step import State
from tests.support.exponential_papers import (
    SCHEDULES,
    Paper,
    between,
    by_schedule,
    dpmpp_3s,
    times,
    walked,
)
from tests.support.solver_step import MIXTURE, X, forbidden_noise, one_step
from tests.support.tensors import f64

CLOSE = {"rtol": 1e-11, "atol": 1e-11}


# Single steps.


def dpm_solver_2(schedule, t, s, x):
    """DPM-Solver's Algorithm 1 at r_1 = 1/2."""
    h, mid = s.lam - t.lam, between(schedule, t, s, 1 / 2)
    middle = mid.alpha / t.alpha * x - mid.sigma * (torch.exp(h / 2) - 1) * t.e(x)
    return s.alpha / t.alpha * x - s.sigma * (torch.exp(h) - 1) * mid.e(middle)


def dpm_solver_3(schedule, t, s, x):
    """DPM-Solver's Algorithm 2 at r_1 = 1/3, r_2 = 2/3."""
    h, r_1, r_2 = s.lam - t.lam, 1 / 3, 2 / 3
    one, two = between(schedule, t, s, r_1), between(schedule, t, s, r_2)
    x_1 = one.alpha / t.alpha * x - one.sigma * torch.expm1(r_1 * h) * t.e(x)
    D_1 = one.e(x_1) - t.e(x)
    x_2 = (
        two.alpha / t.alpha * x
        - two.sigma * torch.expm1(r_2 * h) * t.e(x)
        - two.sigma * r_2 / r_1 * (torch.expm1(r_2 * h) / (r_2 * h) - 1) * D_1
    )
    D_2 = two.e(x_2) - t.e(x)
    first = s.alpha / t.alpha * x - s.sigma * torch.expm1(h) * t.e(x)
    return first - s.sigma / r_2 * (torch.expm1(h) / h - 1) * D_2


def dpmpp_2s(schedule, t, s, x):
    """DPM-Solver++'s Algorithm 1 at r = 1/2, where D = m at the middle."""
    h, mid = s.lam - t.lam, between(schedule, t, s, 1 / 2)
    middle = mid.sigma / t.sigma * x - mid.alpha * (torch.exp(-h / 2) - 1) * t.m(x)
    return s.sigma / t.sigma * x - s.alpha * (torch.exp(-h) - 1) * mid.m(middle)


SINGLE = {
    (2, "eps"): dpm_solver_2,
    (3, "eps"): dpm_solver_3,
    (2, "x0"): dpmpp_2s,
    (3, "x0"): dpmpp_3s,
}


@pytest.mark.parametrize(("order", "kind"), SINGLE)
@by_schedule
def test_single_steps_are_the_papers(order, kind, schedule):
    t, s = times(schedule)[1::2]
    got = one_step(singlestep(schedule, order, kind), schedule, t, s, source=forbidden_noise)
    wanted = SINGLE[order, kind](schedule, Paper(schedule, t), Paper(schedule, s), X)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_singlestep_is_dpm_solver_2_by_default():
    schedule = VPLinear()
    t, s = f64(0.6)[0], f64(0.3)[0]
    got = one_step(singlestep(schedule, 2), schedule, t, s)
    assert torch.equal(got, one_step(singlestep(schedule, 2, "eps"), schedule, t, s))


@pytest.mark.parametrize("kind", ["eps", "x0"])
@by_schedule
def test_of_order_one_all_are_ddim(kind, schedule):
    """DPM-Solver-1, DPM-Solver++(1S), and multistep solvers with one prediction."""
    t, s = times(schedule)[1::2]
    wanted = one_step(ddim(schedule), schedule, t, s)
    past = ((times(schedule)[0], X.flip(0)),)
    for step in (singlestep(schedule, 1, kind), multistep(schedule, 1, kind)):
        got = one_step(step, schedule, t, s, source=forbidden_noise, history=past)
        torch.testing.assert_close(got, wanted, **CLOSE)


# Walks: a history is made by the solver itself, its start included.


@by_schedule
def test_dpmpp_3m(schedule):
    """m, m' h and m'' h^2 / 2 by divided differences, under phi_2 and 2 phi_3 (started by 2S).

    DPM-Solver++'s code has phi_3 without the 2, which leaves order 2: see `mistakes_of_solvers`.
    """
    nodes = [Paper(schedule, t) for t in times(schedule)]
    x, past, wanted = X, [], [X]
    for i, (t, s) in enumerate(pairwise(nodes)):
        past.append(t.m(x))
        h = s.lam - t.lam
        linear = s.sigma / t.sigma * x - s.alpha * torch.expm1(-h) * past[-1]
        phi_2 = torch.expm1(-h) / h + 1
        phi_3 = phi_2 / h - 1 / 2
        if i == 0:
            x = dpmpp_2s(schedule, t, s, x)
        else:
            r_0 = (t.lam - nodes[i - 1].lam) / h
            D1_0 = (past[-1] - past[-2]) / r_0
            if i == 1:
                x = linear + s.alpha * phi_2 * D1_0
            else:
                r_1 = (nodes[i - 1].lam - nodes[i - 2].lam) / h
                D1_1 = (past[-2] - past[-3]) / r_1
                D1 = D1_0 + r_0 / (r_0 + r_1) * (D1_0 - D1_1)
                D2 = (D1_0 - D1_1) / (r_0 + r_1)
                x = linear + s.alpha * phi_2 * D1 - 2 * s.alpha * phi_3 * D2
        wanted.append(x)
    got = walked(multistep(schedule, 3), schedule, torch.stack([node.t for node in nodes]))
    torch.testing.assert_close(torch.stack(got), torch.stack(wanted), **CLOSE)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("eta", [0.3, 1])
@pytest.mark.parametrize("schedule", [VPLinear(), VE(10.0)], ids=["VP", "VE"])
def test_k_diffusion_s_sde_solvers(order, eta, schedule):
    """`sample_dpmpp_2m_sde` of type "heun", in its names; `_3m_sde` with the 2 it lacks."""
    nodes = [Paper(schedule, t) for t in times(schedule)]
    x, wanted, old, h_last = X, [X], [], []
    for i, (t, s) in enumerate(pairwise(nodes)):
        denoised, h = t.m(x), s.lam - t.lam
        h_eta = h * (eta + 1)
        next_x = s.sigma / t.sigma * torch.exp(-h * eta) * x
        next_x = next_x - s.alpha * torch.expm1(-h_eta) * denoised
        phi_2 = torch.expm1(-h_eta) / h_eta + 1
        phi_3 = phi_2 / h_eta - 0.5
        if i > 0:
            r_0 = h_last[-1] / h
            d1 = d1_0 = (denoised - old[-1]) / r_0
            if i > 1 and order == 3:
                r_1 = h_last[-2] / h
                d1_1 = (old[-1] - old[-2]) / r_1
                d1 = d1_0 + (d1_0 - d1_1) * r_0 / (r_0 + r_1)
                next_x = next_x - s.alpha * 2 * phi_3 * (d1_0 - d1_1) / (r_0 + r_1)
            next_x = next_x + s.alpha * phi_2 * d1
        x = next_x + (i + 1) * s.sigma * (-torch.expm1(-2 * h * eta)).sqrt()
        old.append(denoised)
        h_last.append(h)
        wanted.append(x)
    asked = []

    def noise(x, t, s):
        asked.append((t.item(), s.item()))
        return torch.full_like(x, float(len(asked)))

    grid = torch.stack([node.t for node in nodes])
    got = walked(multistep(schedule, order, eta=eta), schedule, grid, source=noise)
    torch.testing.assert_close(torch.stack(got), torch.stack(wanted), **CLOSE)
    assert asked == list(zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True))


@by_schedule
def test_at_eta_one_one_prediction_is_ddpm(schedule):
    """The same step, noise and all: not in law alone."""
    t, s = times(schedule)[1::2]
    got = one_step(multistep(schedule, 1, eta=1), schedule, t, s)
    torch.testing.assert_close(got, one_step(ddpm(schedule), schedule, t, s), **CLOSE)


GAUSS = np.polynomial.legendre.leggauss(40)


def quadrature(kind, eta, t, s, past):
    """The variation of constants with Lagrange's polynomial put in, integrated by Gauss's rule."""
    kappa = 1 + eta if kind == "x0" else -1.0
    a, b = float(t.lam), float(s.lam)
    points, areas = (b + a) / 2 + (b - a) / 2 * GAUSS[0], (b - a) / 2 * GAUSS[1]
    lams = [float(lam) for lam, _ in past]
    total = torch.zeros_like(X)
    for j, (_, value) in enumerate(past):
        others = [(points - lam) / (lams[j] - lam) for i, lam in enumerate(lams) if i != j]
        basis = math.prod(others, start=np.ones_like(points))
        weight = float((areas * kappa * np.exp(-kappa * (b - points)) * basis).sum())
        total = total + weight * value
    return total


@pytest.mark.parametrize("kind", ["x0", "eps"])
@given(
    order=st.integers(1, 4),
    eta=st.sampled_from([0.0, 0.3, 1.0]),
    seen=st.integers(0, 5),
    schedule=st.sampled_from(SCHEDULES),
)
def test_multistep_is_adams_and_bashforth_s(kind, order, eta, seen, schedule):
    """At any history: the last `order` predictions, or at eta = 0 too few of them and stages."""
    order = min(order, 3) if eta else order
    places = [Paper(schedule, part * schedule.T) for part in (0.95, 0.9, 0.8, 0.75, 0.65)]
    t, s = (Paper(schedule, part * schedule.T) for part in (0.55, 0.3))
    made = [torch.roll(X, i, 0) + i for i in range(seen)]
    history = tuple(zip([place.t for place in places[5 - seen :]], made, strict=True))
    now = t.m(X) if kind == "x0" else t.e(X)
    past = [(place.lam, v) for place, v in zip(places[5 - seen :], made, strict=True)]
    past = [*past, (t.lam, now)][-order:]
    h = s.lam - t.lam
    if eta == 0 and len(past) < order - 1:
        stage = {2: ("eps", dpm_solver_2), 3: ("eps", dpm_solver_3)} if kind == "eps" else {}
        stage = stage or {2: ("x0", dpmpp_2s), 3: ("x0", dpmpp_3s)}
        wanted = stage[order - 1][1](schedule, t, s, X)
    elif kind == "x0":
        wanted = s.sigma / t.sigma * torch.exp(-eta * h) * X
        wanted = wanted + s.alpha * quadrature(kind, eta, t, s, past)
        wanted = wanted + s.sigma * (-torch.expm1(-2 * eta * h)).sqrt()
    else:
        wanted = s.alpha / t.alpha * X
        wanted = wanted + (1 + eta) * s.sigma * quadrature(kind, eta, t, s, past)
        wanted = wanted + s.sigma * (eta * torch.expm1(2 * h)).sqrt()
    source = (lambda x, t, s: torch.ones_like(x)) if eta else forbidden_noise
    step = multistep(schedule, order, kind, eta)
    end = step(MIXTURE.denoiser(schedule), State(X, t.t, history), t.t, s.t, source)
    torch.testing.assert_close(end.x, wanted, rtol=1e-9, atol=1e-9)
    assert end.t == s.t
    assert [time.item() for time, _ in end.history] == [
        place.t.item() for place in [*places[5 - seen :], t][-order:]
    ]
    torch.testing.assert_close(end.history[-1][1], now, rtol=1e-12, atol=1e-12)


def test_deis_is_in_eps_and_the_default_in_x0():
    """A line through eps is another step than one through x0."""
    schedule, nodes = VPLinear(), f64(0.9, 0.7, 0.4)
    by_default = walked(multistep(schedule, 2), schedule, nodes)[-1]
    assert torch.equal(by_default, walked(multistep(schedule, 2, "x0", 0.0), schedule, nodes)[-1])
    assert (
        by_default - walked(multistep(schedule, 2, "eps"), schedule, nodes)[-1]
    ).abs().max() > 0.01


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", [RectifiedFlow(), VPCosine()], ids=["flow", "cosine"])
def test_out_of_pure_noise_a_history_begins(eta, schedule):
    """There all of z is new at eta > 0, all of x kept at eta = 0, and nothing is remembered."""
    t, s = f64(1.0)[0], f64(0.6)[0]
    source = (lambda x, t, s: torch.full_like(x, 0.3)) if eta else forbidden_noise
    state = State(X, t, ())
    end = multistep(schedule, 3, "x0", eta)(MIXTURE.denoiser(schedule), state, t, s, source)
    alpha, sigma = schedule(s)
    eps = torch.full_like(X, 0.3) if eta else X / schedule(t)[1]
    wanted = alpha * MIXTURE.posterior_mean(schedule, X, t) + sigma * eps
    torch.testing.assert_close(end.x, wanted, **CLOSE)
    assert end.history == ()
