"""Pearson's sum over cells, and a limit that it passes with a stated probability at most."""

import math

import torch
from scipy.optimize import brentq
from scipy.stats import poisson
from torch import Tensor


def pearson(counts: Tensor, expected: Tensor) -> float:
    """sum (count - expected)^2 / expected over cells, `(n,)` each."""
    return float(((counts - expected).square() / expected).sum())


def limit(expected: Tensor, rate: float) -> float:
    """What the sum of n draws over these cells passes with probability `rate` at most.

    Counts of draws are independent Poisson counts given that these sum to n. So Chernoff's bound
    for Poisson counts, over the probability of that, is one for the samples, however few a cell
    expects; likewise one for all cells but the largest, which expects R, times the likeliest count
    of that one, and then the whole sum is at most n / R times the sum of the others. The lower of
    both limits is taken.

    Args:
        expected: `(n,)`, above 0; together the number of draws.
    """
    whole = _chernoff(expected, rate / given(expected))
    largest, at = expected.max(0)
    others = torch.cat([expected[:at], expected[at + 1 :]])
    if len(others) == 0:  # the sum is 0
        return whole
    likeliest = float(poisson.pmf(int(largest), float(largest)))
    rest = _chernoff(others, rate / (given(expected) * likeliest))
    return min(whole, rest * float(expected.sum() / largest))


def _chernoff(expected: Tensor, rate: float) -> float:
    """What the sum over independent Poisson counts passes with probability `rate` at most."""
    most = 0.1
    while tilted(expected, expected, most)[1] < -math.log(rate):
        most *= 1.3
    k = brentq(lambda k: tilted(expected, expected, k)[1] + math.log(rate), 0.0, most, xtol=1e-9)
    return tilted(expected, expected, k)[0]


def given(expected: Tensor) -> float:
    """How many times likelier an event becomes, at most, once the sum of the counts is known."""
    total = round(float(expected.sum()))
    return 1 / float(poisson.pmf(total, total))


def tilted(expected: Tensor, means: Tensor, k: float) -> tuple[float, float]:
    """a = E[S e^(kS)] / E e^(kS) for the sum S over Poisson counts of these means, and
    k a - log E e^(kS): P(S >= a) <= e^-that for k > 0, P(S <= a) for k < 0 (Chernoff).

    Counts are taken to lie within 12 deviations and 40 of their means; that one does not has
    probability e^-60.
    """
    width = 12 * means.sqrt() + 40
    lowest = (means - width).floor().clamp(min=0)
    j = lowest[:, None] + torch.arange(int((2 * width).max()) + 2, dtype=torch.float64)
    log_p = j * means.log()[:, None] - means[:, None] - torch.lgamma(j + 1)
    log_p = torch.where(j <= (means + width)[:, None], log_p, -math.inf)
    value = (j - expected[:, None]).square() / expected[:, None]
    log_tilted = log_p + k * value
    log_mass = log_tilted.logsumexp(1)
    a = float(((log_tilted - log_mass[:, None]).exp() * value).sum())
    return a, k * a - float(log_mass.sum())
