"""Guards: legal values pass in silence, illegal ones raise and name argument, wanted and got."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffusion_math as dm
from diffusion_math import checks

numbers = st.floats(-1e6, 1e6)


@given(numbers, numbers, numbers)
def test_between_accepts_exactly_the_closed_interval(value: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    if low <= value <= high:
        checks.between("x", value, low, high)
        checks.all_between("x", torch.tensor([value], dtype=torch.float64), low, high)
    else:
        with pytest.raises(ValueError, match=r"^x: wanted .*, got "):
            checks.between("x", value, low, high)
        with pytest.raises(ValueError, match=r"^x: wanted every entry .*, got "):
            checks.all_between(
                "x", torch.tensor([low, value, high], dtype=torch.float64), low, high
            )


@given(st.lists(numbers, min_size=1, max_size=6))
def test_strictly_decreasing_agrees_with_its_definition(values: list[float]) -> None:
    grid = torch.tensor(values, dtype=torch.float64)
    if all(b < a for a, b in itertools.pairwise(values)):
        checks.strictly_decreasing("grid", grid)
    else:
        with pytest.raises(ValueError, match=r"^grid: wanted .*decreasing"):
            checks.strictly_decreasing("grid", grid)


ILLEGAL: dict[str, tuple[Callable[[], None], str]] = {
    "nan in an interval": (lambda: checks.between("w", math.nan, 0, 1), "w: .*nan"),
    "nan in a tensor": (lambda: checks.all_between("t", torch.tensor(math.nan), 0, 1), "t: .*nan"),
    "infinity": (lambda: checks.finite("w", math.inf), "w: wanted a finite number, got inf"),
    "an interval of one level": (
        lambda: checks.interval("r", (1.0, 1.0)),
        r"r: wanted two numbers, 0 <= low < high, got \(1\.0, 1\.0\)",
    ),
    "one number is no interval": (lambda: checks.interval("r", (1.0,)), r"got \(1\.0,\)"),
    "bool is no count": (lambda: checks.whole("steps", True, 1), "steps: .*True"),
    "float is no count": (lambda: checks.whole("steps", 2.0, 1), r"steps: .*2\.0"),
    "count too low": (lambda: checks.whole("steps", 0, 1), "at least 1, got 0"),
    "count too high": (lambda: checks.whole("steps", 9, 1, 8), "at most 8, got 9"),
    "empty grid": (lambda: checks.strictly_decreasing("g", torch.zeros(0)), r"g: .*\(0,\)"),
    "2-D grid": (lambda: checks.strictly_decreasing("g", torch.zeros(1, 1)), r"\(1, 1\)"),
    "nan alone in a grid": (
        lambda: checks.strictly_decreasing("g", torch.tensor([math.nan])),
        "g: .*NaN",
    ),
    "shapes": (lambda: checks.same_shape("z", torch.zeros(2), torch.zeros(3)), r"\(3,\).*\(2,\)"),
    "batch": (
        lambda: checks.scalar_or_batch("t", torch.zeros(3), torch.zeros(2, 5)),
        r"t: .*\(2,\).*3",
    ),
    "batch of a scalar": (
        lambda: checks.scalar_or_batch("t", torch.zeros(1), torch.tensor(0.0)),
        "t: ",
    ),
    "s = t": (lambda: checks.earlier(torch.tensor(1.0), torch.tensor(1.0)), "s: wanted s < t"),
    "one s of many": (
        lambda: checks.earlier(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])),
        "s: ",
    ),
    "nan time": (lambda: checks.earlier(torch.tensor(math.nan), torch.tensor(1.0)), "s: .*nan"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_values_are_named(name: str) -> None:
    call, message = ILLEGAL[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_legal_ends_pass() -> None:
    checks.finite("w", 0.0)
    checks.whole("steps", 1, 1, 1)
    checks.strictly_decreasing("g", torch.zeros(1))
    checks.scalar_or_batch("t", torch.tensor(0.0), torch.tensor(0.0))
    checks.scalar_or_batch("t", torch.zeros(0), torch.zeros(0, 3))
    checks.earlier(torch.tensor(0.0), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("table", [dm.SOLVERS, dm.GRIDS, dm.DENSITIES])
def test_an_unknown_name_of_a_table_is_told(table: dict[str, object]) -> None:
    name = next(iter(table))
    with pytest.raises(KeyError, match=f"{name}x: no such name; did you mean {name}?"):
        table[f"{name}x"]
    with pytest.raises(KeyError, match=f"0: no such name; wanted one of {', '.join(table)}"):
        table[0]  # type: ignore[index]
    assert table.get("0") is None and "0" not in table
