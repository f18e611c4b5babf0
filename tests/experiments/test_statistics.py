"""The intervals against scipy, against enumeration, and against their wrong versions."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diffusion_math.metrics import Estimate
from experiments.common.statistics import (
    difference,
    geometric_ratio,
    mean_interval,
    mean_of,
    median_interval,
    normal_interval,
    paired_difference,
    plus_minus,
    ratio,
    ratio_of_means,
    seeded,
    share_of,
    share_of_groups,
    wilson,
    with_interval,
)

LEVELS = st.sampled_from([0.5, 0.9, 0.95, 0.99])
FLOATS = st.floats(-1e3, 1e3)


@given(st.integers(1, 600).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), LEVELS)
def test_wilson_is_scipys(trial: tuple[int, int], level: float) -> None:
    right, count = trial
    wanted = stats.binomtest(right, count).proportion_ci(level, method="wilson")
    # Two square roots and a division: a few roundings of numbers of order 1.
    assert wilson(right, count, level) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("count", [7, 9, 10])
def test_none_and_all_are_ends_without_rounding(count: int) -> None:
    assert wilson(0, count)[0] == 0 and wilson(count, count)[1] == 1


@pytest.mark.parametrize(("right", "count"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses(right: int, count: int) -> None:
    with pytest.raises(ValueError, match="right, count"):
        wilson(right, count)
    with pytest.raises(ValueError, match="level"):
        wilson(1, 2, 1.0)


@given(st.lists(FLOATS, min_size=2, max_size=40), LEVELS)
def test_mean_interval_is_students(values: list[float], level: float) -> None:
    sem = stats.sem(values)
    got = mean_interval(values, level)
    if sem == 0:
        assert got == pytest.approx((values[0], values[0]))
        return
    wanted = stats.t.interval(level, len(values) - 1, np.mean(values), sem)
    assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_verdicts_of_one_group_count_as_one() -> None:
    """Of n equal groups the interval is that of n verdicts; single ones are a binomial's."""
    verdicts = [True] * 80 + [False] * 20
    error = math.sqrt(0.8 * 0.2 / 99)
    for size in (1, 3):
        share, interval = share_of_groups([[one] * size for one in verdicts])
        assert share == 0.8
        assert interval == pytest.approx((0.8 - 1.959964 * error, 0.8 + 1.959964 * error), abs=1e-6)
    assert share_of_groups([[True, True]] * 9) == (1.0, wilson(9, 9))
    assert share_of_groups([[False]] * 9) == (0.0, wilson(0, 9))


def test_mean_interval_of_one_and_of_none() -> None:
    assert mean_interval([3.0]) == (-math.inf, math.inf)
    for function in (mean_interval, median_interval):
        with pytest.raises(ValueError, match=r"^values: wanted at least one, got none$"):
            function([])


POSITIVE = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=2, max_size=30)


@given(POSITIVE, st.sampled_from([1e-9, 1.0, 1e9]))
def test_ratio_of_means_is_where_scipys_test_turns(
    pairs: list[tuple[float, float]], unit: float
) -> None:
    """Student's test of x - r y at each end that is finite and above 0; not rejected between."""
    x, y = np.array(pairs).T
    low, high = ratio_of_means((unit * x).tolist(), y.tolist())
    low, high = low / unit, high / unit
    ratio = x.mean() / y.mean()
    assert low <= ratio * (1 + 1e-6) and ratio <= high * (1 + 1e-6)
    if x.std() < 1e-3 * x.mean() or y.std() < 1e-3 * y.mean() or high - low < 1e-3 * ratio:
        return  # the ends are known to the root of a rounding

    def accepted(r: float) -> float:
        return float(stats.ttest_1samp(x - r * y, 0).pvalue)

    for end in (low, high):
        if 1e-6 < end / ratio < 1e6:
            assert accepted(end) == pytest.approx(0.05, abs=1e-3)
    if low == 0:
        assert accepted(0.0) > 0.05 - 1e-3
    if high == math.inf:
        assert accepted(1e9 * ratio) > 0.05 - 1e-3


def test_ratio_of_means_at_its_edges() -> None:
    """No spread: the ratio itself; one number that carries all: nothing is known of that side."""
    assert ratio_of_means([2.0] * 9, [4.0] * 9) == pytest.approx((0.5, 0.5))
    few, many = [1.0] * 20, [1e-6] * 19 + [1.0]
    assert ratio_of_means(few, many)[1] == math.inf and ratio_of_means(few, many)[0] > 1
    assert ratio_of_means(many, few)[0] == 0 and ratio_of_means(many, few)[1] < 1
    for wrong in (([1.0], [1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(
            ValueError, match=r"^first, second: wanted two sequences of one length >= 2"
        ):
            ratio_of_means(*wrong)


@given(st.lists(FLOATS, min_size=1, max_size=60), LEVELS)
def test_median_interval_has_its_level_and_is_the_narrowest(
    values: list[float], level: float
) -> None:
    n, ranks = len(values), [float(i) for i in range(1, len(values) + 1)]
    middle, (low, high) = median_interval(ranks, level)
    k = int(low)
    assert middle == np.median(ranks)
    assert high == n + 1 - k

    def covers(k: int) -> float:
        return float(1 - 2 * stats.binom.cdf(k - 1, n, 0.5))

    assert k == 1 or covers(k) >= level - 1e-12
    assert k + 1 > (n + 1) // 2 or covers(k + 1) < level + 1e-12
    ordered = sorted(values)
    assert median_interval(values, level)[1] == (ordered[k - 1], ordered[n - k])


def test_six_values_reach_95_percent_and_five_do_not() -> None:
    assert 1 - 2 * 0.5**5 < 0.95 <= 1 - 2 * 0.5**6
    assert median_interval([float(i) for i in range(9)])[1] == (1.0, 7.0)


def test_median_interval_of_every_length_is_the_narrowest_of_its_level() -> None:
    """k is the largest with 1 - 2 P(Bin(n, 1/2) < k) >= level, by scipy, and 1 where none is."""
    for n in range(1, 61):
        ranks = [float(i) for i in range(1, n + 1)]
        covers = [1 - 2 * float(stats.binom.cdf(k - 1, n, 0.5)) for k in range(1, (n + 1) // 2 + 1)]
        # A level that is a coverage is reached; one just above it is not.
        whole = [round(c * 2**n) / 2**n for c in covers[1:] if c > 0 and n <= 20]
        near = [*whole, *(c + 1e-7 for c in whole)]
        for level in (0.3, 0.5, 0.9, 0.95, 0.99, *near):
            k = max(1, sum(cover >= level - 1e-12 for cover in covers))
            assert median_interval(ranks, level)[1] == (k, n + 1 - k), (n, level)
    with pytest.raises(ValueError, match=r"^values: wanted at least one, got none$"):
        median_interval([])


def test_a_normal_estimate_has_its_deviations() -> None:
    assert normal_interval(3.0, 2.0) == pytest.approx(stats.norm.interval(0.95, 3.0, 2.0))
    assert plus_minus(math.nan, 0.1) == "nan ± 0.1960"
    assert plus_minus(1.23456, 0.1) == "1.2346 ± 0.1960"
    assert plus_minus(1.23456, 0.1, ".2g", ".1g") == "1.2 ± 0.2"


def test_differences_and_ratios_of_estimates_carry_both_errors() -> None:
    a, b = Estimate(6.0, 0.3), Estimate(2.0, 0.4)
    value, ends = difference(a, b)
    assert value == 4.0
    assert ends == pytest.approx(normal_interval(4.0, 0.5))
    value, ends = ratio(a, b)
    assert value == 3.0
    # |d(a/b)|^2 = (da / b)^2 + (a db / b^2)^2
    assert ends == pytest.approx(normal_interval(3.0, math.hypot(0.15, 0.6)))


def test_parts_of_a_run_draw_independently_and_again_the_same() -> None:
    first, again, other = (
        torch.randn(4, generator=seeded(*given)) for given in ((3, 1), (4,), (3,))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def newcombe(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Method 10 of the table of both, first only, second only, neither, as the paper writes it."""
    n = a + b + c + d
    ends = [stats.binomtest(x, n).proportion_ci(0.95, method="wilson") for x in (a + b, a + c)]
    p, q = (a + b) / n, (a + c) / n
    below, above = [p - ends[0].low, q - ends[1].low], [ends[0].high - p, ends[1].high - q]
    product = (a + b) * (c + d) * (a + c) * (b + d)
    part = a * d - b * c
    part = part - n / 2 if part > n / 2 else 0 if part >= 0 else part
    phi = part / math.sqrt(product) if product else 0.0
    low = below[0] ** 2 - 2 * phi * below[0] * above[1] + above[1] ** 2
    high = above[0] ** 2 - 2 * phi * above[0] * below[1] + below[1] ** 2
    return p - q - math.sqrt(max(low, 0)), p - q + math.sqrt(max(high, 0))


def test_paired_difference_is_newcombes_for_every_table() -> None:
    """All tables of up to eight pairs: correlations of both signs, below n/2 and above."""
    for n in range(1, 9):
        for a, b, c in product(range(n + 1), repeat=3):
            d = n - a - b - c
            if d < 0:
                continue
            first = [True] * (a + b) + [False] * (c + d)
            second = [True] * a + [False] * b + [True] * c + [False] * d
            found = paired_difference(first, second)
            assert found == pytest.approx(newcombe(a, b, c, d), abs=1e-12), (a, b, c, d)


VERDICTS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(VERDICTS)
def test_paired_difference_is_antisymmetric_and_holds_its_estimate(
    pairs: list[tuple[bool, bool]],
) -> None:
    first, second = zip(*pairs, strict=True)
    low, high = paired_difference(first, second)
    turned = paired_difference(second, first)
    assert turned == pytest.approx((-high, -low), abs=1e-12)
    assert -1 <= low <= (sum(first) - sum(second)) / len(pairs) <= high <= 1


@pytest.mark.parametrize("cells", [(0.5, 0.3, 0.05, 0.15), (0.25, 0.25, 0.25, 0.25)])
def test_paired_difference_covers(cells: tuple[float, ...]) -> None:
    """Exact coverage at n = 20 by enumeration, with both, first only, second only, neither."""
    n, truth, covered, blind = 20, cells[1] - cells[2], 0.0, 0.0
    for a, b, c in product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        mass = float(stats.multinomial.pmf([a, b, c, d], n, cells))
        first = [True] * (a + b) + [False] * (c + d)
        second = [True] * a + [False] * b + [True] * c + [False] * d
        low, high = paired_difference(first, second)
        covered += mass * (low <= truth <= high)
        blind += mass * (abs((b - c) / n - truth) <= (high - low) / 4)  # half as wide: too short
    assert 0.94 < covered < 0.98
    assert blind < 0.8


def test_pairing_matters() -> None:
    """Verdicts that agree pair by pair give a shorter interval than the same shares unpaired."""
    together = [True] * 30 + [False] * 10
    low, high = paired_difference(together, together)
    crossed = paired_difference(together, together[::-1])
    assert low <= 0 <= high
    assert high - low < (crossed[1] - crossed[0]) / 3
    said = "first, second: wanted two sequences of one length >= 1, got 1 and 0"
    with pytest.raises(ValueError, match=f"^{said}$"):
        paired_difference([True], [])


def test_values_stand_before_their_intervals() -> None:
    assert mean_of([1.0, 2.0, 6.0]) == (3.0, mean_interval([1.0, 2.0, 6.0]))
    assert share_of([True, True, False, True]) == (0.75, wilson(3, 4))
    assert with_interval(Estimate(2.0, 0.5)) == (2.0, normal_interval(2.0, 0.5))


def test_a_geometric_ratio_is_the_mean_of_logarithms() -> None:
    value, (low, high) = geometric_ratio([1.0, 8.0, 6.0], [2.0, 2.0, 3.0])
    logs = [math.log(one) for one in (0.5, 4.0, 2.0)]
    wanted = mean_interval(logs)
    assert value == pytest.approx(4 ** (1 / 3))
    assert (math.log(low), math.log(high)) == pytest.approx(wanted)
    # One pair has no interval: its ends are those of the numbers that float64 holds.
    assert geometric_ratio([3.0], [1.0])[1] == (0.0, math.exp(700))
    with pytest.raises(ValueError, match="zip"):
        geometric_ratio([1.0, 2.0], [1.0])
    value, ends = geometric_ratio([0.0, 1.0], [1.0, 0.0])  # 0 counts as 1e-12
    assert value == pytest.approx(1) and 0 < ends[0] < 1 < ends[1] < math.inf


def test_ends_of_a_ratio_are_where_students_test_just_rejects() -> None:
    x, y = np.array([1.0, 0.9, 0.8]), np.array([1.0, 0.8, 0.9])
    for r in ratio_of_means(x, y):
        assert stats.ttest_1samp(x - r * y, 0).pvalue == pytest.approx(0.05, rel=1e-9)
