"""What the denoiser is told: no alarm on right calls; each wrong time and each wrong input."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

import diffusion_math as dm
from diffusion_math.testing import Sampler, adaptors, audit, ours
from diffusion_math.testing.times_told import TOLERANCE, times_told
from tests.support.wrong_samplers import TABLE, right

pytestmark = pytest.mark.usefixtures("unchecked")

VP = dm.VPLinear()
COUNTS = (1, 3, 20)
LOW, HIGH = VP.time(torch.tensor([3.0, -4.0], dtype=torch.float64))


def ddim(told=lambda t, s: t, shown=lambda x, t: x, schedule=VP, **claims):
    """DDIM whose denoiser is told `told(t, s)` of `shown(x, t)`."""

    def sample(denoise, x, grid, noise):
        for t, s in pairwise(grid):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
            x0 = denoise(shown(x, t), told(t, s))
            x = alpha_s * x0 + sigma_s * (x - alpha_t * x0) / sigma_t
            yield x

    return Sampler("ddim", schedule, sample, lambda n: dm.trailing(schedule, n), **claims)


def worst(sampler, every=True):
    return times_told(sampler, COUNTS, every).worst


RIGHT = {
    "float64": lambda t, x: t,
    "float32": lambda t, x: t.float(),
    "a number": lambda t, x: float(t),
    "a batch": lambda t, x: t.expand(len(x)),
}


@pytest.mark.parametrize("schedule", [VP, TABLE, dm.RectifiedFlow(), dm.VE()], ids=str)
@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_time_of_any_kind_is_right(kind, schedule):
    plain = ddim(schedule=schedule)

    def sample(denoise, x, grid, noise):
        return plain.sample(lambda x, t: denoise(x, RIGHT[kind](t, x)), x, grid, noise)

    assert worst(replace(plain, sample=sample)) < TOLERANCE / 100


def test_a_whole_time_of_a_table_is_right():
    assert worst(ddim(lambda t, s: int(t), schedule=TABLE)) < 1e-9


WRONG = {
    "1% early": lambda t, s: 0.99 * t,
    "1% late": lambda t, s: (1.01 * t).clamp(max=1),
    "1% early at first": lambda t, s: t if t < 1 else 0.99 * t,
    "1% early at last": lambda t, s: t if s > 0 else 0.99 * t,
    "clamped": lambda t, s: t.clamp(LOW, HIGH),
    "the time after": lambda t, s: s,
    "no time of the schedule": lambda t, s: 1.01 * t,
    "not a number": lambda t, s: t * float("nan"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("exact", [True, False])
def test_a_wrong_time_is_found_in_any_step(kind, exact):
    """By its level; and, where levels are not claimed, by the node of the state that is shown."""
    assert worst(ddim(WRONG[kind]), every=exact) > 0.009 > TOLERANCE


@pytest.mark.parametrize("off", [-3, -1, 1])
def test_an_index_that_is_shifted_is_found(off):
    sampler = ddim(lambda t, s: (t + off).clamp(1, 1000), schedule=TABLE)
    assert worst(sampler) > 0.01 and worst(sampler, every=False) > 0.01


def test_a_scaled_input_is_found_wherever_it_is():
    sampler = ddim(shown=lambda x, t: 3 * x if t < LOW or t > HIGH else x)
    assert worst(sampler) > 1
    assert worst(ddim(shown=lambda x, t: 1.01 * x)) > 0.01


def edm_heun(D, x, sigmas, late=1.0):
    for sigma, after in pairwise(sigmas):
        slope = (x - D(x, sigma)) / sigma
        end = x + (after - sigma) * slope
        if after > 0:
            again = (end - D(end, late * after)) / after
            end = x + (after - sigma) * (slope + again) / 2
        x = end
    return x


def edm(function, **claims):
    return Sampler("edm", dm.VE(), adaptors.of_edm(function), partial(dm.karras, dm.VE()), **claims)


def test_a_wrong_time_of_a_second_stage_is_found():
    assert worst(edm(edm_heun, order=2)) < TOLERANCE
    assert worst(edm(partial(edm_heun, late=0.99), order=2)) > 0.009


def test_a_wrong_time_of_noise_that_is_churned_is_found():
    def churned(D, x, sigmas, told=1.0):
        for sigma, after in pairwise(sigmas):
            hat = 1.1 * sigma if after > 0 else sigma
            x = x + (hat**2 - sigma**2).sqrt() * torch.randn_like(x)
            x = x + (after - hat) * (x - D(x, told * hat if hat > sigma else hat)) / hat
        return x

    for most in (100.0, 80.0):  # above 80 the first of its times is none of the schedule
        schedule = dm.VE(most)
        grid = partial(dm.karras, schedule, start=80.0)
        given = partial(Sampler, "churned", schedule, grid=grid, noisy=True)
        assert worst(given(adaptors.of_edm(churned))) < TOLERANCE
        off = adaptors.of_edm(partial(churned, told=1 / 1.1))  # the time before the churn
        assert worst(given(off)) > 0.05


@pytest.mark.parametrize(
    "name", ["dpm2_ancestral", "pndm", "dpmpp_3s", "unipc", "edm_churn", "sde_heun"]
)
def test_stages_and_correctors_of_right_samplers_are_right(name):
    [sampler] = ours(VP, [name])
    assert worst(sampler) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [VP, dm.RectifiedFlow(), TABLE], ids=str)
def test_all_of_ours_tell_the_times_that_they_mean(schedule):
    for sampler in ours(schedule):
        if sampler.name != "adaptive":
            assert worst(sampler, sampler.exact) < TOLERANCE, sampler.name


def test_an_input_that_is_changed_in_place_is_judged_as_it_was():
    def sample(denoise, x, grid, noise):
        for t, s in pairwise(grid):
            x0 = denoise(x, t)
            x.sub_(x0).mul_(s / t).add_(x0)
            yield x

    assert worst(Sampler("in place", dm.VE(), sample, partial(dm.karras, dm.VE()))) < TOLERANCE


def test_calls_of_another_shape_or_of_several_times_are_not_judged():
    def sample(denoise, x, grid, noise):
        twice = torch.cat([x, x])
        denoise(x, torch.linspace(0.1, 1, len(x), dtype=x.dtype) if len(x) > 1 else grid[0])
        return denoise(twice, grid[0])[: len(x)]

    assert times_told(Sampler("two", VP, sample, partial(dm.trailing, VP)), COUNTS) is None


def test_what_cannot_be_run_is_not_judged():
    def sample(denoise, x, grid, noise):
        raise KeyError("lost")

    assert times_told(replace(right("ddim"), sample=sample), COUNTS) is None


def test_the_words_say_which_call_is_told_what():
    words = times_told(ddim(WRONG["1% early at last"]), (20,)).words
    assert words == "call 20 of 20 is told t = 0.0495; its x is 0.9852 x0 + 0.1716 eps"
    words = times_told(ddim(WRONG["1% early at last"]), (20,), every=False).words
    assert words == "call 20 is told t = 0.0495 of the state after step 19, which is at 0.05"


def test_a_wrong_time_that_no_order_shows_is_a_defect():
    """1% early in every step: the errors of a first-order ladder hide it."""
    found = audit(ddim(WRONG["1% early"]), counts=(3,), sweep=(3,), ladder=(8, 16, 32))
    assert {row.check for row in found.defects} == {"times told"}
