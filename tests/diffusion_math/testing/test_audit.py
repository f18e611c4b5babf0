"""The audit tells right from wrong: no alarm on right samplers, a defect on each mistake."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diffusion_math import gaussian
from diffusion_math.schedule import Discrete, RectifiedFlow, VPLinear
from diffusion_math.testing import Origin, UnsupportedError, assert_order, assert_sound, audit, ours
from diffusion_math.testing.convergence import fit_order
from diffusion_math.testing.report import Check, Report
from tests.support.wrong_samplers import GUESSED, LATE, RISING, SQUARED, TABLE, THIRD, right

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SHORT = {"counts": (1, 2, 7), "sweep": (1, 2, 3, 10), "ladder": (12, 24, 48)}
NAMES = ("ddpm", "ddim", "dpmpp_2m_sde", "unipc")


def defects(sampler, **how):
    return {row.check for row in audit(sampler, **{**SHORT, **how}).defects}


@pytest.mark.parametrize("name", NAMES)
def test_right_samplers_are_sound(name):
    found = audit(right(name, TABLE), **SHORT)
    assert found.sound, found


ROUNDED = {"lms": 1e-8, "plms": 1e-7, "dpm_solver_3s": 1e-8, "pndm": 1e-5}
"""Errors of a level: each stage in eps from alpha = 5e-5, where cosine's table begins, multiplies
rounding by 1e4, and these have two to four. Four leave nothing, so pndm begins a time later, where
alpha = 1.6e-3."""


def later(sampler):
    """From the last time but one, on grids that are otherwise its own."""

    def grid(n):
        return torch.cat([torch.tensor([sampler.schedule.T - 1.0]), sampler.grid(n)[1:]])

    return replace(sampler, grid=grid)


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule", [VPLinear(), RectifiedFlow(), Discrete.cosine()], ids=["vp", "flow", "cosine"]
)
def test_all_of_ours_are_sound_on_every_schedule(schedule):
    for sampler in ours(schedule):
        if sampler.name != "adaptive":  # its steps are not those that are asked for
            ladder = (16, 32, 64, 128) if sampler.name == "lms" else SHORT["ladder"]
            if isinstance(schedule, Discrete) and sampler.name in ROUNDED:
                sampler = replace(sampler, level_tolerance=ROUNDED[sampler.name])
                sampler = later(sampler) if sampler.name == "pndm" else sampler
            found = audit(sampler, **{**SHORT, "ladder": ladder, "sweep": tuple(range(1, 101))})
            assert found.sound, f"{sampler.name}\n{found}"


def test_a_lost_factor_of_two_is_a_defect():
    """The global order alone would call it a slow start: the step's own order does not."""
    assert "order of a step" in defects(THIRD, ladder=(16, 32, 64, 128))
    assert defects(right("dpmpp_3m")) == set()


def test_a_guessed_previous_time_is_a_defect():
    assert {"levels", "image-to-image", "order"} <= defects(GUESSED)


def test_a_variance_for_its_root_is_a_defect():
    assert {"levels", "weak order"} <= defects(SQUARED)


def test_noise_in_the_last_step_is_a_defect():
    assert "last noise" in defects(LATE)
    assert "last noise" not in defects(right("ddpm"))


@pytest.mark.parametrize("last", [False, True])
def test_a_wider_variance_is_right_with_exact_false_but_for_noise_in_its_last_step(last):
    """DDPM with the variance beta_t; the row of its levels says which claim is for it."""

    def sample(denoise, x, grid, noise):
        for t, s in pairwise(grid):
            q = gaussian.posterior(TABLE, x, denoise(x, t), t, s)
            (alpha_t, sigma_t), (alpha_s, sigma_s) = TABLE(t), TABLE(s)
            wide = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
            x = q.mean + wide.sqrt() * noise(x, t, s) * float(s > 0 or last)
            yield x

    mine = replace(right("ddpm", TABLE), sample=sample)
    [row] = [row for row in audit(mine, **SHORT).rows if row.check == "levels"]
    assert row.verdict == "defect" and "exact=False" in row.note
    loose = replace(mine, exact=False)
    assert defects(loose) == ({"last noise"} if last else set())


def test_a_grid_that_rises_is_a_defect():
    found = audit(RISING, **SHORT)
    [row] = [row for row in found.rows if row.check == "grid"]
    assert row.verdict == "defect" and row.value == 2  # n = 3 and n = 10
    assert "step 2 goes from" in row.note


def test_a_sampler_that_crashes_is_a_defect_and_one_that_refuses_a_limit():
    def crashes(denoise, x, grid, noise):
        raise KeyError("lost")

    def refuses(n):
        raise UnsupportedError("no such number of steps")

    broken = replace(right("ddim"), sample=crashes)
    rows = {row.check: row for row in audit(broken, **SHORT).rows}
    assert "KeyError" in rows["levels"].note and rows["order"].verdict == "defect"
    refused = audit(replace(right("ddim"), grid=refuses, any_grid=False), **SHORT)
    assert {row.check for row in refused.defects} == {"grid", "finite"}  # nothing was run
    assert [row.verdict for row in refused.rows if row.check == "order"] == ["limit"]


def test_states_that_are_not_finite_are_a_defect():
    def lost(denoise, x, grid, noise):
        return x * float("nan")

    assert {"finite", "levels", "order"} <= defects(replace(right("ddim"), sample=lost))


def test_a_limit_that_is_known_is_no_defect():
    who = Origin("library", "1", "setting", {"levels": "stated openly", "weak order": "so too"})
    found = audit(SQUARED, who, **SHORT)
    limits = {row.check: row.note for row in found.rows if row.verdict == "limit"}
    assert limits["levels"].startswith("stated openly")
    assert found.rows[0].library == "library" and found.rows[0].setting == "setting"


def test_idle_steps_are_a_limit():
    def grid(n):
        return torch.cat([right("ddim", TABLE).grid(n)[:-1], torch.tensor([1.0, 1.0])])

    found = audit(replace(right("ddim", TABLE), grid=grid), **SHORT)
    assert [row.verdict for row in found.rows if row.check == "idle steps"] == ["limit"]


@pytest.mark.slow
def test_the_helpers_for_your_own_tests():
    assert_order(right("heun"), 2)
    assert_sound(right("ddim", TABLE))
    with pytest.raises(AssertionError, match=r"ddim: wanted order 2, got 1\.0"):
        assert_order(right("ddim"), 2)
    with pytest.raises(AssertionError, match="last noise"):
        assert_sound(LATE)


def test_the_report_prints_and_adds():
    found = audit(right("ddim", TABLE), **SHORT)
    text = str(found)
    assert text.splitlines()[0].split() == ["check", "expected", "measured", "verdict", "note"]
    assert len(text.splitlines()) == len(found.rows) + 1
    assert len((found + found).rows) == 2 * len(found.rows)
    assert found.records()[0]["check"] == "grid"


def test_a_check_carries_its_fit_and_shows_it_as_words():
    fit = fit_order((0.4, 0.2, 0.1), (0.16, 0.04, 0.01), 0.0)
    check = Check("", "", "heun", "", "order", 2, fit, "sound")
    assert check.value == fit.order == pytest.approx(2)
    assert check.shown == "2.00 (2.00 to 2.00)"
    assert Report((check,)).records()[0] == {
        "library": "", "version": "", "sampler": "heun", "setting": "", "check": "order",
        "expected": "2", "measured": "2.00 (2.00 to 2.00)", "verdict": "sound", "note": "",
        "value": fit.order,
    }  # fmt: skip
    words = {math.nan: "not finite", 0.0: "exact to rounding"}
    for error, shown in words.items():
        assert str(fit_order((0.4, 0.2, 0.1), (error,) * 3, 0.0)) == shown
    number, refused = replace(check, measured=0.12345), replace(check, measured="refused")
    assert (number.value, number.shown) == (0.12345, "0.123")
    assert (refused.value, refused.shown) == (None, "refused")


def test_names_of_ours_are_known():
    with pytest.raises(ValueError, match="names: wanted names among ddpm"):
        ours(VPLinear(), ("dppm",))
