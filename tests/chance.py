"""What chance owes a test: seeds that can be moved, bounds that hold at a stated rate, their power.

A Monte Carlo test, one whose verdict depends on random draws, is marked
`chance(rate, against)`: it fails though the code is right with probability `rate` at most, all its
cases together, and it rejects the wrong alternative named. In its text it asserts
`rare(bound.misses(alternative))`, which computes that the alternative passes with probability
RARE = 1e-9 at most (so its power is above 99%, and the alternative may be run beside the truth).
Every bound and every `rare` spends its probability; `tests/ledger.py` compares what a test has
spent with what its mark declares, and `tests/test_chance.py` adds the declarations up.

The bounds are no asymptotics: Chernoff's from the exact law of a summand, Massart's, the binomial's
own quantiles. SUITE_SEED = k in the environment moves every seed that is not `pinned`.
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

from tests.law import Law

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


def rare(misses: float) -> bool:
    """Whether an alternative that passes with this probability is as good as always rejected."""
    return spend(misses) <= RARE


@dataclass(frozen=True)
class Mean:
    """Where the mean of n draws of a law lies, but for `rate`."""

    law: Law
    n: int
    rate: float
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        exponent = math.log(2 / spend(self.rate)) / self.n
        for name, sign in (("low", -1), ("high", 1)):
            object.__setattr__(self, name, self.law.end(sign, exponent))

    def holds(self, mean: float | Tensor) -> bool:
        return self.low <= float(mean) <= self.high

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

    def __post_init__(self) -> None:
        spend(self.rate)

    @property
    def limit(self) -> float:
        return math.sqrt(math.log(2 / self.rate) / (2 * self.n))

    def holds(self, at_draws: Tensor) -> bool:
        """at_draws: `(n,)`, the distribution function at each of the draws."""
        return self.between(at_draws) <= self.limit

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

    def __post_init__(self) -> None:
        spend(self.rate)

    @property
    def ends(self) -> tuple[int, int]:
        least, most = self.p if isinstance(self.p, tuple) else (self.p, self.p)
        low = int(stats.binom.ppf(self.rate / 2, self.n, least))
        return low, int(stats.binom.isf(self.rate / 2, self.n, most))

    def holds(self, count: int) -> bool:
        low, high = self.ends
        return low <= count <= high

    def misses(self, p: float) -> float:
        """P(the count lies there where each trial succeeds with another p)."""
        low, high = self.ends
        law = stats.binom(self.n, p)
        return min(float(law.cdf(high)), float(law.sf(low - 1)))


@dataclass(frozen=True)
class Cells:
    """Pearson's sum over cells, sum (count - expected)^2 / expected, but for `rate`.

    n draws over cells are independent Poisson counts given that these sum to n, which they do with
    probability 1 / sqrt(2 pi n) or nearly: so Chernoff's bound for the Poisson counts, times
    sqrt(2 pi n) (and 1.1), is one for the draws. Counts are taken to lie within 12 deviations and
    40 of what is expected; that a Poisson count does not has probability e^-60.
    """

    expected: Tensor
    rate: float

    def __post_init__(self) -> None:
        spend(self.rate)

    def of(self, counts: Tensor) -> float:
        """The sum."""
        return float(((counts - self.expected).square() / self.expected).sum())

    @cached_property
    def limit(self) -> float:
        exponent, most = math.log(self._given / self.rate), 0.1

        def beyond(k: float) -> float:
            return self._tilted(self.expected, k)[1] - exponent

        while beyond(most) < 0:
            most *= 1.3
        return self._tilted(self.expected, brentq(beyond, 0.0, most, xtol=1e-9))[0]

    def holds(self, counts: Tensor) -> bool:
        return self.of(counts) <= self.limit

    def misses(self, others: Tensor) -> float:
        """P(draws of which others are expected pass), at most."""
        if self._tilted(others, 0.0)[0] <= self.limit:
            return 1.0
        least = -1.0
        while self._tilted(others, least)[0] > self.limit:
            least *= 2
            if least < -1e6:
                return 0.0
        k = brentq(lambda k: self._tilted(others, k)[0] - self.limit, least, 0.0, xtol=1e-9)
        return min(1.0, self._given * math.exp(-self._tilted(others, k)[1]))

    @property
    def _given(self) -> float:
        return 1.1 * math.sqrt(2 * math.pi * float(self.expected.sum()))

    def _tilted(self, means: Tensor, k: float) -> tuple[float, float]:
        """As `Law.tilted`, for the sum over Poisson counts of these means."""
        width = 12 * means.sqrt() + 40
        lowest = (means - width).floor().clamp(min=0)
        j = lowest[:, None] + torch.arange(int((2 * width).max()) + 2, dtype=torch.float64)
        log_p = j * means.log()[:, None] - means[:, None] - torch.lgamma(j + 1)
        log_p = torch.where(j <= (means + width)[:, None], log_p, -math.inf)
        value = (j - self.expected[:, None]).square() / self.expected[:, None]
        log_tilted = log_p + k * value
        log_mass = log_tilted.logsumexp(1)
        a = float(((log_tilted - log_mass[:, None]).exp() * value).sum())
        return a, k * a - float(log_mass.sum())
