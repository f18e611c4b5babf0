"""The order of a method from its errors over a ladder of step sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from diffusion_math.checks import require

__all__ = ["Fit", "fit_order"]


@final
@dataclass(frozen=True)
class Fit:
    """error ~ constant * size^order.

    Attributes:
        order: the slope between the two finest errors above the floor; inf where there are no two.
        low, high: that slope, less and plus what it changed by from the slope before.
        trend: where the slope goes, were it to change by as much again.
        constant: error / size^order at the finest.
        sizes, errors: what was fitted, coarse to fine.
        floor: whether finer errors were left out, as rounding.
    """

    order: float
    low: float
    high: float
    trend: float
    constant: float
    sizes: tuple[float, ...]
    errors: tuple[float, ...]
    floor: bool

    def __str__(self) -> str:
        if math.isinf(self.order):
            return "exact to rounding" if self.order > 0 else "not finite"
        return f"{self.order:.2f} ({self.low:.2f} to {self.high:.2f})"


def fit_order(sizes: Sequence[float], errors: Sequence[float], floor: float) -> Fit:
    """The order that a ladder of errors shows, the coarsest step first.

    Raises ValueError for fewer than three steps, or sizes that do not fall. A NaN or an infinite
    error has the order -inf.
    """
    require(len(sizes) == len(errors) >= 3, "errors", "three or more, one a size", len(errors))
    falls = all(a > b > 0 for a, b in pairwise(sizes))
    require(falls, "sizes", "positive, falling", tuple(sizes))
    measured = tuple(sizes), tuple(errors)
    if not all(map(math.isfinite, errors)):
        return Fit(-math.inf, -math.inf, -math.inf, -math.inf, math.nan, *measured, False)
    above = 0
    while above < len(errors) and errors[above] > floor:
        above += 1
    left_out = above < len(errors)
    if above < 2:
        return Fit(math.inf, math.inf, math.inf, math.inf, 0.0, *measured, left_out)
    pairs = list(pairwise(zip(sizes[:above], errors[:above], strict=True)))[-2:]
    slopes = [math.log(e / f) / math.log(a / b) for (a, e), (b, f) in pairs]
    order, spread = slopes[-1], abs(slopes[-1] - slopes[0])
    constant = errors[above - 1] / sizes[above - 1] ** order
    trend = 2 * order - slopes[0]
    return Fit(order, order - spread, order + spread, trend, constant, *measured, left_out)
