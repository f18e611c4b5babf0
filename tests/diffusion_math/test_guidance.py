"""Guided denoisers against the density they claim to follow."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import predict
from diffusion_math.guidance import cfg, cfg_batched
from diffusion_math.oracle import GaussianMixture
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPLinear

MEANS = torch.tensor([[1.0, -1.0], [-0.5, 0.5], [0.3, 2.0]], dtype=torch.float64)
VARIANCES = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64)
EVERYTHING = GaussianMixture(torch.tensor([0.2, 0.5, 0.3]).log(), MEANS, VARIANCES)
ONE_CLASS = GaussianMixture(torch.tensor([0.2, 0.5]).log(), MEANS[:2], VARIANCES[:2])
TIMES = [
    (VPLinear(), 0.3),
    (VE(), 2.0),
    (RectifiedFlow(), 0.7),
    (Discrete.scaled_linear(1000), 400.0),
]
X = torch.tensor([[0.1, 0.2], [1.5, -1.0], [-2.0, 3.0]], dtype=torch.float64)


def pair_of(schedule):
    def pair(x, t):
        unconditional = EVERYTHING.posterior_mean(schedule, x, t)
        return unconditional, ONE_CLASS.posterior_mean(schedule, x, t)

    return pair


def never(x, t):
    raise AssertionError("this denoiser must not be called")


@pytest.mark.claim("C29", "diffusion_math.guidance.cfg")
@given(where=st.sampled_from(TIMES), w=st.floats(0, 20))
def test_guidance_is_one_line_in_eps_and_in_the_score(measured, where, w):
    """C29: eps = eps_u + w (eps_c - eps_u), and the score is that of q(x)^(1-w) q(x|c)^w.

    The score comes from autograd of the two log-densities, not from the denoisers. Tolerance:
    1e-15 times w <= 20 and 1 / sigma_t^2 <= 30, and a margin of 10.
    """
    schedule, t = where[0], torch.tensor(where[1], dtype=torch.float64)
    guided = cfg(ONE_CLASS.denoiser(schedule), EVERYTHING.denoiser(schedule), w)(X, t)
    eps_u, eps_c = (
        predict.eps_from_x0(schedule, X, data.posterior_mean(schedule, X, t), t)
        for data in (EVERYTHING, ONE_CLASS)
    )
    got = predict.eps_from_x0(schedule, X, guided, t)
    wanted = eps_u + w * (eps_c - eps_u)
    off = ((got - wanted).abs() / (1 + wanted.abs())).max()
    measured(off, 1e-11, "error of the guided eps: rounding times w and 1 / sigma_t^2")

    x = X.clone().requires_grad_()
    power = (1 - w) * EVERYTHING.log_density(schedule, x, t)
    power = power + w * ONE_CLASS.log_density(schedule, x, t)
    (score,) = torch.autograd.grad(power.sum(), x)
    got = predict.score_from_x0(schedule, X, guided, t)
    torch.testing.assert_close(got, score, rtol=1e-11, atol=1e-11)


WRONG = {
    "the paper's own scale, (1 + w) c - w u": lambda u, c, w: (1 + w) * c - w * u,
    "conditional and unconditional swapped": lambda u, c, w: c + w * (u - c),
    "starting at the conditional": lambda u, c, w: c + w * (c - u),
    "flipped sign": lambda u, c, w: u - w * (c - u),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_versions_are_rejected(name):
    """C29: at w = 3 each wrong formula is far from the guided denoiser."""
    schedule, t = VPLinear(), torch.tensor(0.3, dtype=torch.float64)
    right = cfg_batched(pair_of(schedule), 3.0)(X, t)
    assert (WRONG[name](*pair_of(schedule)(X, t), 3.0) - right).abs().max() > 0.1


@given(w=st.floats(0, 20), where=st.sampled_from(TIMES))
def test_one_pass_or_two_give_the_same(w, where):
    """`cfg_batched` is `cfg`; at w = 1, u + (c - u) may differ from c by rounding."""
    schedule, t = where[0], torch.tensor(where[1], dtype=torch.float64)
    two = cfg(ONE_CLASS.denoiser(schedule), EVERYTHING.denoiser(schedule), w)(X, t)
    one = cfg_batched(pair_of(schedule), w)(X, t)
    torch.testing.assert_close(one, two, rtol=1e-14, atol=1e-14)


def test_the_ends_call_one_denoiser_only():
    """C29: w = 1 is the conditional itself, w = 0 the unconditional itself."""
    schedule, t = VPLinear(), torch.tensor(0.3, dtype=torch.float64)
    conditional, unconditional = ONE_CLASS.denoiser(schedule), EVERYTHING.denoiser(schedule)
    assert cfg(conditional, never, 1)(X, t).equal(conditional(X, t))
    assert cfg(never, unconditional, 0.0)(X, t).equal(unconditional(X, t))


def test_float32_stays_float32():
    """A float scale does not promote the prediction."""
    guided = cfg(lambda x, t: x, lambda x, t: 2 * x, 7.5)
    assert guided(torch.ones(2, 3), torch.tensor(1.0)).dtype == torch.float32


@pytest.mark.parametrize("scale", [-1.0, -1e-9, math.nan, math.inf])
@pytest.mark.parametrize("make", [lambda w: cfg(never, never, w), lambda w: cfg_batched(never, w)])
def test_bad_scales_are_rejected(make, scale):
    """Negative, NaN and infinite scales fail when the denoiser is made, not in the loop."""
    with pytest.raises(ValueError, match="scale: wanted a finite number of at least 0, got"):
        make(scale)
