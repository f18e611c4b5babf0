"""The distribution of a mean of squares of means of signs, against exact fractions."""

import math
from collections import Counter
from fractions import Fraction

import pytest

from experiments.likelihood.measure import SignSquares, Spread


def exact(signs: int, count: int) -> dict[Fraction, Fraction]:
    """P(mean of `count` values n m^2 = v) for each v, n signs each."""
    one = Counter[Fraction]()
    for ups in range(signs + 1):
        square = Fraction((signs - 2 * ups) ** 2, signs * count)
        one[square] += Fraction(math.comb(signs, ups), 2**signs)
    every = {Fraction(0): Fraction(1)}
    for _ in range(count):
        longer = Counter[Fraction]()
        for a, p in every.items():
            for b, q in one.items():
                longer[a + b] += p * q
        every = dict(longer)
    return every


@pytest.mark.parametrize("signs", [2, 3, 4, 5])
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("level", [0.47, 0.903, 0.9991])
def test_the_middle_is_that_of_exact_fractions(signs: int, count: int, level: float) -> None:
    every = exact(signs, count)
    tail = (1 - level) / 2
    least = max(v for v in every if sum(p for w, p in every.items() if w < v) <= tail)
    most = min(v for v in every if sum(p for w, p in every.items() if w > v) <= tail)
    found = SignSquares(signs, count).middle(level)
    assert found == pytest.approx((float(least), float(most)), rel=1e-12)


def test_the_interval_of_the_ratio() -> None:
    """Found over predicted, over the ends of the middle; no upper end where the least is 0."""
    spread = Spread(probes=5, count=300, found=2.0, predicted=0.5, mean_error=0.0, width=1.0)
    least, most = SignSquares(5, 300).middle(0.9)
    assert 0 < least < 1 < most
    assert spread.ratio_interval(0.9) == pytest.approx((4 / most, 4 / least), rel=1e-12)
    few = Spread(probes=2, count=1, found=2.0, predicted=0.5, mean_error=0.0, width=1.0)
    assert few.ratio_interval(0.9) == (2.0, math.inf)
