"""The rows of an audit for given measurements: verdict and words.

No sampler is run: each measure is replaced by one that returns what a test states and
keeps what it was asked for.
"""

import math
from dataclasses import replace

import pytest
import torch

from diffusion_math.schedule import Discrete, VPLinear
from diffusion_math.testing import (
    Origin,
    Sampler,
    UnsupportedError,
    assert_order,
    assert_sound,
    audit,
    conformance,
    order,
    times_told,
)
from diffusion_math.testing.conformance import Finding
from diffusion_math.testing.convergence import Fit
from diffusion_math.testing.report import Check
from diffusion_math.testing.verdicts import CHECKS, INEXACT

LADDER = (5, 9, 17)
HALF = (2, 4, 8)
WHO = ("library", "1.2", "mine", "a setting")
ERRORS = "errors 0.16, 0.04, 0.012 at (5, 9, 17) steps"


def never(*arguments):
    raise AssertionError("a sampler that is not to be run")


def raised(error):
    raise error


LOST = f"KeyError: 'lost' (test_rows.py, line {raised.__code__.co_firstlineno + 1})"


def fit(of, trend=None):
    trend = of if trend is None else trend
    return Fit(of, of, of, trend, 1.0, (0.4, 0.2, 0.1), (0.16, 0.04, 0.0123), False)


EXACT = Finding(0.0, None, "exact")
SOUND = {
    "grid_faults": EXACT, "idle": EXACT, "finite": EXACT, "levels": EXACT, "image_to_image": EXACT,
    "times_told": EXACT, "residual_noise": EXACT, "flow_order": fit(2.0), "weak_order": fit(2.0),
    "running_order": fit(2.0), "start_order": fit(2.0), "uneven": fit(2.0),
}  # fmt: skip
MINE = Sampler("mine", VPLinear(), never, never, order=2, precision=1e-12)
NOISY = replace(MINE, noisy=True)
ROUGH = replace(MINE, level_tolerance=0.1, rounding="float16")


@pytest.fixture
def given(monkeypatch):
    """Measures return what they are given, or raise it; what they were asked for is returned."""

    def given(sampler, **found):
        asked = {}
        found = {**SOUND, **found}

        def measure(name):
            def measured(seen, *arguments, **options):
                assert seen is sampler
                key = "uneven" if arguments[1:] == (True,) else name
                asked[key] = (*arguments[:1], *options.values())
                return raised(found[key]) if isinstance(found[key], Exception) else found[key]

            return measured

        for name in found:
            module = order if name.endswith("order") else conformance
            module = times_told if name == "times_told" else module
            if name != "uneven":
                monkeypatch.setattr(module, name, measure(name))
        return asked

    return given


@pytest.fixture
def row(given):
    """The row of one check, without where it comes from, which is always the same."""

    def row(check, sampler=MINE, limits=None, **found):
        given(sampler, **found)
        who = Origin("library", "1.2", "a setting", limits or {})
        [one] = [each for each in audit(sampler, who, ladder=LADDER).rows if each.check == check]
        assert (one.library, one.version, one.sampler, one.setting) == WHO
        return one.expected, one.measured, one.verdict, one.note

    return row


def test_the_checks_of_an_audit(given):
    flow = ["grid", "finite", "levels", "image-to-image", "times told", "last noise"]
    flow += ["order", "order of a step", "order, uneven steps"]
    noisy = [*flow[:6], "weak order", "weak order, uneven steps"]
    for sampler, checks in (
        (MINE, flow),
        (NOISY, noisy),
        (replace(MINE, exact=False), [*flow[:2], *flow[4:]]),
        (replace(MINE, any_grid=False), flow[:-1]),
    ):
        given(sampler)
        found = audit(sampler)
        assert [one.check for one in found.rows] == checks
        assert {one.verdict for one in found.rows} == {"sound"}


def test_all_grids_up_to_a_thousand_steps_are_looked_at(given):
    asked = given(MINE)
    audit(MINE, counts=(1, 1000, 1001, 4000), ladder=LADDER)
    assert asked["grid_faults"] == (tuple(range(1, 1001)),)
    for name in ("idle", "finite", "levels", "residual_noise"):
        assert asked[name] == ((1, 1000, 1001, 4000),)
    assert asked["image_to_image"] == (20,)
    assert asked["flow_order"] == asked["uneven"] == (LADDER,)
    assert asked["running_order"] == (HALF,)
    audit(MINE, sweep=(3, 1500))
    assert asked["grid_faults"] == ((3, 1500),) and asked["flow_order"] == ((16, 32, 64, 128),)


def test_a_discrete_schedule_has_no_more_steps_than_times(given):
    few = replace(MINE, schedule=Discrete(torch.linspace(0.1, 0.3, 6, dtype=torch.float64)))
    asked = given(few)
    audit(few, counts=(1, 5, 6, 7))
    assert asked["grid_faults"] == (tuple(range(1, 7)),)
    assert asked["levels"] == ((1, 5, 6),)
    assert asked["image_to_image"] == (6,)


def test_faults_are_counted(row):
    one = Finding(1.0, 7, "6 steps where 7 were asked for")
    for check, name in (("grid", "grid_faults"), ("finite", "finite")):
        assert row(check, **{name: EXACT}) == ("0 faults", 0.0, "sound", "exact")
        expected = ("0 faults", 1.0, "defect", "n = 7: 6 steps where 7 were asked for")
        assert row(check, **{name: one}) == row(check, ROUGH, **{name: one}) == expected
        known = row(check, limits={check: "stated openly"}, **{name: one})
        assert known == ("0 faults", 1.0, "limit", f"stated openly ({expected[3]})")
        assert row(check, limits={check: "stated openly"})[2:] == ("sound", "exact")


def test_steps_that_are_refused_openly_are_told(row):
    told = row("grid", grid_faults=replace(EXACT, refused=3))
    assert told == ("0 faults", 0.0, "sound", "exact; 3 refused openly")


@pytest.mark.parametrize(
    ("check", "name", "runs", "verdict"),
    [
        ("grid", "grid_faults", 2, "defect"),
        ("finite", "finite", 3, "defect"),
        ("levels", "levels", 3, "limit"),
        ("image-to-image", "image_to_image", 4, "limit"),
    ],
)
def test_what_is_refused_altogether_is_not_sound(given, check, name, runs, verdict):
    def told(refused):
        given(MINE, **{name: replace(EXACT, refused=refused)})
        rows = audit(MINE, counts=(1, 2, 3), sweep=(4, 5)).rows
        [one] = [row for row in rows if row.check == check]
        return one.measured, one.verdict, one.note

    note = f"all of {runs} runs are refused openly, so that nothing was run"
    assert told(runs) == ("refused", verdict, note)
    assert told(runs - 1) == (0.0, "sound", f"exact; {runs - 1} refused openly")


def test_the_time_told_may_be_off_by_the_rounding_of_float32(given, row):
    def told(worst, sampler=MINE):
        return row("times told", sampler, times_told=Finding(worst, 4, "call 2"))

    edge = times_told.TOLERANCE
    assert told(edge) == ("at most 0.00049", edge, "sound", "n = 4: call 2")
    assert told(1.1 * edge) == ("at most 0.00049", 1.1 * edge, "defect", "n = 4: call 2")
    assert told(0.05, replace(MINE, level_tolerance=0.1))[2] == "sound"


def test_every_call_is_judged_where_the_levels_are_exact(given):
    for every, sampler, found in (
        (True, MINE, {}),
        (False, MINE, {"levels": Finding(0.5, 4, "step 2")}),
        (False, replace(MINE, exact=False), {}),
    ):
        asked = given(sampler, **found)
        audit(sampler, counts=(1, 2))
        assert asked["times_told"] == ((1, 2), every)


def test_names_that_are_no_checks_are_told():
    with pytest.raises(ValueError, match=r"^limits: wanted names among grid; .*, got 'lvels'$"):
        audit(MINE, Origin(limits={"lvels": "known"}))
    assert len(set(CHECKS)) == 13


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"counts": ()}, r"counts: wanted a number of steps up to 6, got \(\)"),
        ({"counts": (7, 8)}, r"counts: wanted a number of steps up to 6, got \(7, 8\)"),
        ({"sweep": ()}, r"sweep: wanted a number of steps, got \(\)"),
    ],
)
def test_at_least_one_number_of_steps_is_run(given, asked, wanted):
    few = replace(MINE, schedule=Discrete(torch.linspace(0.1, 0.3, 6, dtype=torch.float64)))
    given(few)
    with pytest.raises(ValueError, match=f"^{wanted}$"):
        audit(few, **asked)


@pytest.mark.parametrize(
    ("check", "name"),
    [("levels", "levels"), ("image-to-image", "image_to_image"), ("last noise", "residual_noise")],
)
def test_a_level_may_be_off_by_its_tolerance(row, check, name):
    def told(worst, sampler):
        return row(check, sampler, **{name: Finding(worst, 4, "step 2")})

    fine = replace(MINE, level_tolerance=1e-5)
    assert told(1e-5, fine) == ("at most 1e-05", 1e-5, "sound", "n = 4: step 2")
    hint = f"; {INEXACT}" if check != "last noise" else ""
    assert told(1.1e-5, fine) == ("at most 1e-05", 1.1e-5, "defect", f"n = 4: step 2{hint}")
    single = replace(fine, rounding="float32")
    expected = "at most 1e-05, rounding of float32"
    assert told(1e-5, single) == (expected, 1e-5, "sound", "n = 4: step 2")
    assert told(1.1e-5, single) == (expected, 1.1e-5, "defect", f"n = 4: step 2{hint}")
    assert INEXACT not in told(math.inf, fine)[3]  # a crash


def test_a_tolerance_beyond_a_hundredth_tells_nothing_of_a_level_within(row):
    def told(worst, tolerance=0.1):
        rough = replace(ROUGH, level_tolerance=tolerance)
        return row("levels", rough, levels=Finding(worst, 4, "step 2"))

    expected = "at most 0.1, rounding of float16"
    vague = "float16 is too coarse to tell (n = 4: step 2)"
    assert told(0.05) == (expected, 0.05, "limit", vague)
    assert told(0.1) == (expected, 0.1, "limit", vague)
    assert told(0.0) == (expected, 0.0, "sound", "n = 4: step 2")
    assert told(0.11) == (expected, 0.11, "defect", f"n = 4: step 2; {INEXACT}")
    assert told(0.005, 0.01)[2:] == ("sound", "n = 4: step 2")


def test_steps_of_no_length_are_a_limit(given):
    given(MINE, idle=Finding(2.0, 3, "step 2 stays at t = 1"))
    who = Origin("library", "1.2", "a setting")
    [found] = [one for one in audit(MINE, who, counts=(1, 3, 5)).rows if one.check == "idle steps"]
    note = "n = 3: step 2 stays at t = 1"
    assert found == Check(*WHO, "idle steps", "0 of 3 grids", 2.0, "limit", note)


@pytest.mark.parametrize(
    ("check", "sampler", "name"),
    [("order", MINE, "flow_order"), ("weak order", NOISY, "weak_order"),
     ("order, uneven steps", MINE, "uneven"), ("weak order, uneven steps", NOISY, "uneven")],
)  # fmt: skip
def test_an_order_that_is_refused_is_a_limit_and_a_crash_a_defect(row, check, sampler, name):
    refused = row(check, sampler, **{name: UnsupportedError("no such steps")})
    assert refused == (2, "refused", "limit", "no such steps")
    crashed = row(check, sampler, **{name: KeyError("lost")})
    assert crashed == (2, "crashed", "defect", LOST)


def test_an_order_as_claimed_is_sound(row):
    assert row("order", flow_order=fit(1.66)) == (2, fit(1.66), "sound", "")
    assert row("weak order", NOISY, weak_order=fit(1.66)) == (2, fit(1.66), "sound", "")
    assert row("order", limits={"order": "known"})[2:] == ("sound", "")


def test_an_order_that_is_too_low_is_a_defect_with_its_errors(row):
    assert row("order", flow_order=fit(1.64)) == (2, fit(1.64), "defect", ERRORS)
    assert row("weak order", NOISY, weak_order=fit(1.64)) == (2, fit(1.64), "defect", ERRORS)
    known = row("order", flow_order=fit(1.64), limits={"order": "known"})
    assert known == (2, fit(1.64), "limit", f"known ({ERRORS})")
    hidden = row("order", flow_order=fit(1.64), running_order=ValueError("the last alone"))
    assert hidden == (2, fit(1.64), "defect", ERRORS)


def test_a_first_step_of_lower_order_caps_the_whole(row, given):
    def judged(whole, start, step=2.0, sampler=MINE):
        found = {"flow_order": fit(whole), "weak_order": fit(whole)}
        check = "weak order" if sampler.noisy else "order"
        return row(check, sampler, **found, start_order=fit(start), running_order=fit(step))

    note = f"the first step's order 0.5 caps the whole; {ERRORS}"
    assert judged(1.5, 0.5) == (2, fit(1.5), "limit", note)
    assert judged(1.16, 0.5)[2:] == ("limit", note)
    assert judged(1.14, 0.5)[2:] == ("defect", ERRORS)
    assert judged(1.5, 0.5, step=1.6)[2:] == ("defect", ERRORS)
    assert judged(1.5, 0.5, sampler=NOISY)[2:] == ("defect", ERRORS)
    lost = judged(-math.inf, -math.inf)  # errors that are not finite are no matter of the start
    assert lost[2:] == ("defect", ERRORS)
    asked = given(MINE, flow_order=fit(1.5))
    audit(MINE, ladder=LADDER)
    assert asked["start_order"] == asked["running_order"] == (HALF,)


def test_the_order_of_a_step_is_told(row):
    check, note = "order of a step", "local errors 0.16, 0.04, 0.012"
    assert row(check, running_order=fit(1.66)) == (2, fit(1.66), "sound", "")
    assert row(check, running_order=fit(1.5, trend=1.66))[2:] == ("sound", "")
    low = row(check, running_order=fit(1.64))
    assert low == (2, fit(1.64), "defect", note)
    known = row(check, running_order=fit(1.64), limits={check: "known"})
    assert known == (2, fit(1.64), "limit", f"known ({note})")
    assert row(check, limits={check: "known"})[2:] == ("sound", "")


def test_a_crash_of_single_steps_is_told(row):
    crash = KeyError("lost")
    told = row("order of a step", running_order=crash)
    assert told == (2, "crashed", "defect", LOST)
    low = row("order", flow_order=fit(1.0), running_order=crash)
    assert low == (2, fit(1.0), "defect", ERRORS)


def test_a_sampler_that_shows_its_last_state_alone_has_no_order_of_a_step(given):
    given(MINE, running_order=ValueError("mine: wanted all states, got the last alone"))
    assert "order of a step" not in {one.check for one in audit(MINE).rows}


@pytest.mark.parametrize("sampler", [MINE, NOISY])
def test_the_order_on_uneven_steps_is_told(row, sampler):
    even = "weak_order" if sampler.noisy else "flow_order"
    check = f"{'weak order' if sampler.noisy else 'order'}, uneven steps"

    def told(uneven, of=2.0):
        expected, found, *rest = row(check, sampler, **{even: fit(of)}, uneven=fit(uneven))
        assert (expected, found) == (2, fit(uneven))
        return tuple(rest)

    lower = ("limit", "neighbouring steps that stay unequal lower the order")
    diverges = ("defect", "does not converge where steps are unequal")
    assert told(1.66) == told(1.66, of=3.0) == ("sound", "")
    assert told(1.64) == told(0.66) == told(1.64, of=1.7) == lower
    assert told(0.64) == told(0.64, of=1.5) == diverges
    failed = ("defect", "on even steps it is 1.50 (1.50 to 1.50)")
    assert told(0.66, of=1.5) == told(1.64, of=1.5) == failed
    assert told(0.16, of=0.5) == ("defect", "on even steps it is 0.50 (0.50 to 0.50)")
    assert told(0.14, of=0.5) == diverges
    assert told(-math.inf, of=-math.inf)[0] == "defect"


@pytest.mark.parametrize("sampler", [MINE, NOISY])
def test_an_order_is_asserted(given, sampler):
    name = "weak_order" if sampler.noisy else "flow_order"
    asked = given(sampler, **{name: fit(1.66)})
    assert_order(sampler, 2, LADDER)
    assert asked == {name: (LADDER,)}
    assert_order(sampler, 2)
    assert asked == {name: ((16, 32, 64, 128),)}
    given(sampler, **{name: fit(1.64)})
    with pytest.raises(AssertionError) as told:
        assert_order(sampler, 2, LADDER)
    wanted = "mine: wanted order 2, got 1.64 (1.64 to 1.64); errors 0.16, 0.04, 0.0123 at"
    assert str(told.value).startswith(f"{wanted} (5, 9, 17) steps")


def test_soundness_is_asserted(given):
    given(MINE)
    assert_sound(MINE)
    given(MINE, levels=Finding(0.5, 4, "step 2"))
    with pytest.raises(AssertionError) as told:
        assert_sound(MINE)
    name, head, *defects = str(told.value).splitlines()
    assert name == "mine" and head.startswith("check   expected")
    assert [line.split()[0] for line in defects if line.startswith("levels")] == ["levels"]
    assert not any(line.startswith(("grid", "order")) for line in defects)
    assert_sound(MINE, Origin(limits={"levels": "known"}))
