"""UniPC against the paper's algorithms, in the symbols of `test_exponential_steps`."""

import math
from itertools import pairwise

import pytest
import torch

from diffusion_math._batching import combined
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.solvers import exponential
from diffusion_math.solvers.exponential import unipc
from diffusion_math.solvers.step import State
from tests.support.exponential_papers import Paper, by_schedule, dpmpp_3s, times, walked
from tests.support.solver_step import MIXTURE, X, forbidden_noise
from tests.support.tensors import f64


def unipc_paper(schedule, order, nodes, x):
    """Algorithms 1 and 2 by the system R_p a B(h) = phi_p(h), at B(h) = e^h - 1 of another sign.

    m-th row: sum_j a_j r_j^{m-1} B = h phi_{m+1}(-h) m!, r_j = (lambda_j - lambda_t) / h, over the
    differences D_j = m_j - m_0; the corrector has r = 1 too.
    """
    x_pred, buffer, out = x, [], [x]

    def combine(t, s, base, used):
        h = s.lam - t.lam
        B = torch.expm1(-h)
        phi, rows, sides = -torch.expm1(-h) / h, [], []
        linear = s.sigma / t.sigma * base + s.alpha * h * phi * used[-1][1]
        others = [(node, m) for node, m in used if node is not t]
        r = torch.stack([(node.lam - t.lam) / h for node, _ in others]) if others else f64()
        for m in range(1, len(others) + 1):
            phi = (phi - 1 / math.factorial(m)) / -h
            rows.append(r ** (m - 1))
            sides.append(h * phi * math.factorial(m) / B)
        if not others:
            return linear
        a = torch.linalg.solve(torch.stack(rows), torch.stack(sides))
        m_0 = used[-1][1]
        terms = [a_j / r_j * (m - m_0) for a_j, r_j, (_, m) in zip(a, r, others, strict=True)]
        return linear + s.alpha * B * sum(terms)

    for t, s in pairwise(nodes):
        now = (t, t.m(x_pred))
        if buffer and len(buffer) >= order - 1:
            before = buffer[-order:]
            x = combine(before[-1][0], t, x, [now, *before])
        else:
            x = x_pred
        buffer.append(now)
        if len(buffer) < order - 1:
            x_pred = dpmpp_3s(schedule, t, s, x)
        else:
            x_pred = combine(t, s, x, buffer[-order:])
        out.append(x_pred)
    return out


@pytest.mark.parametrize("order", [1, 2, 3])
@by_schedule
def test_unipc_is_the_paper_s_system(order, schedule):
    nodes = [Paper(schedule, t) for t in times(schedule)]
    got = walked(unipc(schedule, order), schedule, torch.stack([node.t for node in nodes]))
    wanted = unipc_paper(schedule, order, nodes, X)
    torch.testing.assert_close(torch.stack(got), torch.stack(wanted), rtol=1e-10, atol=1e-10)


def test_unipc_s_predictor_is_of_order_two_by_default():
    schedule = VPLinear()
    nodes = torch.stack(times(schedule))
    got = walked(unipc(schedule), schedule, nodes)[-1]
    assert torch.equal(got, walked(unipc(schedule, 2), schedule, nodes)[-1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_into_pure_noise_corrects_the_last_state_first(order):
    """Up the grid: the step to alpha = 0 is Euler's from the corrected x, in finite numbers."""
    schedule = RectifiedFlow()
    denoise = MIXTURE.denoiser(schedule)
    history = tuple((f64(t)[0], torch.roll(X, i, 0)) for i, t in enumerate([0.2, 0.4, 0.6]))
    state = State(X, f64(0.8)[0], history[-order:])
    end = unipc(schedule, order)(denoise, state, state.t, f64(1.0)[0], forbidden_noise)
    x0 = denoise(X, state.t)
    x = combined(*exponential._corrected(schedule, order, state, state.t, x0))
    assert (x - X).abs().max() > 1e-3
    alpha, sigma = schedule(state.t)
    torch.testing.assert_close(end.x, (x - alpha * x0) / sigma, rtol=1e-13, atol=1e-13)
    assert end.history == ()
