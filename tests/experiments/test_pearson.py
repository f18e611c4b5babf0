"""The limit on Pearson's sum: its two bounds by sums over counts, one cell at a time."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import poisson

from experiments.common.pearson import given, limit, tilted

CELLS = (300.0, 3.0, 0.5, 0.5)
RATE = 1e-6


def log_moment(cells, k):
    """log E e^(kS), S the sum of (count - e)^2 / e over independent Poisson counts.

    Counts are within 12 deviations and 40 of their means: without an end the mean is infinite.
    """
    found = 0.0
    for e in cells:
        width = 12 * math.sqrt(e) + 40
        counts = np.arange(max(0, math.floor(e - width)), math.floor(e + width) + 1)
        found += np.logaddexp.reduce(poisson.logpmf(counts, e) + k * (counts - e) ** 2 / e)
    return found


def exponent(cells, a):
    """The best of Chernoff's exponents k a - log E e^(kS) over k."""
    best = minimize_scalar(
        lambda k: log_moment(cells, k) - k * a, bounds=(0, 0.6), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    return -best.fun


def test_the_limit_is_the_lower_of_both_bounds() -> None:
    """Of all cells, and of all but the largest times n / R, each at its own share of the rate."""
    for cells, others in ((CELLS, CELLS[1:]), ((3.0, 3.0), (3.0,)), ((300.0, 2.0), (2.0,))):
        total, largest = round(sum(cells)), max(cells)
        found = limit(torch.tensor(cells, dtype=torch.float64), RATE)
        conditional = 1 / poisson.pmf(total, total)
        likeliest = poisson.pmf(int(largest), largest)
        whole = -math.log(RATE / conditional)
        rest = -math.log(RATE / (conditional * likeliest))
        both = (
            exponent(cells, found) - whole,
            exponent(others, found * largest / sum(cells)) - rest,
        )
        assert max(both) == pytest.approx(0, abs=1e-5), cells  # the lower limit is that of one


def test_the_limit_does_not_depend_on_the_order_of_the_cells() -> None:
    orders = sorted(set(permutations(CELLS)))
    limits = [limit(torch.tensor(cells, dtype=torch.float64), RATE) for cells in orders]
    assert limits == pytest.approx([limits[0]] * len(limits), rel=1e-7)


def test_what_a_known_sum_makes_likelier() -> None:
    """1 / P(N = n) for N ~ Poisson(n): e at 1, e^2 / 2 at 2."""
    assert given(torch.tensor([0.5, 0.5])) == pytest.approx(math.e, rel=1e-12)
    assert given(torch.tensor([0.5, 1.5])) == pytest.approx(math.e**2 / 2, rel=1e-12)


@pytest.mark.parametrize("cells", [CELLS, (100.0,), (300.0,)])
def test_tilted_by_sums_over_counts(cells: tuple[float, ...]) -> None:
    """The tilted mean is the derivative of log E e^(kS); at k = 0.6 the last count rules it."""
    expected = torch.tensor(cells, dtype=torch.float64)
    for k in (-0.3, 0.1, 0.25, 0.6):
        mean, rate = tilted(expected, expected, k)
        slope = (log_moment(cells, k + 1e-5) - log_moment(cells, k - 1e-5)) / 2e-5
        assert mean == pytest.approx(slope, rel=1e-6)
        assert rate == pytest.approx(k * mean - log_moment(cells, k), rel=1e-9)
