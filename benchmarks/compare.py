"""Two ways to one result, timed in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Two timings in milliseconds and the quartiles of their ratio over the rounds."""

    name: str
    ours: float
    theirs: float
    low: float
    ratio: float
    high: float


def compare(
    name: str,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    rounds: int,
    units: int,
    tolerance: float,
) -> Row:
    """Time two ways to one result, in turns after one warm-up each.

    Args:
        name: what the row is called.
        ours, theirs: the two computations; each returns its result.
        rounds: how often each is timed.
        units: steps in one computation; times are per step.
        tolerance: largest difference of the results, relative to the largest entry.

    Raises:
        ArithmeticError: the two results differ by more than `tolerance`.
    """
    a, b = ours(), theirs()
    difference = float((a - b).abs().max() / b.abs().max())
    if difference > tolerance:
        raise ArithmeticError(f"{name}: results differ by {difference:.1e}, more than {tolerance}")
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    low, ratio, high = statistics.quantiles([x / y for x, y in pairs], n=4)
    milliseconds = 1e3 / units
    return Row(
        name,
        statistics.median(x for x, _ in pairs) * milliseconds,
        statistics.median(y for _, y in pairs) * milliseconds,
        low,
        ratio,
        high,
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
