"""The memory of a score: what one call adds, whatever was freed before it."""

import math
import sys

import pytest

from benchmarks.oracle import OURS, PLAIN, peak, scores

SIZE = (4000, 1000, 2)
MATRIX = 4000 * 1000 * 8 / 2**20
"""MiB of the squares of all points and components."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_one_call_alone() -> None:
    """The plain products hold three matrices at once; ours works in blocks."""
    calls = scores(SIZE)
    for call in calls.values():  # leaves freed memory with this process
        call()
    assert peak(PLAIN, SIZE) == pytest.approx(3 * MATRIX, rel=0.05)
    assert 1 < peak(OURS, SIZE) < MATRIX


def test_memory_is_not_known_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert math.isnan(peak(OURS, SIZE))
