"""The law of a number by its values and weights, and how means of it concentrate (Chernoff)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.optimize import brentq
from torch import Tensor


@dataclass(frozen=True)
class Law:
    """The law of a number: values, and the probability of each (a quadrature's nodes, mostly).

    A truncated quadrature is the law given that no draw lies outside, where next to none does.
    """

    values: Tensor
    weights: Tensor

    @cached_property
    def _log_weights(self) -> Tensor:
        return (self.weights / self.weights.sum()).log()

    @property
    def mean(self) -> float:
        return self.tilted(0.0)[0]

    def of(self, function: Callable[[Tensor], Tensor]) -> "Law":
        """The law of a function of the number."""
        return Law(function(self.values), self.weights)

    def tilted(self, k: float) -> tuple[float, float]:
        """a = E[v e^(kv)] / E e^(kv), and k a - log E e^(kv), the rate at which a mean of a decays.

        P(mean of n >= a) <= exp(-n rate) for k > 0, P(mean <= a) <= exp(-n rate) for k < 0
        (Cramer, Chernoff).
        """
        log_tilted = self._log_weights + k * self.values
        log_mass = torch.logsumexp(log_tilted, 0)
        a = float((log_tilted - log_mass).exp() @ self.values)
        return a, max(0.0, k * a - float(log_mass))

    def end(self, sign: int, exponent: float) -> float:
        """The value that a mean passes, above or below, with probability e^-(n exponent)."""
        k, (a, rate) = sign / self._scale, self.tilted(sign / self._scale)
        while rate < exponent:
            before, (a, rate) = a, self.tilted(2 * k)
            k *= 2
            if abs(a - before) < 1e-12 * self._scale:
                return a  # the largest or smallest value of all
        return self.tilted(brentq(lambda k: self.tilted(k)[1] - exponent, 0.0, k))[0]

    def exponent(self, a: float) -> float:
        """The rate at which P(mean beyond a, seen from E v) decays; infinite off the support."""
        if not self.values.min() < a < self.values.max():
            return math.inf
        k = math.copysign(1 / self._scale, a - self.mean)
        while (self.tilted(k)[0] - a) * k < 0:
            k *= 2
        return self.tilted(brentq(lambda k: self.tilted(k)[0] - a, 0.0, k))[1]

    @cached_property
    def _scale(self) -> float:
        w = self._log_weights.exp()
        return float((w @ (self.values - w @ self.values).square()).sqrt())


def line(reach: float = 12.0, count: int = 1201) -> Law:
    """N(0, 1): the trapezoid rule, exact to rounding, without the 1e-32 beyond 12."""
    z = torch.linspace(-reach, reach, count, dtype=torch.float64)
    return Law(z, torch.exp(-z.square() / 2))


def independent(one: Law, other: Law, function: Callable[[Tensor, Tensor], Tensor]) -> Law:
    """The law of a function of two independent numbers."""
    a, b = one.values[:, None], other.values
    values = function(*torch.broadcast_tensors(a, b)).flatten()
    return Law(values, (one.weights[:, None] * other.weights).flatten())


def mixed(log_weights: Tensor, means: Tensor, variances: Tensor) -> Law:
    """A mixture of normals on the line: `(K,)` each."""
    z = line()
    values = means[:, None] + variances.sqrt()[:, None] * z.values
    weights = log_weights.softmax(0)[:, None] * z.weights
    return Law(values.flatten(), weights.flatten())


def uniform(low: float = 0.0, high: float = 1.0, count: int = 2000) -> Law:
    """The uniform law, by the midpoints of as many cells."""
    part = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return Law(low + (high - low) * part, torch.full_like(part, 1 / count))
