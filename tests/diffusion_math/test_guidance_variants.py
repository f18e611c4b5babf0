"""Variants of guidance: the line with a weight, rescaled and projected predictions."""

import math
import re

import pytest
import torch

from diffusion_math import noise
from diffusion_math.guidance import (
    cfg_batched,
    cosine,
    limited,
    projected,
    rescaled,
    together,
    weighted,
)
from diffusion_math.schedule import VE, RectifiedFlow, VPLinear
from diffusion_math.solvers.one_step import ddim
from diffusion_math.solvers.step import State

STRAIGHT, T = RectifiedFlow(), torch.tensor(0.4, dtype=torch.float64)
X = torch.tensor([[0.1, 0.2, -0.7], [1.5, -1.0, 0.4]], dtype=torch.float64)
U = torch.tensor([[1.0, -2.0, 0.5], [1.3, 1.1, 0.6]], dtype=torch.float64)
C = torch.tensor([[0.5, 1.0, -1.0], [4.0, 1.7, 2.9]], dtype=torch.float64)


def pair(x_t, t):
    return U, C


def never(x_t, t):
    raise AssertionError("this denoiser must not be called")


def close(got, wanted, atol=1e-12):
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=atol)


def test_together_has_the_pairs_order():
    u, c = together(lambda x_t, t: C, lambda x_t, t: U)(X, T)
    assert u.equal(U) and c.equal(C)


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0, 3.0, 20.0])
def test_the_special_cases_are_plain_guidance(w):
    """A constant weight, a share of 0, an eta of 1 without a limit: each is `cfg_batched`."""
    plain = cfg_batched(pair, w)(X, T)
    close(weighted(pair, STRAIGHT, lambda r: torch.full_like(r, w))(X, T), plain)
    close(rescaled(pair, w, 0)(X, T), plain)
    close(projected(pair, w, 1)(X, T), plain)


@pytest.mark.parametrize("variant", [rescaled, projected])
def test_w_of_one_is_the_conditional(variant):
    close(variant(pair, 1)(X, T), C)


@pytest.mark.parametrize("schedule", [STRAIGHT, VPLinear(), VE()])
def test_a_step_of_weight_is_the_interval(schedule):
    """(guidance.7) is (guidance.10) with a weight of 1 outside; each row by its own level."""
    t = schedule.time(-2 * torch.tensor([0.2, 1.0], dtype=torch.float64).log())
    guided = cfg_batched(pair, 4.0)
    wanted = limited(guided, lambda x_t, t: pair(x_t, t)[1], schedule, (0.5, 2.0))(X, t)
    step = weighted(pair, schedule, lambda r: torch.where((r >= 0.5) & (r <= 2), 4.0, 1.0).double())
    close(step(X, t), wanted)
    close(wanted[0], C[0])


def test_the_cosine_weight():
    """(guidance.11): 2 w - 1 at clean data, w at r = 1, 1 at pure noise, w on average over tau."""
    weight = cosine(4.0)
    close(
        weight(torch.tensor([0.0, 1.0, math.inf], dtype=torch.float64)),
        torch.tensor([7.0, 4.0, 1.0], dtype=torch.float64),
    )
    tau = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    found = weight(tau / (1 - tau))
    assert found.mean().item() == pytest.approx(4, rel=1e-12)
    assert (found.diff() < 0).all()
    assert cosine(1)(tau).equal(torch.ones_like(tau))


@pytest.mark.parametrize("schedule", [STRAIGHT, VPLinear()])
def test_cfgpp_is_the_line_with_a_weight_of_both_ends(schedule):
    """(guidance.12): the guided x0 and the unconditional eps in DDIM's step, by hand."""
    t, s, share = torch.tensor(0.8).double(), torch.tensor(0.5).double(), 0.6
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    wanted = alpha_s * (U + share * (C - U)) + sigma_s * (X - alpha_t * U) / sigma_t
    ratio = sigma_s * alpha_t / (alpha_s * sigma_t)
    denoise = weighted(pair, schedule, lambda r: share / (1 - ratio) * torch.ones_like(r))
    close(ddim(schedule)(denoise, State(X, t), t, s, noise.zeros).x, wanted)


@pytest.mark.parametrize(("w", "share"), [(0.0, 0.5), (1.0, 1.0), (3.0, 0.7), (20.0, 0.1)])
def test_rescaling_sets_the_deviation(w, share):
    """(guidance.13): the deviation is the mixture of both, the direction the guided one's."""
    plain = cfg_batched(pair, w)(X, T)
    got = rescaled(pair, w, share)(X, T)
    close(got.std(1), share * C.std(1) + (1 - share) * plain.std(1))
    close(got * plain.norm(dim=1, keepdim=True), plain * got.norm(dim=1, keepdim=True), 1e-9)


def test_no_deviation_is_left_as_it_is():
    flat = torch.ones_like(U)
    got = rescaled(lambda x_t, t: (flat, 3 * flat), 2.0, 1)(X, T)
    assert got.equal(5 * flat)


@pytest.mark.parametrize(("w", "parallel"), [(0.0, 0.5), (3.0, 0.0), (7.5, 0.3)])
def test_the_projections_parts(w, parallel):
    """(guidance.14): eta times of the part along C, all of the part across it."""
    update = projected(pair, w, parallel)(X, T) - C
    d = C - U
    close((update * C).sum(1), (w - 1) * parallel * (d * C).sum(1))
    across = torch.linalg.cross(C, update)
    close(across, (w - 1) * torch.linalg.cross(C, d))


def test_the_updates_length_is_limited():
    """Rows of the lengths 5 and 0.5, at most 1: the first is shortened, the other is not."""
    c = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)
    got = projected(lambda x_t, t: (0 * c, c), 2.0, 1, 1.0)(X[:, :2], T)
    close(got - c, torch.tensor([[0.6, 0.8], [0.3, 0.4]], dtype=torch.float64))


@pytest.mark.parametrize("longest", [1e-300, 1e-200, 1e-20, 1.0, 1e200, 1e300])
@pytest.mark.parametrize("size", [1e-200, 1e-20, 1.0, 1e20, 1e150])
def test_every_length_is_a_valid_one(longest, size):
    """The squares of 1e200 are infinite, those of 1e-200 are 0: lengths are not."""
    c = size * torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    u = torch.zeros_like(c)
    got = projected(lambda x_t, t: (u, c), 2.0, 1, longest)(X[:, :2], T)
    moved = min(1.0, longest / (5 * size)) * c
    torch.testing.assert_close(got, c + moved, rtol=1e-14, atol=0)
    across = torch.tensor([[-4.0, 3.0]], dtype=torch.float64) * size
    got = projected(lambda x_t, t: (c - across, c), 2.0, 0, longest)(X[:, :2], T)
    moved = min(1.0, longest / (5 * size)) * across
    torch.testing.assert_close(got, c + moved, rtol=1e-14, atol=1e-14 * size)


@pytest.mark.parametrize("make", [rescaled, projected])
def test_guidance_of_a_prediction_has_a_slope_everywhere(make):
    """Rows without spread, update or length too: a density of the guided flow asks for it."""
    c = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 2.0, 4.0]], dtype=torch.float64)
    x = X[:1].expand(3, -1).clone().requires_grad_(True)
    got = make(lambda x_t, t: (0 * x_t, c + 0 * x_t), 3.0, 0.5)(x, T)
    (slope,) = torch.autograd.grad(got.sum(), x)
    assert slope.isfinite().all()


def test_nothing_is_along_zero():
    got = projected(lambda x_t, t: (-U, 0 * U), 3.0)(X, T)
    close(got, 2 * U)


def test_events_of_many_axes_and_float32():
    """Rows are events: (batch, 1, 3) is (batch, 3), and float32 stays float32."""

    def shaped(x_t, t):
        return U.float()[:, None], C.float()[:, None]

    x = X.float()[:, None]
    for make in (rescaled, projected):
        got = make(shaped, 3.0)(x, T)
        assert got.dtype == torch.float32 and got.shape == (2, 1, 3)
        torch.testing.assert_close(got[:, 0].double(), make(pair, 3.0)(X, T), rtol=1e-5, atol=1e-5)
    got = weighted(shaped, STRAIGHT, cosine(3.0))(x, T)
    assert got.dtype == torch.float32 and got.shape == (2, 1, 3)


CASES = [
    (lambda: cosine(0.5), "scale: wanted a finite number of at least 1, got 0.5"),
    (lambda: cosine(math.inf), "scale: wanted a finite number of at least 1, got inf"),
    (lambda: rescaled(never, -1.0), "scale: wanted a finite number of at least 0, got -1.0"),
    (lambda: rescaled(never, 2, 1.5), "share: wanted a number in [0, 1], got 1.5"),
    (lambda: projected(never, math.nan), "scale: wanted a finite number of at least 0, got nan"),
    (lambda: projected(never, 2, -0.5), "parallel: wanted a number in [0, 1], got -0.5"),
    (lambda: projected(never, 2, 0, 0), "longest: wanted a number > 0, got 0"),
    (lambda: projected(never, 2, 0, math.nan), "longest: wanted a number > 0, got nan"),
    (
        lambda: rescaled(never, 2)(X[:, :1], T),
        "x_t: wanted events of at least two entries, got (2, 1)",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_messages(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_weights(bad):
    with pytest.raises(ValueError, match=r"^weight: wanted "):
        weighted(never, STRAIGHT, lambda r: torch.full_like(r, bad))(X, T)


WRONG = {
    "deviation about zero": lambda u, c, g: c.norm(dim=1) / g.norm(dim=1) * g.T,
    "the unconditional's deviation": lambda u, c, g: u.std(1) / g.std(1) * g.T,
    "the ratio upside down": lambda u, c, g: g.std(1) / c.std(1) * g.T,
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rescalings_are_rejected(name):
    right = rescaled(pair, 3.0, 1)(X, T)
    assert (WRONG[name](U, C, cfg_batched(pair, 3.0)(X, T)).T - right).abs().max() > 0.1


def seen(x_t, t):
    """A pair of what it is asked about: u = x t, c = x + t, so that nothing can be left out."""
    return x_t * t, x_t + t


def test_every_variant_hands_on_x_and_t():
    u, c = seen(X, T)
    close(weighted(seen, STRAIGHT, lambda r: torch.full_like(r, 3.0))(X, T), u + 3 * (c - u))
    close(rescaled(seen, 3.0, 0)(X, T), u + 3 * (c - u))
    close(projected(seen, 3.0, 1)(X, T), u + 3 * (c - u))
    both = together(lambda x_t, t: x_t + t, lambda x_t, t: x_t * t)(X, T)
    close(both[0], u)
    close(both[1], c)


def test_rows_of_an_interval_hand_on_x_and_t():
    """Rows on both sides of it: each denoiser sees the rows' times."""
    t = torch.tensor([0.4, 0.9], dtype=torch.float64)
    found = limited(
        lambda x_t, t: x_t * t[:, None], lambda x_t, t: x_t + t[:, None], STRAIGHT, (0.0, 1.0)
    )
    close(found(X, t), torch.stack([X[0] * 0.4, X[1] + 0.9]))


def test_projection_by_hand():
    """Without the parallel part by default; where x0_c is short; and where L is no round number."""
    d = C - U
    close(projected(pair, 3.0)(X, T), C + 2 * _across(C))
    close(projected(lambda x_t, t: (U, C / 10), 3.0, 0)(X, T), C / 10 + 2 * _across(C / 10))
    length = d.norm(dim=1, keepdim=True)
    longest = float(length.min()) * 0.9  # longest^3 is longer than longest^2, and than the shorter
    cut = d * (longest / length)
    assert longest > 1 and longest**3 > float(length.min()) ** 2
    close(projected(pair, 3.0, 1, longest)(X, T), C + 2 * cut)


def _across(c):
    d = c - U
    return d - (d * c).sum(1, keepdim=True) / c.square().sum(1, keepdim=True) * c
