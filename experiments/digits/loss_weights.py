"""C19 in practice: eps-networks of digits by one budget, under the simple weight and lambda_t.

With the same seed the networks start from the same weights and see the same digits, times and
noise, and sampling draws the same noise: what differs is the weight.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from diffusion_math.elbo import lambda_t
from diffusion_math.loss import Weight, uniform_times, variational
from diffusion_math.metrics import energy_distance
from diffusion_math.schedule import Discrete
from experiments.common.statistics import seeded
from experiments.digits.data import Digits, agrees
from experiments.digits.training import AnyNetwork, Budget, Times, bits, bound_times, learn, sample

SIMPLE, BOUND, DRAWN = "simple", "variational", "variational, t by lambda"


@dataclass(frozen=True)
class Outcome:
    """The samples and the bound of a network, evaluated on held-out digits.

    energy: squared energy distance of its samples, pixels in [-1, 1]; agreement: share of samples
    read as their label; bits: the bound, a pixel.
    """

    energy: float
    agreement: float
    bits: float


@dataclass(frozen=True)
class Evaluator:
    """How networks are judged: held-out digits, a classifier, draws a digit, sampling steps.

    written: digits that the bound is measured on; with 0 it is not, and comes out NaN.
    """

    schedule: Discrete
    digits: Digits
    classifier: Any
    draws: int = 2
    steps: int = 100
    written: int = 100

    def __call__(self, network: AnyNetwork, seed: int) -> Outcome:
        """The network's outcome, with the samples' noise from the seed."""
        labels = self.digits.labels.repeat(self.draws)
        generator = seeded(seed)
        x = sample(self.schedule, network, labels, self.steps, generator)
        verdicts = agrees(self.classifier, x, labels)
        return Outcome(
            energy_distance(x.double(), self.digits.x.double()).value,
            sum(verdicts) / len(verdicts),
            self._bits(network, generator) if self.written else math.nan,
        )

    def _bits(self, network: AnyNetwork, generator: Generator) -> float:
        few = Digits(self.digits.x[: self.written], self.digits.labels[: self.written])
        found = bits(self.schedule, network, few, generator, self.steps)
        return found.bits_per_dimension.mean().item()


def compare(
    evaluate: Evaluator,
    train: Digits,
    budget: Budget,
    seeds: int,
    names: tuple[str, ...] = (SIMPLE, BOUND),
    tick: Callable[[], object] = lambda: None,
    first: int = 0,
) -> dict[str, list[Outcome]]:
    """The outcome of every arm named, for the seeds from `first` on, in their order."""
    schedule = evaluate.schedule
    # The last two have one expected loss, up to a factor.
    arms: dict[str, tuple[Weight | None, Times]] = {
        SIMPLE: (None, uniform_times),
        BOUND: (variational, uniform_times),
        DRAWN: (None, bound_times(schedule)),
    }
    found: dict[str, list[Outcome]] = {name: [] for name in names}
    for name in names:
        for seed in range(first, first + seeds):
            network = learn(schedule, train, budget, seed, 0.1, *arms[name], tick)
            found[name].append(evaluate(network, seed + 1_000_000))
    return found


def effective_share(schedule: Discrete) -> float:
    """(mean lambda)^2 / mean lambda^2: as how large a part of a batch one weighted by it counts.

    Kish's effective sample size for uniform t, a share of the number drawn.
    """
    weight = lambda_t(schedule, torch.arange(1, int(schedule.T) + 1))
    return float(weight.mean().square() / weight.square().mean())
