"""The catalogue: its entries, how they are screened, and products of powers of the levels."""

import math

import pytest
import torch
from torch import Tensor

from diffusion_math.gaussian import posterior, transition
from diffusion_math.schedule import VE, Discrete, Schedule
from diffusion_math.testing.mistakes.catalogue import (
    FACTORS,
    INDICES,
    QUANTITIES,
    TRANSFORMS,
    Mistake,
    generated,
    generated_together,
    likely,
    power,
)
from diffusion_math.testing.mistakes.levels import Levels, Rows, Step, neighbours

SCHEDULE = Discrete.linear(30, 1e-3, 0.2)
LEVELS = Levels.read(SCHEDULE, range(1, 31))
ROWS = neighbours(LEVELS)


def deviation(step: Step) -> dict[str, Tensor]:
    return {"deviation": (QUANTITIES["beta~"](step)).sqrt()}


def entry(name: str, field: str = "deviation") -> Tensor:
    (one,) = [each for each in generated(field, deviation) if each.name == name]
    return one.values(LEVELS, ROWS)[field]


@pytest.mark.parametrize("schedule", [SCHEDULE, VE()])
def test_quantities_are_those_of_the_schedule(schedule: Schedule) -> None:
    t, s = torch.arange(2, 31), torch.arange(1, 30)
    if isinstance(schedule, VE):
        t, s = t / 30, s / 30
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    given = {
        name: value(Step(alpha_t, sigma_t, alpha_s, sigma_s)) for name, value in QUANTITIES.items()
    }
    x = torch.zeros(29, 1, dtype=torch.float64)
    wanted = {
        "beta": transition(schedule, x, s, t).variance[:, 0],
        "beta~": posterior(schedule, x, x, t, s).variance[:, 0],
        "abar": alpha_t**2,
        "1 - abar": sigma_t**2,
        "1 - beta": alpha_t**2 / alpha_s**2,
        "SNR": schedule.log_snr(t).exp(),
    }
    for name, value in wanted.items():
        torch.testing.assert_close(given[name], value, rtol=1e-9, atol=0, msg=name)


def test_entries_have_names_of_their_own_and_count_their_changes() -> None:
    entries = list(generated("deviation", deviation))
    choices = [len(QUANTITIES) + 1, len(INDICES), len(TRANSFORMS), len(FACTORS)]
    assert len(entries) == math.prod(choices) - 1 + 3
    assert len({one.name for one in entries}) == len(entries)
    assert {one.cost for one in entries} == {1, 2, 3, 4}
    assert sum(one.cost == 1 for one in entries) == sum(choices) - len(choices) + 3


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("the deviation is 0", lambda t, b, a: 0 * b[t]),
        ("the deviation is beta", lambda t, b, a: b[t]),
        ("the deviation is 2 abar", lambda t, b, a: 2 * a[t + 1]),
        ("the deviation is 1 / sqrt(SNR)", lambda t, b, a: (1 / a[t + 1] - 1).sqrt()),
        ("the deviation is beta of index t + 1", lambda t, b, a: b[(t + 1).clamp(max=29)]),
        ("the deviation is 1 - beta of index t - 1", lambda t, b, a: 1 - b[(t - 1).clamp(0)]),
        ("the deviation is beta of index t - 1, where -1 is the last", lambda t, b, a: b[t - 1]),
        ("the deviation is beta of the last index", lambda t, b, a: b[-1].expand(30)),
        (
            "the deviation is -beta of the index counted from the other end",
            lambda t, b, a: -b[29 - t],
        ),
        (
            "the deviation is abar, with the level of s, the earlier time, where t's belongs",
            lambda t, b, a: a[t],
        ),
        (
            "the deviation is 1 - beta, with t's level where that of s, the earlier time, belongs",
            lambda t, b, a: 1 + 0 * t,
        ),
        (
            "the deviation is 1 - beta, "
            "with the level before s where that of s, the earlier time, belongs",
            lambda t, b, a: a[t + 1] / a[(t - 1).clamp(0)],
        ),
        (
            "the deviation is 1 - beta, with the levels of t and of s, the earlier time, exchanged",
            lambda t, b, a: 1 / (1 - b[t]),
        ),
    ],
)
def test_an_entry_is_what_its_name_says(name: str, wanted) -> None:  # type: ignore[no-untyped-def]
    t, abar = torch.arange(30), SCHEDULE(torch.arange(31))[0].square()
    value = wanted(t, SCHEDULE.betas, abar).double()
    torch.testing.assert_close(entry(name), value, rtol=1e-10, atol=1e-15)


def test_all_coefficients_may_be_those_of_another_index() -> None:
    names = [one.name for one in generated_together(deviation)]
    assert len(names) == len(INDICES) - 1
    first = next(generated_together(deviation)).values(LEVELS, ROWS)["deviation"]
    assert torch.equal(first, entry("the deviation is its right value of index t - 1"))


def test_likely_entries_are_those_that_are_near() -> None:
    few = Rows(ROWS.t[::5], ROWS.s[::5])
    measured = deviation(LEVELS.at(few))["deviation"].square()

    def near(values: Tensor) -> Tensor:
        return (values - measured).abs() <= 0.05 * measured

    found = {one.name for one in likely("deviation", deviation, LEVELS, few, near)}
    wanted = {
        one.name
        for one in generated("deviation", deviation)
        if bool(near(one.values(LEVELS, few)["deviation"]).all()) or one.name[17:] in "01NaN"
    }
    assert found == wanted and "the deviation is beta~" in found
    assert "the deviation is (its right value)^2" in found and len(found) < 20


def test_a_mistake_of_the_formula_reads_the_right_levels() -> None:
    one = Mistake.of("a name", lambda step: {"deviation": step.alpha_s}, "a source", cost=2)
    assert torch.equal(one.values(LEVELS, ROWS)["deviation"], LEVELS.alpha[:-1])
    assert (one.name, one.source, one.cost) == ("a name", "a source", 2)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (lambda step: step.alpha_t, "alpha_t"),
        (lambda step: step.alpha_t**2 / step.sigma_s.sqrt(), "alpha_t^2 / sigma_s^0.5"),
        (lambda step: QUANTITIES["beta"](step).sqrt() / step.alpha_s, "sigma_{t|s} / alpha_s"),
    ],
)
def test_powers_of_levels_are_read_off(factor, said: str) -> None:  # type: ignore[no-untyped-def]
    step = LEVELS.at(ROWS)
    measured = factor(step) * deviation(step)["deviation"]
    found = power("deviation", measured, deviation, step)
    assert found is not None
    assert found.name == f"the deviation is its right value times {said}"
    torch.testing.assert_close(
        found.values(LEVELS, ROWS)["deviation"][1:], measured[1:], rtol=1e-12, atol=0
    )


def test_no_powers_of_levels_are_none() -> None:
    step = LEVELS.at(ROWS)
    right = deviation(step)["deviation"]
    assert power("deviation", right, deviation, step) is None
    assert power("deviation", -right, deviation, step) is None
    assert power("deviation", right * step.alpha_t**9, deviation, step) is None
    few = LEVELS.at(Rows(ROWS.t[:4], ROWS.s[:4]))
    assert power("deviation", right[:4] * few.alpha_t, deviation, few) is None
