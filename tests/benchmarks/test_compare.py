"""Two sides of a row: they must agree before they are timed, in turns."""

import math

import pytest
import torch

from benchmarks.compare import compare, require_agreement


def test_units_may_differ() -> None:
    row = compare("a", "b", lambda: torch.ones(1), lambda: torch.ones(1), 2, (1, 1000), 0.0)
    assert row.ratio > 10


@pytest.mark.parametrize("wrong", [0.0, math.nan, math.inf, -math.inf])
def test_other_results_are_refused(wrong: float) -> None:
    """Of either side; what is no number is no agreement, whatever the tolerance."""
    two, other = torch.full((2,), 2.0), torch.tensor([2.0, wrong])
    for ours, theirs in ((two, other), (other, two)):
        with pytest.raises(ArithmeticError, match=r"^a: results differ by"):
            compare("a", "b", lambda x=ours: x, lambda x=theirs: x, 2, 1, 0.1)
    if not math.isfinite(wrong):
        with pytest.raises(ArithmeticError, match=r"^a: results differ by"):
            require_agreement("a", other, other, math.inf)


def test_shapes_that_broadcast_are_refused() -> None:
    with pytest.raises(ArithmeticError, match=r"shapes \(1,\) and \(5, 5\)"):
        compare("a", "b", lambda: torch.ones(1), lambda: torch.ones(5, 5), 2, 1, 1e-8)


def test_the_tolerance_is_relative_to_the_largest_entry() -> None:
    theirs = torch.tensor([0.0, 8.0], dtype=torch.float64)
    require_agreement("a", theirs + 0.5, theirs, 0.0625)
    with pytest.raises(ArithmeticError, match=r"more than 0\.0624 of it"):
        require_agreement("a", theirs + 0.5, theirs, 0.0624)
    require_agreement("a", torch.zeros(2), torch.zeros(2), 0.0)


def test_something_is_done_before_each_timing() -> None:
    """After the first results, which are not timed."""
    called: list[str] = []

    def side(name: str) -> torch.Tensor:
        called.append(name)
        return torch.ones(1)

    compare("a", "b", lambda: side("x"), lambda: side("y"), 2, 1, 0.0, lambda: called.append("-"))
    assert "".join(called) == "xy" + "-x-y" * 2
