"""The order of a ladder, field by field, on ladders whose slopes are whole numbers."""

import math
import re

import pytest

from diffusion_math.testing.convergence import Fit, fit_order

SIZES = (8.0, 4.0, 2.0, 1.0)


def shown(errors: list[float], floor: float = 0.0, sizes: tuple[float, ...] = SIZES) -> list[float]:
    """order, low, high, trend, constant; the rest of the fit is what was told."""
    found = fit_order(sizes, errors, floor)
    assert (found.sizes, found.errors) == (sizes, tuple(errors))
    assert found.floor is (min(errors) <= floor)
    return [found.order, found.low, found.high, found.trend, found.constant]


def test_a_ladder_of_three_slopes_tells_the_last_two() -> None:
    """log2 of the errors is 9, 8, 5, 3: slopes 1, 3, 2. 3 to 2 is a change of 1, next to 1."""
    assert shown([512.0, 256.0, 32.0, 8.0]) == pytest.approx([2, 1, 3, 1, 8])


def test_a_slope_that_rises_has_a_trend_above_it() -> None:
    """log2 of the errors is 5, 4, 2: slopes 1, 2."""
    assert shown([32.0, 16.0, 4.0], sizes=(4.0, 2.0, 1.0)) == pytest.approx([2, 1, 3, 3, 4])


def test_what_is_at_the_floor_is_left_out_with_all_that_is_finer() -> None:
    """The constant is that of the finest error kept, at size 2: 32 / 2^3."""
    assert shown([512.0, 256.0, 32.0, 1.0], floor=1.0) == pytest.approx([3, 1, 5, 5, 4])
    assert shown([512.0, 256.0, 1.0, 64.0], floor=1.0) == pytest.approx([1, 1, 1, 1, 64])


@pytest.mark.parametrize("errors", [[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 8.0, 4.0]])
def test_fewer_than_two_errors_above_the_floor_are_of_any_order(errors: list[float]) -> None:
    assert shown(errors, 1.0, (4.0, 2.0, 1.0)) == [math.inf, math.inf, math.inf, math.inf, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", range(4))
def test_an_error_that_is_no_number_is_of_no_order(bad: float, place: int) -> None:
    errors = [8.0, 4.0, 2.0, 1.0]
    errors[place] = bad
    found = fit_order(SIZES, errors, 0.0)
    low = -math.inf
    same = Fit(low, low, low, low, found.constant, SIZES, tuple(errors), False)
    assert repr(found) == repr(same) and math.isnan(found.constant)


@pytest.mark.parametrize(
    ("sizes", "errors", "said"),
    [
        ((2.0, 1.0), [1.0, 1.0], "errors: wanted three or more, one a size, got 2"),
        (SIZES, [1.0] * 3, "errors: wanted three or more, one a size, got 3"),
        ((2.0, 2.0, 1.0), [1.0] * 3, "sizes: wanted positive, falling, got (2.0, 2.0, 1.0)"),
        ((2.0, 1.0, 0.0), [1.0] * 3, "sizes: wanted positive, falling, got (2.0, 1.0, 0.0)"),
    ],
)
def test_what_is_no_ladder_is_refused(
    sizes: tuple[float, ...], errors: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        fit_order(sizes, errors, 0.0)
