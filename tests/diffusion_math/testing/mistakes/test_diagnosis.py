"""Exact values beside measured ones: what passes, what is told; each entry found when planted."""

import re

import pytest
import torch
from torch import Tensor

from diffusion_math.schedule import VE, Discrete
from diffusion_math.testing.mistakes.catalogue import (
    QUANTITIES,
    Formula,
    Mistake,
    generated,
    generated_together,
)
from diffusion_math.testing.mistakes.diagnosis import Difference, MistakeError, compare, diagnosis
from diffusion_math.testing.mistakes.levels import Levels, Rows, Step, neighbours, pairs_of

SCHEDULE = Discrete.linear(24, 1e-3, 0.2)
LEVELS = Levels.read(lambda i: SCHEDULE(i + 1), range(24))
ROWS = neighbours(LEVELS)
EPS = 2.0**-52


def variance(step: Step) -> dict[str, Tensor]:
    return {"variance": QUANTITIES["beta~"](step)}


def mean(step: Step) -> dict[str, Tensor]:
    """Both coefficients of DDPM eq. 7."""
    beta = QUANTITIES["beta"](step)
    ratio = step.alpha_t / step.alpha_s
    return {
        "coefficient of x0": step.alpha_s * beta / step.sigma_t**2,
        "coefficient of x_t": ratio * (step.sigma_s / step.sigma_t) ** 2,
    }


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to a rounding of values that are differences of squares, and of their logarithms."""
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def error(measured: dict[str, Tensor], formula: Formula, **options) -> MistakeError:  # type: ignore[no-untyped-def]
    with pytest.raises(MistakeError) as caught:
        compare("mine", measured, formula, LEVELS, ROWS, eps=EPS, **options)
    return caught.value


@pytest.mark.usefixtures("unchecked")  # thousands of calls; shapes have tests of their own
@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("field", "formula"),
    [("variance", variance), ("coefficient of x0", mean), ("coefficient of x_t", mean)],
)
def test_each_generated_entry_is_found_and_named(field: str, formula: Formula, every: int) -> None:
    """An entry whose values are those of another answers by the name of the cheapest of them."""
    right = formula(LEVELS.at(ROWS))
    for one in list(generated(field, formula))[::every]:
        given = {**right, field: one.values(LEVELS, ROWS)[field]}
        if same(given[field], right[field]):
            continue  # what is planted is right
        wrong = {field: given[field]}
        found = diagnosis(wrong, given, formula, LEVELS, ROWS, eps=EPS)
        assert len(found) == 1, one.name
        if found[0].name != one.name:
            assert found[0].cost <= one.cost, (one.name, found[0].name)
            assert same(found[0].values(LEVELS, ROWS)[field], given[field]), one.name


def test_mistakes_of_both_coefficients_are_one() -> None:
    for one in generated_together(mean):
        found = error(dict(one.values(LEVELS, ROWS)), mean)
        assert [each.name for each in found.mistakes] == [one.name]
        assert len(found.differences) == 2


def test_right_values_pass() -> None:
    compare("mine", variance(LEVELS.at(ROWS)), variance, LEVELS, ROWS, eps=EPS)


@pytest.mark.parametrize("schedule", [SCHEDULE, VE()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_right_code_in_its_own_arithmetic_passes(schedule, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    times = range(1, 25) if schedule is SCHEDULE else [k / 24 for k in range(1, 25)]
    levels = Levels.read(lambda t: [c.to(dtype) for c in schedule(t)], times)
    rows = neighbours(levels)
    step = Step(*(each.to(dtype) for each in levels.at(rows)))
    given = {name: value.double() for name, value in variance(step).items()}
    compare("mine", given, variance, levels, rows, eps=torch.finfo(dtype).eps)


@pytest.mark.parametrize("eps", [2.0**-52, 2.0**-23])
@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_one_percent_fails_at_one_index_alone(eps: float, factor: float) -> None:
    given = variance(LEVELS.at(ROWS))["variance"].clone()
    given[13] *= factor
    with pytest.raises(MistakeError) as caught:
        compare("mine", {"variance": given}, variance, LEVELS, ROWS, eps=eps)
    (one,) = caught.value.differences
    assert (one.field, one.rows, one.of, one.time) == ("variance", 1, 24, "t = 13")
    assert one.got == given[13] and one.expected == pytest.approx(one.got / factor)
    assert 0 < one.tolerance < 0.01 * one.expected
    assert not caught.value.mistakes


def test_the_message_names_what_where_and_which_mistake() -> None:
    wrong = {"variance": QUANTITIES["beta"](LEVELS.at(ROWS))}
    found = error(wrong, variance, right="beta~")
    lines = str(found).splitlines()
    assert lines[0] == "mine: wrong"
    assert re.fullmatch(
        r"  the variance differs at 24 of 24 indices, most at t = 0: got 0.001, expected 0 "
        r"\(tolerance \S+\)",
        lines[1],
    )
    assert lines[2:] == ["  diagnosis: the variance is beta", "  right: beta~"]


def test_a_known_mistake_comes_before_a_generated_one_with_its_source() -> None:
    known = Mistake.of("the upper bound", lambda s: {"variance": QUANTITIES["beta"](s)}, "eq. 7")
    found = error({"variance": QUANTITIES["beta"](LEVELS.at(ROWS))}, variance, known=iter([known]))
    assert found.mistakes == (known,)
    assert "  diagnosis: the upper bound (eq. 7)" in str(found).splitlines()


def test_the_cheaper_of_two_known_mistakes_is_named() -> None:
    dear, cheap = (
        Mistake.of(name, lambda s: {"variance": QUANTITIES["beta"](s)}, cost=cost)
        for name, cost in (("dear", 3), ("cheap", 2))
    )
    found = error({"variance": QUANTITIES["beta"](LEVELS.at(ROWS))}, variance, known=[dear, cheap])
    assert found.mistakes == (cheap,)


def test_a_mistake_that_says_a_right_field_is_wrong_is_none() -> None:
    right = mean(LEVELS.at(ROWS))
    given = {**right, "coefficient of x0": right["coefficient of x_t"]}

    def exchanged(step: Step) -> dict[str, Tensor]:
        x0, x_t = mean(step).values()
        return {"coefficient of x0": x_t, "coefficient of x_t": x0}

    known = Mistake.of("exchanged", exchanged)
    assert known not in error(given, mean, known=[known]).mistakes
    both = dict(zip(right, reversed(right.values()), strict=True))
    assert error(both, mean, known=[known]).mistakes == (known,)


def test_two_mistakes_are_two() -> None:
    x0, x_t = mean(LEVELS.at(ROWS)).values()
    found = error({"coefficient of x0": 2 * x0, "coefficient of x_t": x_t.square()}, mean)
    assert [one.name for one in found.mistakes] == [
        "the coefficient of x0 is 2 its right value",
        "the coefficient of x_t is (its right value)^2",
    ]


def test_an_entry_that_fits_at_all_but_one_index_is_not_named() -> None:
    given = QUANTITIES["beta"](LEVELS.at(ROWS)).clone()
    given[7] *= 1.001  # not one of the few rows that are tried first
    found = error({"variance": given}, variance)
    assert not found.mistakes
    assert "  diagnosis: no entry of the catalogue fits at every index" in str(found).splitlines()


def test_nan_is_wrong_and_told() -> None:
    found = error({"variance": torch.full((24,), torch.nan, dtype=torch.float64)}, variance)
    assert [one.name for one in found.mistakes] == ["the variance is NaN"]
    assert found.differences[0].rows == 24


def test_an_exact_infinity_is_right() -> None:
    def logarithm(step: Step) -> dict[str, Tensor]:
        return {"log-variance": QUANTITIES["beta~"](step).log()}

    right = logarithm(LEVELS.at(ROWS))
    assert right["log-variance"][0] == -torch.inf
    compare("mine", right, logarithm, LEVELS, ROWS, eps=EPS)
    finite = {"log-variance": right["log-variance"].clamp(min=-46)}
    assert error(finite, logarithm).differences[0].time == "t = 0"


def test_both_times_are_told_where_they_are_no_neighbours() -> None:
    rows = pairs_of(LEVELS, [(20, 3), (9, 2)])
    with pytest.raises(MistakeError) as caught:
        compare("mine", {"variance": torch.ones(2).double()}, variance, LEVELS, rows, eps=EPS)
    assert caught.value.differences[0].time in ("t = 20, s = 3", "t = 9, s = 2")
    clean = Rows(torch.tensor([5]), torch.tensor([0]))
    with pytest.raises(MistakeError) as caught:
        compare("mine", {"variance": torch.ones(1).double()}, variance, LEVELS, clean, eps=EPS)
    assert caught.value.differences[0].time == "t = 4, s = clean data"


def test_a_difference_is_a_sentence() -> None:
    one = Difference("variance", 3, 9, "t = 4", 1.0, 2.0, 1e-9)
    assert str(one) == (
        "the variance differs at 3 of 9 indices, most at t = 4: got 1, expected 2 (tolerance 1e-09)"
    )


def test_a_difference_of_rounding_shows_its_digits() -> None:
    one = Difference("variance", 3, 9, "t = 4", 1.0000001, 1.0, 1e-9)
    assert "got 1.0000001, expected 1 (tolerance" in str(one)


def test_float32_within_float64_is_told() -> None:
    step = LEVELS.at(ROWS)
    given = {"variance": QUANTITIES["beta~"](step).float().double()}
    found = error(given, variance)
    assert [one.name[:30] for one in found.mistakes] == ["right to float32's rounding, as"[:30]]
    compare("mine", given, variance, LEVELS, ROWS, eps=2.0**-23)
