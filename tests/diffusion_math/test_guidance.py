"""Guided denoisers against the density they claim to follow."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import noise, prediction
from diffusion_math.densities.labelled import Labelled
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.grid import uniform_log_snr
from diffusion_math.guidance import cfg, cfg_batched, limited
from diffusion_math.sample import final
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPLinear
from diffusion_math.solvers.one_step import heun

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
        prediction.eps_from_x0(schedule, X, data.posterior_mean(schedule, X, t), t)
        for data in (EVERYTHING, ONE_CLASS)
    )
    got = prediction.eps_from_x0(schedule, X, guided, t)
    wanted = eps_u + w * (eps_c - eps_u)
    off = ((got - wanted).abs() / (1 + wanted.abs())).max()
    measured(off, 1e-11, "error of the guided eps: rounding times w and 1 / sigma_t^2")

    x = X.clone().requires_grad_()
    power = (1 - w) * EVERYTHING.log_density(schedule, x, t)
    power = power + w * ONE_CLASS.log_density(schedule, x, t)
    (score,) = torch.autograd.grad(power.sum(), x)
    got = prediction.score_from_x0(schedule, X, guided, t)
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


LABELLED = Labelled(EVERYTHING, torch.tensor([0, 0, 1]))
INSIDE = st.floats(0, math.inf).flatmap(lambda low: st.tuples(st.just(low), st.floats(low)))


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x, t):
        self.calls += 1
        return self.denoise(x, t)


def level(schedule, t):
    alpha, sigma = schedule(t)
    return float(sigma / alpha)


def one_label(schedule, w, interval, make=limited):
    """(limited, guided everywhere, conditional) of label 0, the last two counting their calls."""
    conditional = Counted(LABELLED.given(0).denoiser(schedule))
    guided = Counted(cfg(LABELLED.given(0).denoiser(schedule), EVERYTHING.denoiser(schedule), w))
    return make(guided, conditional, schedule, interval), guided, conditional


@given(w=st.floats(0, 20), where=st.sampled_from(TIMES), interval=INSIDE)
def test_inside_it_is_guided_and_outside_conditional(w, where, interval):
    """To the bit, and only the one that counts is called."""
    schedule, t = where[0], torch.tensor(where[1], dtype=torch.float64)
    if interval[0] == interval[1]:
        return
    denoise, guided, conditional = one_label(schedule, w, interval)
    inside = interval[0] <= level(schedule, t) <= interval[1]
    got = denoise(X, t)
    assert (guided.calls, conditional.calls) == ((1, 0) if inside else (0, 1))
    assert got.equal((guided if inside else conditional)(X, t))


@pytest.mark.parametrize("where", TIMES)
def test_both_ends_belong_to_the_interval(where):
    schedule, t = where[0], torch.tensor(where[1], dtype=torch.float64)
    r = level(schedule, t)
    for interval, inside in {
        (r, math.inf): True,
        (0, r): True,
        (math.nextafter(r, math.inf), math.inf): False,
        (0, math.nextafter(r, 0)): False,
    }.items():
        denoise, guided, conditional = one_label(schedule, 3.0, interval)
        denoise(X, t)
        assert (guided.calls, conditional.calls) == ((1, 0) if inside else (0, 1))


@given(w=st.floats(0, 20), t=st.floats(0, 1))
def test_everywhere_is_cfg(w, t):
    """Clean data, r = 0, and pure noise, r = inf, included."""
    time = torch.tensor(t, dtype=torch.float64)
    denoise, guided, conditional = one_label(RectifiedFlow(), w, (0, math.inf))
    assert denoise(X, time).equal(guided(X, time))
    assert conditional.calls == 0


@pytest.mark.parametrize("event", [(), (2,), (1, 2, 3)])
def test_rows_with_times_of_their_own(event):
    """Each row by its own level: r = t / (1 - t) is 1/3, 1 and 3."""
    x = torch.ones(3, *event)
    t = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    denoise = limited(lambda x, t: 7 * x, lambda x, t: x, RectifiedFlow(), (0.5, 2.0))
    assert denoise(x, t).flatten(1).mean(1).tolist() == [1, 7, 1] if event else [1, 7, 1]
    assert denoise(x, t).dtype == x.dtype and denoise(x, t).shape == x.shape


@given(where=st.sampled_from(TIMES), w=st.floats(0, 20))
def test_guidance_bends_the_flow_by_the_classifiers_slope(where, w):
    """(guidance.8): (y - x0_hat) / r, less the conditional's, is -(w - 1) r grad log P(c | y).

    The gradient by autograd of the exact classifier, in y = x / alpha.
    """
    schedule, t = where[0], torch.tensor(where[1], dtype=torch.float64)
    alpha, _ = schedule(t)
    r = level(schedule, t)
    denoise, _, conditional = one_label(schedule, w, (r / 2, 2 * r))
    y = (X / alpha).requires_grad_()
    (slope,) = torch.autograd.grad(LABELLED.log_posterior(schedule, alpha * y, t)[:, 0].sum(), y)
    got = ((y - denoise(X, t)) - (y - conditional(X, t))) / r
    torch.testing.assert_close(got.detach(), -(w - 1) * r * slope, rtol=1e-9, atol=1e-9)


def guide_below(guided, conditional, schedule, interval):
    return limited(guided, conditional, schedule, (0, interval[1]))


def swap(guided, conditional, schedule, interval):
    return limited(conditional, guided, schedule, interval)


def by_sigma(guided, conditional, schedule, interval):
    """sigma_t in the place of sigma_t / alpha_t: right for VE alone."""
    low, high = interval

    def denoise(x, t):
        return guided(x, t) if low <= schedule(t)[1] <= high else conditional(x, t)

    return denoise


def by_time(guided, conditional, schedule, interval):
    low, high = interval
    return lambda x, t: guided(x, t) if low <= t <= high else conditional(x, t)


@pytest.mark.parametrize("wrong", [guide_below, swap, by_sigma, by_time])
def test_wrong_intervals_are_rejected(wrong):
    """On VP from below to above (0.8, 3), each is somewhere another denoiser."""
    schedule, interval = VPLinear(), (0.8, 3.0)
    levels = torch.tensor([0.75, 0.9, 1.5, 2.5, 5.0], dtype=torch.float64)
    times = schedule.time(-2 * levels.log())
    right, *_ = one_label(schedule, 3.0, interval)
    other, *_ = one_label(schedule, 3.0, interval, wrong)
    off = [(right(X, t) - other(X, t)).abs().max() for t in times]
    assert max(off) > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # shapes have tests of their own
def test_a_jump_inside_a_step_costs_an_order():
    """Heun is of order 2 with two nodes at each jump, and falls short of it without.

    Where in its step a jump falls changes with the number of steps, and the error with it: hence
    the worst of three numbers. At order 2 four times the steps divide it by 16, at order 1 by 4.
    """
    schedule, interval = VPLinear(), (0.3, 2.0)
    denoise, *_ = one_label(schedule, 3.0, interval)
    ends = torch.tensor([r * (1 + off) for r in interval for off in (-1e-6, 1e-6)]).double()
    nodes = schedule.time(-2 * ends.log())

    def end(steps, cut):
        grid = uniform_log_snr(schedule, steps, end=0.01)
        if cut:
            grid = torch.cat([grid, nodes]).unique().flip(0)
        state = final(heun(schedule), denoise, X, grid, noise.zeros)
        return state

    true = end(1000, True)

    def worst(steps, cut):
        numbers = (steps + 1, steps + 5, steps + 7)
        return max(float((end(n, cut) - true).abs().max()) for n in numbers)

    assert worst(160, True) < worst(40, True) / 12
    assert worst(160, False) > worst(40, False) / 8
    assert worst(160, False) > 3 * worst(160, True)


@pytest.mark.parametrize(
    "interval", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (1.0,)]
)
def test_bad_intervals_are_rejected(interval):
    with pytest.raises(ValueError, match="interval: wanted two numbers, 0 <= low < high, got"):
        limited(never, never, VPLinear(), interval)
