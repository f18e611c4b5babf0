"""Samplers as other people write them: float32 tables, noise of their own, results of other types.

A right one is no defect by its rounding, a verdict that would be random is withheld, and what goes
wrong in its code is a row or one line.
"""

import re
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from diffusion_math.grid import trailing
from diffusion_math.schedule import Discrete, VPLinear
from diffusion_math.testing import Origin, Sampler, assert_order, assert_sound, audit
from diffusion_math.testing.noise_use import noise_use
from diffusion_math.testing.rounding import narrowest
from diffusion_math.testing.sampler import ours
from tests.support.powered_samplers import powered
from tests.support.wrong_samplers import right

pytestmark = pytest.mark.usefixtures("unchecked")  # types that are not right are what is tried

SCHEDULE = VPLinear()
SHORT = {"counts": (2, 5), "sweep": (2,), "ladder": (8, 16, 32)}
BETAS = torch.linspace(1e-4, 0.02, 1000)  # float32, as most code has it
ABAR = torch.cumprod(1 - BETAS, 0)
TABLE = Discrete(BETAS.double())


def rows(sampler, **how):
    return {row.check: row for row in audit(sampler, **{**SHORT, **how}).rows}


def of_table(level, grow=1.0):
    """DDIM with alpha-bar of `level(index)`; its deviations too large by a factor."""

    def sample(denoise, x, grid, noise):
        for t, s in pairwise(grid):
            here, there = level(int(t) - 1), level(int(s) - 1) if s > 0 else 1.0
            x0 = denoise(x, t)
            eps = (x - here**0.5 * x0) / (1 - here) ** 0.5
            x = there**0.5 * x0 + grow * (1 - there) ** 0.5 * eps
            yield x

    return Sampler("table", TABLE, sample, lambda n: trailing(TABLE, n), any_grid=False)


NUMPY = ABAR.numpy()
TABLES = {
    "tensors": lambda k: ABAR[k],
    "items": lambda k: ABAR[k].item(),
    "floats": lambda k: float(ABAR[k]),
    "gathered": lambda k: ABAR.gather(0, torch.tensor([k])),
    "numpy's scalars": lambda k: NUMPY[k],
}


@pytest.mark.parametrize("way", TABLES)
def test_a_table_in_float32_is_no_defect(way):
    """x stays in float64, and so do its states: the operands show the dtype."""
    sampler = of_table(TABLES[way])
    assert narrowest(sampler) == torch.float32
    found = audit(sampler, **SHORT)
    assert found.sound, found
    assert {row.expected for row in found.rows if row.check == "levels"} == {
        "at most 0.00049, rounding of float32"
    }


def test_a_table_that_is_not_seen_needs_a_tolerance_that_is_declared():
    sampler = of_table(lambda k: float(NUMPY[k]))
    assert narrowest(sampler) == torch.float64
    assert rows(sampler)["levels"].verdict == "defect"
    assert audit(replace(sampler, precision=1e-7, level_tolerance=5e-4), **SHORT).sound


def test_one_percent_is_a_defect_in_float32_too():
    assert rows(of_table(lambda k: ABAR[k], grow=1.01))["levels"].verdict == "defect"


def test_constants_of_few_bits_do_not_lower_the_precision():
    def sample(denoise, x, grid, noise):
        half = torch.tensor(0.5)
        for state in right("ddim").sample(denoise, x, grid, noise):
            torch.ones(2) * torch.arange(999.0)[-1] * half
            yield 2 * half * state

    assert narrowest(replace(right("ddim"), sample=sample)) == torch.float64


def ancestral(draw):
    """DDPM whose normals are those of `draw(like, noise, t, s)`."""

    def sample(denoise, x, grid, noise):
        return right("ddpm").sample(denoise, x, grid, lambda x, t, s: draw(x, noise, t, s))

    return replace(right("ddpm"), sample=sample)


def remembering(noisy=False):
    """A sampler that keeps its last state from one run to the next."""
    kept = [0.0]

    def sample(denoise, x, grid, noise):
        for state in right("ddpm" if noisy else "ddim").sample(denoise, x, grid, noise):
            kept[0] = kept[0] + state.mean()
            yield state + 0.1 * kept[0]

    return replace(right("ddpm" if noisy else "ddim"), sample=sample)


def seeded(x, noise, t, s):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)


OWN = {
    "its own": (
        ancestral(lambda x, noise, t, s: torch.randn_like(x)),
        "never called",
        r"noise\(x, t, s\) is never called; two runs with one x and one noise differ by \d",
    ),
    "by a seed": (ancestral(seeded), "never called", "it draws none, or by a seed"),
    "none": (replace(right("ddim"), noisy=True), "never called", "it draws none, or by a seed"),
    "both": (
        ancestral(lambda x, noise, t, s: noise(x, t, s) + 0.1 * torch.randn_like(x)),
        "runs differ",
        "it draws noise of its own, or keeps something from the run before",
    ),
    "not noisy": (
        replace(ancestral(lambda x, noise, t, s: torch.randn_like(x)), noisy=False),
        "runs differ",
        "it draws noise of its own, or keeps",
    ),
    "remembers": (remembering(), "runs differ", "or keeps something from the run before"),
    "remembers, noisy": (remembering(noisy=True), "runs differ", "or keeps something"),
}


@pytest.mark.parametrize("case", OWN)
def test_what_is_random_is_told_and_not_judged(case):
    sampler, fault, detail = OWN[case]
    found = rows(sampler)
    assert list(found) == ["grid", "finite", "noise"]
    row = found["noise"]
    assert (row.verdict, row.measured) == ("defect", fault)
    assert re.search(detail, row.note) and row.note.endswith("levels and orders are not judged")
    with pytest.raises(AssertionError, match=detail):
        assert_order(sampler, 1)
    with pytest.raises(AssertionError, match="noise"):
        assert_sound(sampler)


def test_noise_that_is_not_claimed_is_told():
    found = rows(replace(right("ddpm"), noisy=False))
    assert found["noise"].verdict == "defect" and found["noise"].measured == "noisy"
    assert found["noise"].note.startswith("noise(x, t, s) changes a state by ")
    assert "levels" in found  # exact all the same


def test_noise_of_no_effect_is_none():
    def sample(denoise, x, grid, noise):
        for (t, s), state in zip(
            pairwise(grid), right("ddim").sample(denoise, x, grid, noise), strict=True
        ):
            yield state + 0.0 * noise(state, t, s)

    row = rows(replace(right("ddim"), sample=sample))["noise"]
    assert (row.verdict, row.expected, row.measured) == ("sound", "none", "none")


@pytest.mark.parametrize("schedule", [SCHEDULE, TABLE])
def test_our_own_samplers_take_the_noise_that_they_are_given(schedule):
    for sampler in ours(schedule):
        use = noise_use(sampler)
        assert use is not None and use.fault == "", (sampler.name, use)


def test_a_sampler_that_cannot_be_run_has_no_row_of_noise():
    def sample(denoise, x, grid, noise):
        return 1 / 0

    found = rows(replace(right("ddim"), sample=sample))
    assert "noise" not in found and "last noise" not in found  # nothing was measured
    assert found["levels"].note == (
        f"n = 2: ZeroDivisionError: division by zero (test_third_party.py, line "
        f"{sample.__code__.co_firstlineno + 1})"
    )


def exits(*arguments):
    sys.exit(3)


LINE = exits.__code__.co_firstlineno + 1
EXIT = f"RuntimeError: sys.exit(3) was called (test_third_party.py, line {LINE})"


@pytest.mark.parametrize(
    "changed",
    [
        {"sample": exits},
        {"sample": lambda *given: (exits() for _ in range(4))},
        {"grid": exits, "any_grid": False},
    ],
)
def test_an_exit_is_a_crash(changed):
    sampler = replace(right("ddim"), **changed)
    found = rows(sampler)
    assert all(EXIT in found[one].note for one in ("finite", "levels", "order"))
    assert (found["order"].measured, found["order"].verdict) == ("crashed", "defect")
    with pytest.raises(AssertionError, match=re.escape(EXIT)):
        assert_order(sampler, 1)


def test_an_interrupt_is_no_crash():
    def sample(denoise, x, grid, noise):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows(replace(right("ddim"), sample=sample))


@pytest.mark.parametrize(
    ("order", "whole", "uneven", "wanted"),
    [
        (2, 0.0, 0.0, "defect"),  # converges nowhere
        (1, 0.0, 0.0, "defect"),
        (2, 1.3, 1.3, "defect"),  # the claim fails on even steps too
        (2, 2.0, 1.3, "limit"),
        (2, 2.0, 0.3, "defect"),
        (1, 1.0, 0.3, "defect"),
        (2, 2.0, 2.0, "sound"),
    ],
)
@pytest.mark.parametrize("noisy", [False, True])
def test_uneven_steps_are_compared_with_the_claim(order, whole, uneven, wanted, noisy):
    check = "weak order" if noisy else "order"
    found = rows(powered(order, whole=whole, uneven=uneven, noisy=noisy))
    assert found[f"{check}, uneven steps"].verdict == wanted
    if wanted != "sound":
        known = Origin(limits={check: "known", f"{check}, uneven steps": "known"})
        sampler = powered(order, whole=whole, uneven=uneven, noisy=noisy)
        row = rows(sampler, who=known)[f"{check}, uneven steps"]
        assert row.verdict == "limit"


def test_a_first_step_that_caps_the_order_caps_it_on_uneven_steps():
    found = rows(powered(3, whole=2.05, uneven=2.05, first=1.0), ladder=(16, 32, 64))
    assert found["order"].verdict == "limit"
    row = found["order, uneven steps"]
    assert row.verdict == "limit" and row.note.startswith("on even steps it is 2.05")


def ddim(**changed):
    return replace(right("ddim"), **changed)


RESULTS = {
    "numpy": (lambda d, x, g, n: [x.numpy() for _ in g[1:]], "wanted .*tensors.*, got a ndarray"),
    "an int": (lambda d, x, g, n: 3, "wanted tensors, got an int"),
    "nothing": (lambda d, x, g, n: None, "wanted tensors, got a NoneType"),
    "an exception": (lambda d, x, g, n: {}["key"], r"KeyError: 'key' \(test_third_party.py, line"),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_what_the_sampler_gives_back_is_a_row_and_one_line(kind):
    sample, words = RESULTS[kind]
    found = rows(ddim(sample=sample))
    assert {found[check].verdict for check in ("finite", "levels", "order")} == {"defect"}
    assert all(re.search(words, found[check].note) for check in ("finite", "levels", "order"))
    with pytest.raises(AssertionError, match=words) as caught:
        assert_order(ddim(sample=sample), 1)
    assert "\n" not in str(caught.value)


def test_a_list_as_a_grid_is_a_row_and_one_line():
    sampler = ddim(grid=lambda n: [1.0, 0.5, 0.0], any_grid=False)
    found = rows(sampler)
    words = r"grid\(\d+\): wanted a 1-D tensor of times, got a list"
    assert all(re.search(words, found[one].note) for one in ("grid", "finite", "levels", "order"))
    with pytest.raises(AssertionError, match=words):
        assert_order(sampler, 1)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: audit(3), "sampler: wanted a diffusion_math.testing.Sampler, got an int"),
        (lambda: audit(Sampler), "sampler: wanted a .*Sampler, got the class Sampler"),
        (lambda: assert_sound([]), "sampler: wanted a .*Sampler, got a list"),
        (lambda: assert_order(3, 1), "sampler: wanted a .*Sampler, got an int"),
        (lambda: assert_order(ddim(), "1"), "nominal: wanted a whole number .*, got '1'"),
        (lambda: assert_order(ddim(), 1, (8, 16)), "ladder: wanted three numbers of steps"),
        (lambda: audit(ddim(), "mine"), "who: wanted an Origin, got a str"),
        (lambda: audit(ddim(), counts=5), "counts: wanted numbers of steps, got an int"),
        (lambda: audit(ddim(), counts=(1.5,)), "counts: wanted a whole number"),
        (lambda: audit(ddim(), sweep=(0,)), "sweep: wanted a whole number of at least 1"),
        (lambda: audit(ddim(), ladder=(32, 16, 8)), "ladder: wanted three .* rising, got"),
        (lambda: ddim(schedule=3), "schedule: wanted a schedule of .*, got an int"),
        (lambda: ddim(schedule=lambda t: (1, 0)), "schedule: wanted .*, got a function"),
        (lambda: ddim(sample=None), "sample: wanted a function, got a NoneType"),
        (lambda: ddim(grid=np.linspace(1, 0, 5)), "grid: wanted a function, got a ndarray"),
        (lambda: ddim(precision="float32"), "precision: wanted a number of at least 0"),
        (lambda: ddim(level_tolerance=-1), "level_tolerance: wanted a number of at least 0"),
    ],
)
def test_a_wrong_argument_is_one_line(work, message):
    with pytest.raises(ValueError, match=message) as caught:
        work()
    assert "\n" not in str(caught.value)
