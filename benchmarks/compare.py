"""Two ways to one result, timed in turns."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Two timings in milliseconds and the quartiles of their ratio over the rounds."""

    name: str
    peer: str
    ours: float
    theirs: float
    low: float
    ratio: float
    high: float
    rounds: int
    memory: str = ""
    """What the two sides held at most, where that was measured."""


def compare(
    name: str,
    peer: str,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    rounds: int,
    units: int | tuple[int, int],
    tolerance: float,
    before: Callable[[], object] = lambda: None,
) -> Row:
    """Time two ways to one result, in turns after one warm-up each.

    Args:
        name: what the row is called.
        peer: who the other side is.
        ours, theirs: the two computations; each returns its result.
        rounds: how often each is timed.
        units: steps in one computation, or in each of the two; times are per step.
        tolerance: largest difference of the results, relative to the largest entry of theirs.
        before: called before each timing, and not timed.

    Raises:
        ArithmeticError: the two results differ by more than `tolerance`, or in their shapes, or
            are not numbers.
    """
    require_agreement(name, ours(), theirs(), tolerance)
    own, other = (units, units) if isinstance(units, int) else units
    pairs = []
    for _ in range(rounds):
        before()
        x = _seconds(ours)
        before()
        pairs.append((1e3 * x / own, 1e3 * _seconds(theirs) / other))
    low, ratio, high = statistics.quantiles([x / y for x, y in pairs], n=4)
    return Row(
        name,
        peer,
        statistics.median(x for x, _ in pairs),
        statistics.median(y for _, y in pairs),
        low,
        ratio,
        high,
        rounds,
    )


def require_agreement(name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Raise ArithmeticError unless |ours - theirs| <= tolerance max |theirs| and shapes are equal.

    An infinite tolerance is that of results which need not agree, but must be numbers.
    """
    if ours.shape != theirs.shape:
        shapes = f"{tuple(ours.shape)} and {tuple(theirs.shape)}"
        raise ArithmeticError(f"{name}: results have the shapes {shapes}")
    difference, largest = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not (math.isfinite(difference) and difference <= tolerance * largest):
        found = f"by {difference:.1e} at a size of {largest:.1e}"
        raise ArithmeticError(f"{name}: results differ {found}, more than {tolerance:g} of it")


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of each side in each round, after one warm-up each.

    A processor's seconds are those of all threads, also of those that wait in a loop, as OpenMP's
    do for a thread that other work on the machine keeps from its core.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            wall = _seconds(side)
            spent[name].append((wall, time.process_time() - start))
    return spent


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
