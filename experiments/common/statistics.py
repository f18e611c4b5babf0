"""Intervals and bounds for what the experiments measure, and the generators that they draw from.

Intervals are two-sided, at 95% unless another level is given.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, median, stdev

import numpy as np
import torch
from scipy.special import stdtrit
from scipy.stats import binomtest, chi2

from diffusion_math.metrics import Estimate

Interval = tuple[float, float]
Z = NormalDist().inv_cdf(0.975)
"""Half the width of a normal's middle 95%, in standard errors."""


def seeded(seed: int, part: int = 0) -> torch.Generator:
    """The generator of one part of a run: parts of different numbers draw independently."""
    return torch.Generator().manual_seed(seed + part)


def wilson(right: int, count: int, level: float = 0.95) -> Interval:
    """Wilson's interval for a proportion of which `right` of `count` trials were seen.

        (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2/n)

    Unlike the normal interval it never leaves [0, 1] and is not a point at 0 or `count`.
    Raises ValueError unless 0 <= right <= count, count >= 1 and 0 < level < 1.
    Source: Wilson (1927), doi:10.1080/01621459.1927.10502953.
    """
    if not (0 <= right <= count >= 1 and 0 < level < 1):
        wanted = "wanted 0 <= right <= count >= 1 and 0 < level < 1"
        raise ValueError(f"right, count, level: {wanted}, got {right}, {count}, {level}")
    low, high = binomtest(right, count).proportion_ci(level, method="wilson")
    return float(low), float(high)


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Interval:
    """Newcombe's interval for p_first - p_second of paired verdicts (same prompt, same seed).

    With Wilson's intervals (l_i, u_i) of each proportion and phi the verdicts' correlation (its
    numerator, where positive, less n/2 but not below 0: a correction for continuity),

        d - sqrt((p1 - l1)^2 - 2 phi (p1 - l1)(u2 - p2) + (u2 - p2)^2)

    is the lower end, and the upper end is the same with the parts exchanged.
    Raises ValueError for empty sequences or different lengths.
    Source: Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10.
    """
    if len(first) != len(second) or not first:
        wanted = "wanted two sequences of one length >= 1"
        raise ValueError(f"first, second: {wanted}, got {len(first)} and {len(second)}")
    n = len(first)
    both = sum(map(min, first, second))
    x1, x2 = sum(first), sum(second)
    p1, p2 = x1 / n, x2 / n
    (l1, u1), (l2, u2) = wilson(x1, n), wilson(x2, n)
    spread = math.sqrt(x1 * (n - x1) * x2 * (n - x2))
    joint = float(both * n - x1 * x2)
    joint = joint if joint <= 0 else max(joint - n / 2, 0.0)
    phi = joint / spread if spread > 0 else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a**2 - 2 * phi * a * b + b**2))

    d = p1 - p2
    return d - reach(p1 - l1, u2 - p2), d + reach(u1 - p1, p2 - l2)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval for a mean: mean +- t_{n-1} s / sqrt(n); infinite for one value.

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("values: wanted at least one, got none")
    if len(values) == 1:
        return -math.inf, math.inf
    half = (
        -float(stdtrit(len(values) - 1, (1 - level) / 2)) * stdev(values) / math.sqrt(len(values))
    )
    return fmean(values) - half, fmean(values) + half


def normal_interval(value: float, error: float) -> Interval:
    """The 95% interval of an estimate taken for normal, from its standard error."""
    return value - Z * error, value + Z * error


def with_interval(one: Estimate) -> tuple[float, Interval]:
    """The estimate and its 95% interval."""
    return one.value, normal_interval(*one)


def mean_of(values: Sequence[float]) -> tuple[float, Interval]:
    """The mean and its `mean_interval`."""
    return fmean(values), mean_interval(values)


def geometric_ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval]:
    """The geometric mean of the pairs' ratios, and Student's interval by their logarithms."""
    pairs = zip(first, second, strict=True)
    mean, ends = mean_of([math.log(max(a, 1e-12) / max(b, 1e-12)) for a, b in pairs])
    low, high = (math.exp(min(end, 700.0)) for end in ends)
    return math.exp(mean), (low, high)


def share_of(verdicts: Sequence[bool]) -> tuple[float, Interval]:
    """The share of those that hold and its interval by `wilson`."""
    right = sum(verdicts)
    return right / len(verdicts), wilson(right, len(verdicts))


def share_of_groups(groups: Sequence[Sequence[bool]]) -> tuple[float, Interval]:
    """The share of all verdicts that hold, and its interval, of independent groups.

    Verdicts of one group may depend on each other: the variance is that of a ratio of sums over
    groups, to first order. Where all hold or none, the interval is `wilson`'s of the groups.
    Source: Cochran 1977, "Sampling Techniques", section 3.12 (cluster sampling).
    """
    total, right = sum(map(len, groups)), sum(map(sum, groups))
    share, count = right / total, len(groups)
    if right in (0, total) or count < 2:
        return share, wilson(count * (right > 0), count)
    squared = sum((sum(group) - share * len(group)) ** 2 for group in groups)
    error = math.sqrt(squared * count / (count - 1)) / total
    low, high = normal_interval(share, error)
    return share, (max(low, 0.0), min(high, 1.0))


def plus_minus(value: float, error: float, digits: str = ".4f", of_error: str = "") -> str:
    """The estimate and half of its `normal_interval` as text, "0.1235 ± 0.0067"."""
    return f"{value:{digits}} ± {Z * error:{of_error or digits}}"


def difference(a: Estimate, b: Estimate) -> tuple[float, Interval]:
    """a - b and its interval, for independent estimates taken for normal."""
    value = a.value - b.value
    return value, normal_interval(value, math.hypot(a.error, b.error))


def ratio(a: Estimate, b: Estimate) -> tuple[float, Interval]:
    """a / b and its interval, to first order and as if a and b were independent."""
    value = a.value / b.value
    return value, normal_interval(value, math.hypot(a.error, value * b.error) / b.value)


def variance_interval(variance: float, count: int, chance: float) -> Interval:
    """The interval of a normal's variance from a sample variance: (n - 1) s^2 / v is chi-squared.

    It misses v with probability `chance`, half of it on each side.
    """
    distribution = chi2(count - 1)
    low, high = float(distribution.isf(chance / 2)), float(distribution.ppf(chance / 2))
    return (count - 1) * variance / low, (count - 1) * variance / high


def kolmogorov_bound(count: int, chance: float) -> float:
    """What an empirical distribution function of `count` samples errs by, but with that chance.

        d = sqrt(log(2 / chance) / (2 n)),    P(D > d) <= 2 exp(-2 n d^2)

    Source: Dvoretzky, Kiefer and Wolfowitz (1956), with the constant of Massart (1990); discrete
    distributions included.
    """
    return math.sqrt(math.log(2 / chance) / (2 * count))


def ratio_of_means(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Fieller's 95% interval for the ratio of two means of paired positive numbers.

    All r for which Student's test does not reject that x_i - r y_i has the mean 0. Exact where
    these differences are normal; where they are symmetric it misses no oftener, however long their
    tails, since the test divides their sum by the root of the sum of their own squares. The upper
    end is infinite where the second mean cannot be told from 0: where one or two of its numbers are
    most of their sum. If one sequence has a longer tail than its numbers show, it misses oftener,
    as every interval made of them does.
    Raises ValueError for fewer than two pairs, or different lengths.
    Source: Fieller (1954), Journal of the Royal Statistical Society B 16, 175-185.
    """
    if len(first) != len(second) or len(first) < 2:
        wanted = "wanted two sequences of one length >= 2"
        raise ValueError(f"first, second: {wanted}, got {len(first)} and {len(second)}")
    x, y, n = np.asarray(first), np.asarray(second), len(first)
    unit_x, unit_y = float(x.max()), float(y.max())
    x, y = x / unit_x, y / unit_y
    t2 = float(stdtrit(n - 1, 0.975)) ** 2
    z2 = n * t2 / (n - 1 + t2)  # the test's limit for (sum of differences)^2 / sum of their squares
    a = float(y.sum() ** 2 - z2 * (y @ y))
    b = float(x.sum() * y.sum() - z2 * (x @ y))
    c = float(x.sum() ** 2 - z2 * (x @ x))
    end = b + math.sqrt(max(0.0, b * b - a * c))  # a r^2 - 2 b r + c <= 0
    scale = unit_x / unit_y
    return (scale * c / end if c > 0 else 0.0), (scale * end / a if a > 0 else math.inf)


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, Interval]:
    """The median and its distribution-free interval, between two order statistics.

    (x_(k), x_(n+1-k)) covers the median with probability 1 - 2 P(Bin(n, 1/2) < k); k is the
    largest for which that is at least `level`. Fewer than 6 values can't reach 95%: then the
    interval is the range, (x_(1), x_(n)). Raises ValueError for no values.
    """
    if not values:
        raise ValueError("values: wanted at least one, got none")
    ordered, n = sorted(values), len(values)
    k, below = 1, 1 / 2**n  # below = P(Bin(n, 1/2) < k)
    while k + 1 <= (n + 1) // 2 and 1 - 2 * (below + math.comb(n, k) / 2**n) >= level:
        below += math.comb(n, k) / 2**n
        k += 1
    return median(ordered), (ordered[k - 1], ordered[n - k])
