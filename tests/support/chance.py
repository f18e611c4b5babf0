"""What chance owes a test: seeds that can be moved, bounds that hold at a stated rate, their power.

A Monte Carlo test, one whose verdict depends on random draws, is marked
`chance(rate, against)`: it fails though the code is right with probability `rate` at most, all its
cases together, and it rejects the wrong alternative named. In its text it asserts
`rare(bound.misses(alternative))`, which computes that the alternative passes with probability
RARE = 1e-9 at most (so its power is above 99%, and the alternative may be run beside the truth).
Every bound and every `rare` spends its probability; `tests/ledger.py` compares what a test has
spent with what its mark declares, and `tests/test_chance.py` adds the declarations up.

The bounds hold for finite samples: Chernoff's from the exact law of a summand, Massart's, the
binomial's own quantiles. SUITE_SEED = k in the environment moves every seed that is not `pinned`.
"""

import math
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy import stats
from scipy.optimize import brentq
from torch import Tensor

from experiments.common import pearson
from tests.support.distribution import Law

RARE = 1e-9
"""The probability with which a wrong alternative may pass."""
STRIDE = 1_000_003
"""Seeds of the suite are far below it, so that no two suite seeds share one."""
SUITE_SEED = int(os.environ.get("SUITE_SEED", "0"))


@dataclass
class Ledger:
    """What is drawn and spent in this process. `spent` is by account: of a case, or of a fixture
    that cases share; `account` is whose turn it is (tests/ledger.py), none while tests are found.
    """

    seeds: int = 0
    spent: Counter[str] = field(default_factory=Counter)
    account: str | None = None


LEDGER = Ledger()


def shifted(seed: int) -> int:
    """The seed of a draw: itself, or another one in every run under another SUITE_SEED."""
    LEDGER.seeds += 1
    return seed + STRIDE * SUITE_SEED


def seeded(seed: int) -> torch.Generator:
    """torch's generator of a draw."""
    return pinned(shifted(seed))


def rng(seed: int) -> np.random.Generator:
    """numpy's generator of a draw."""
    return np.random.default_rng(shifted(seed))


def pinned(seed: int) -> torch.Generator:
    """torch's generator of an input that a test has chosen once and for all."""
    return torch.Generator().manual_seed(seed)


def spend(rate: float) -> float:
    """Enter a probability of a false alarm in the ledger; returns it.

    Raises RuntimeError outside of tests and fixtures, where it would be nobody's.
    """
    if LEDGER.account is None:
        raise RuntimeError("chance is spent by a test or its fixture, not while tests are found")
    LEDGER.spent[LEDGER.account] += rate
    return rate


def answered(bound: "Mean | Distance | Count | Cells", fits: bool) -> bool:
    """A bound's answer: its rate pays for one yes; each yes to other draws spends it again."""
    if fits:
        spend(bound.rate if bound.said else 0.0)
        bound.said.append(fits)
    return fits


def rare(misses: float) -> bool:
    """Whether an alternative that passes with this probability is as good as always rejected."""
    return spend(misses) <= RARE


def known(right: int, trials: int, rate: float) -> tuple[float, float]:
    """Where a probability lies by earlier trials, of which so many succeeded, but for `rate`.

    Source: Clopper and Pearson (1934), doi:10.1093/biomet/26.4.404.
    """
    tail = spend(rate) / 2
    low = float(stats.beta.ppf(tail, right, trials - right + 1)) if right > 0 else 0.0
    high = float(stats.beta.isf(tail, right + 1, trials - right)) if right < trials else 1.0
    return low, high


@dataclass(frozen=True)
class Mean:
    """Where the mean of n draws of a law lies, but for `rate`."""

    law: Law
    n: int
    rate: float
    low: float = field(init=False)
    high: float = field(init=False)
    said: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exponent = math.log(2 / spend(self.rate)) / self.n
        for name, sign in (("low", -1), ("high", 1)):
            object.__setattr__(self, name, self.law.end(sign, exponent))

    def holds(self, mean: float | Tensor) -> bool:
        return answered(self, self.low <= float(mean) <= self.high)

    def misses(self, other: Law) -> float:
        """P(the mean of n draws of another law lies there), at most."""
        if self.low <= other.mean <= self.high:
            return 1.0
        near = self.high if other.mean > self.high else self.low
        return math.exp(-self.n * other.exponent(near))


@dataclass(frozen=True)
class Distance:
    """Kolmogorov's distance of n draws from their law, but for `rate` (Massart 1990).

    P(distance > d) <= 2 exp(-2 n d^2).
    """

    n: int
    rate: float
    said: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spend(self.rate)

    @property
    def limit(self) -> float:
        return math.sqrt(math.log(2 / self.rate) / (2 * self.n))

    def holds(self, at_draws: Tensor) -> bool:
        """at_draws: `(n,)`, the distribution function at each of the draws."""
        return answered(self, self.between(at_draws) <= self.limit)

    def misses(self, apart: float) -> float:
        """P(draws of a law at this distance from the law stated pass), by the triangle."""
        return 2 * math.exp(-2 * self.n * max(0.0, apart - self.limit) ** 2)

    @staticmethod
    def between(at_draws: Tensor) -> float:
        """The distance itself, exact at both sides of each jump."""
        at, n = at_draws.double().sort().values, len(at_draws)
        steps = torch.arange(n + 1, dtype=torch.float64) / n
        return torch.maximum((at - steps[:-1]).abs(), (at - steps[1:]).abs()).max().item()


@dataclass(frozen=True)
class Count:
    """How many of n independent trials succeed, but for `rate`, where each does so with p.

    p may be a range (least, most), if that is all that is known. Exact, by the binomial law.
    """

    n: int
    p: float | tuple[float, float]
    rate: float
    said: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spend(self.rate)

    @property
    def ends(self) -> tuple[int, int]:
        least, most = self.p if isinstance(self.p, tuple) else (self.p, self.p)
        low = int(stats.binom.ppf(self.rate / 2, self.n, least))
        return low, int(stats.binom.isf(self.rate / 2, self.n, most))

    def holds(self, count: int) -> bool:
        low, high = self.ends
        return answered(self, low <= count <= high)

    def misses(self, p: float) -> float:
        """P(the count lies there where each trial succeeds with another p)."""
        low, high = self.ends
        law = stats.binom(self.n, p)
        return min(float(law.cdf(high)), float(law.sf(low - 1)))


@dataclass(frozen=True)
class Cells:
    """Pearson's sum over cells, sum (count - expected)^2 / expected, but for `rate`.

    The limit is `experiments.common.pearson`'s, and `slack` for what is not known of `expected`.
    """

    expected: Tensor
    rate: float
    slack: float = 0.0
    said: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spend(self.rate)

    def of(self, counts: Tensor) -> float:
        """The sum."""
        return pearson.pearson(counts, self.expected)

    @cached_property
    def limit(self) -> float:
        return pearson.limit(self.expected, self.rate) + self.slack

    def holds(self, counts: Tensor) -> bool:
        return answered(self, self.of(counts) <= self.limit)

    def misses(self, others: Tensor) -> float:
        """P(draws of which others are expected pass), at most."""

        def tilted(k: float) -> tuple[float, float]:
            return pearson.tilted(self.expected, others, k)

        if tilted(0.0)[0] <= self.limit:
            return 1.0
        least = -1.0
        while tilted(least)[0] > self.limit:
            least *= 2
            if least < -1e6:
                return 0.0
        k = brentq(lambda k: tilted(k)[0] - self.limit, least, 0.0, xtol=1e-9)
        return min(1.0, pearson.given(self.expected) * math.exp(-tilted(k)[1]))
