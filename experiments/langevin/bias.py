"""What steps of Langevin do to N(0, 1): measured on many chains, beside the exact distributions."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_math import langevin, langevin_law
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.langevin import Move, Particles, chain
from diffusion_math.noise import from_generator
from diffusion_math.schedule import VE
from experiments.common.statistics import seeded, variance_interval

FALSE_ALARM = 1e-8
"""Of all the intervals of one row together."""
BIASED = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Step sizes, in units of the variance; from 2 on ULA has no stationary distribution."""
WATCHED, MOMENTS = (0.05, 0.5, 1.5), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
SETTLED, KEPT = 40, 10
"""Moves until a chain from 0 is stationary, |1 - delta|^(2 k) < 1e-9, and of one that starts so."""
FRICTION = 1.0
STANDARD = GaussianMixture(torch.zeros(1), torch.zeros(1, 1), torch.ones(1))
"""N(0, 1), the density that the samplers follow; an event of one entry."""


@dataclass(frozen=True)
class Variance:
    """The variance of `chains` chains after `moves` moves, and the one that it should be."""

    sampler: str
    delta: float
    moves: int
    found: float
    predicted: float
    chains: int

    def interval(self, intervals: int) -> tuple[float, float]:
        """For the true variance, where `intervals` of them all hold but once in 1/FALSE_ALARM.

        The chains are independent and normal about 0, so n found / true ~ chi^2_n exactly.
        """
        # Their mean is known: one degree of freedom more than `variance_interval` counts.
        return variance_interval(self.found, self.chains + 1, FALSE_ALARM / intervals)


def normal(variance: float) -> Gaussian:
    """N(0, variance), an event of one entry."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    return Gaussian(zero, torch.tensor(variance, dtype=torch.float64))


def stationary(chains: int, seed: int) -> list[Variance]:
    """The variance each sampler keeps at every step size of BIASED.

    ULA starts at 0 and makes SETTLED moves; MALA and BAOAB start from samples of the distribution
    they keep, BAOAB's h being sqrt(2 delta), where that is below its limit of 2.
    """
    target, generator = normal(1.0), seeded(seed)
    found = []
    for delta in BIASED:
        ula = langevin.ula(_score, delta)
        zeros = torch.zeros(chains, 1, dtype=torch.float64)
        x = last(ula, zeros, SETTLED, generator)
        predicted = float(langevin_law.ula_stationary(target, delta).variance)
        found.append(_variance("ULA", delta, SETTLED, x, predicted))

        mala = langevin.mala(lambda x: STANDARD.log_density_and_score(VE(), x, 0.0), delta)
        start = Particles(STANDARD.sample(generator, chains))
        x = last(mala, start, KEPT, generator)
        found.append(_variance("MALA", delta, KEPT, x, 1.0))

        h = math.sqrt(2 * delta)
        position, velocity = langevin_law.baoab_stationary(target, h)
        baoab = langevin.baoab(_score, h, FRICTION)
        z = torch.randn(2, chains, 1, generator=generator, dtype=torch.float64)
        x, v = position.variance.sqrt() * z[0], velocity.variance.sqrt() * z[1]
        x = last(baoab, Particles(x, velocity=v), KEPT, generator)
        found.append(_variance("BAOAB", delta, KEPT, x, float(position.variance)))
    return found


def transient(chains: int, seed: int) -> list[Variance]:
    """The variance of ULA from 0 after each number of MOMENTS, at every step size of WATCHED.

    The numbers of one step size are of one run, so their intervals are not independent.
    """
    target, generator = normal(1.0), seeded(seed)
    found = []
    for delta in WATCHED:
        ula = langevin.ula(_score, delta)
        zeros = torch.zeros(chains, 1, dtype=torch.float64)
        for state in chain(ula, zeros, MOMENTS[-1], from_generator(generator)):
            if state.moves in MOMENTS:
                exact = langevin_law.ula_distribution(target, delta, normal(0.0), state.moves)
                predicted = float(exact.variance)
                found.append(_variance("ULA", delta, state.moves, state.x, predicted))
    return found


def gains(deltas: Sequence[float], points: Tensor) -> list[float]:
    """The mean gain of log N(x; 0, 1) over the points in one step of ascent, for each delta."""
    return [float(_gain(delta, points).mean()) for delta in deltas]


def turning_point(points: Tensor, low: float, high: float) -> tuple[float, float]:
    """The step sizes between which one step of ascent stops to raise log N(x; 0, 1), by bisection.

    At the first it raises it at every point, at the second it does not. Raises ValueError unless
    that is so of the ends given.
    """

    def raises(delta: float) -> bool:
        return bool((_gain(delta, points) > 0).all())

    if not raises(low) or raises(high):
        raise ValueError(f"low, high: wanted a rise at low alone, got {low}, {high}")
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if raises(middle) else (low, middle)
    return low, high


def _score(x: Tensor) -> Tensor:
    return STANDARD.score(VE(), x, 0.0)


def _gain(delta: float, points: Tensor) -> Tensor:
    *_, end = chain(langevin.ascent(_score, delta), points, 1)
    return STANDARD.log_density(VE(), end.x, 0.0) - STANDARD.log_density(VE(), points, 0.0)


def last(move: Move, start: Particles | Tensor, moves: int, generator: torch.Generator) -> Tensor:
    """Where a chain is after so many moves."""
    (end,) = deque(chain(move, start, moves, from_generator(generator)), maxlen=1)
    return end.x


def _variance(sampler: str, delta: float, moves: int, x: Tensor, predicted: float) -> Variance:
    """About the mean 0, which every distribution here has."""
    return Variance(sampler, delta, moves, float(x.square().mean()), predicted, len(x))
