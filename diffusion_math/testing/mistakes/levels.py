"""The noise levels of code under test, in its own indices or times."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from diffusion_math.checks import Number, require

__all__ = ["Levels", "LevelsOf", "Rows", "Step", "Times", "neighbours", "pair_of", "pairs_of"]

LevelsOf: TypeAlias = Callable[[Any], tuple[Any, Any]]
"""`levels(i) -> (alpha, sigma)` of their index or time i: x_t = alpha x_0 + sigma eps."""

Times: TypeAlias = Iterable[Any]
"""Their indices or times, from little to much noise, as numbers or as an array of any library."""


class Step(NamedTuple):
    """Levels of a noisier time t and a cleaner time s, each float64 of shape (rows,).

    >>> import torch
    >>> from diffusion_math.testing import weights
    >>> step = weights.Step(*torch.tensor([[0.6], [0.8], [0.8], [0.6]]))
    >>> step.alpha_t / step.sigma_t
    tensor([0.7500])
    """

    alpha_t: Tensor
    sigma_t: Tensor
    alpha_s: Tensor
    sigma_s: Tensor


class Rows(NamedTuple):
    """Positions of t and s in `Levels`, int64 of shape (rows,): 0 is clean data."""

    t: Tensor
    s: Tensor


@final
@dataclass(frozen=True, eq=False)
class Levels:
    """The table of (alpha, sigma), from clean data at position 0 to the most noise.

    Attributes:
        times: their own name of each position; None for clean data, which has no index.
        alpha, sigma: float64 of shape (len(times),); 1 and 0 at position 0.
        eps: the relative rounding of the numbers that they gave.
        divides: whether values are divided by sigma_t^2, whose rounding is theirs too.
    """

    times: tuple[Number | None, ...]
    alpha: Tensor
    sigma: Tensor
    eps: float
    divides: bool = True

    @classmethod
    def read(cls, levels: LevelsOf, times: Times) -> "Levels":
        """The levels of their times, which are given from little to much noise.

        Raises ValueError for no time, for levels that are not two finite numbers with alpha >= 0
        and sigma > 0, and for a signal-to-noise ratio that does not fall from time to time.
        """
        names = tuple(_number(time) for time in times)
        require(len(names) > 0, "times", "at least one time", "none")
        require(len(set(names)) == len(names), "times", "each time once", names)
        rows, eps = [(1.0, 0.0)], 0.0
        for time in names:
            alpha, sigma, rounding = pair_of(levels, time)
            wanted = "finite alpha >= 0 and sigma > 0"
            good = 0 <= alpha < np.inf and 0 < sigma < np.inf
            require(good, f"levels({time})", wanted, (alpha, sigma))
            rows.append((alpha, sigma))
            eps = max(eps, rounding)
        alpha, sigma = torch.tensor(rows, dtype=torch.float64, device="cpu").T.contiguous()
        rises = ~(alpha[1:] * sigma[:-1] < alpha[:-1] * sigma[1:])
        if bool(rises.any()):
            wanted = "a signal-to-noise ratio that falls from time to time, little noise first"
            k = int(rises.int().argmax())
            always = len(names) > 1 and bool(rises[1:].all())
            hint = ": give them the other way round, or exchange alpha and sigma" if always else ""
            require(False, "times", wanted, f"a rise up to {names[k]}{hint}")
        return cls((None, *names), alpha, sigma, eps)

    def at(self, rows: Rows) -> Step:
        """The levels of both times of each row."""
        return Step(self.alpha[rows.t], self.sigma[rows.t], self.alpha[rows.s], self.sigma[rows.s])

    def rounding(self, eps: float) -> Tensor:
        """The relative rounding of sigma^2 at each position, in arithmetic of rounding eps.

        Where alpha^2 + sigma^2 = 1, sigma^2 is mostly computed as 1 - alpha^2, where alpha + sigma
        = 1, sigma as 1 - alpha, and what is divided by it is off by as much.
        """
        own = torch.full_like(self.alpha, eps)
        alpha, sigma = self.alpha[1:], self.sigma[1:]
        for power in (1, 2):
            off = (alpha**power + sigma**power - 1).abs()
            if bool(((off < 1e-3) & (off < sigma**power / 2)).all()):
                own[1:] = eps * (1 + (alpha / sigma) ** power)
        return own

    def nudged(self, eps: float) -> "list[Levels]":
        """The same with each number off by its rounding, up or down, in four patterns.

        What a formula's value does with it is what rounding of the levels can do to the value.
        """
        flat = torch.ones_like(self.alpha)
        turns = flat.clone()
        turns[::2] = -1
        own = self.rounding(eps) / 2
        straight = bool(((self.alpha + self.sigma - 1).abs() < 1e-3).all())  # alpha is 1 - sigma
        off = eps * (1 if straight else self.alpha)
        return [
            replace(self, alpha=self.alpha + off * up, sigma=self.sigma * (1 + own * down))
            for up, down in ((turns, turns), (turns, -turns), (turns, flat), (flat, turns))
        ]


def neighbours(levels: Levels) -> Rows:
    """Each time with the one before it; the first goes to clean data."""
    t = torch.arange(1, len(levels.times), device="cpu")
    return Rows(t, t - 1)


def pairs_of(levels: Levels, given: Iterable[Any]) -> Rows:
    """The rows of pairs (t, s) of their times; ValueError unless s is less noisy than t."""
    place = {time: k for k, time in enumerate(levels.times)}
    rows = []
    for pair in given:
        wanted = "two of the times each"
        known = isinstance(pair, Sequence | Tensor | np.ndarray) and len(pair) == 2
        require(known, "pairs", wanted, pair)
        t, s = (place.get(_number(time, "pairs", wanted), -1) for time in pair)
        require(min(t, s) >= 0, "pairs", wanted, pair)
        require(s < t, "pairs", "s less noisy than t in each (t, s)", pair)
        rows.append((t, s))
    require(len(rows) > 0, "pairs", "at least one pair", "none")
    return Rows(*torch.tensor(rows, device="cpu").T)


def _number(time: Any, argument: str = "times", wanted: str = "numbers") -> Number:
    """A time as a plain number; ValueError for what is none."""
    try:
        found = time.item() if hasattr(time, "item") else time
    except (RuntimeError, ValueError):
        found = None
    require(isinstance(found, Real), argument, wanted, repr(time))
    number: Number = found
    return number


def pair_of(levels: LevelsOf, time: Number) -> tuple[float, float, float]:
    """alpha, sigma and the relative rounding of their type."""
    try:
        given = levels(time)
    except AssertionError:  # levels are what is tested: see `guarded`
        raise
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
        raise ValueError(f"levels({time}): wanted (alpha, sigma), got {raised}") from error
    try:
        alpha, sigma = (each.detach() if isinstance(each, Tensor) else each for each in given)
        return float(alpha), float(sigma), max(_eps(alpha), _eps(sigma))
    except (TypeError, ValueError):
        raise ValueError(f"levels({time}): wanted (alpha, sigma), got {given!r}") from None


def _eps(value: Any) -> float:
    """The relative rounding of a number's type: float64's for plain numbers."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return float(torch.finfo(value.dtype).eps)
    kind = np.asarray(value).dtype if not isinstance(value, Tensor) else np.dtype(np.float64)
    return float(np.finfo(kind if kind.kind == "f" else np.float64).eps)
