"""A score learned from samples alone, and its Fisher divergence from the exact score."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from diffusion_math import prediction
from diffusion_math.denoiser import (
    Denoiser,
    Network,
    from_eps,
    from_score,
    from_v,
    from_x0,
    network_time,
)
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import marginal
from diffusion_math.loss import snr, stratified_times, training_loss, uniform_times
from diffusion_math.metrics import Estimate
from diffusion_math.schedule import Schedule, Time
from diffusion_math.score_matching import explicit
from experiments.common.networks import Timed, fit
from experiments.common.statistics import seeded

Score = Callable[[Tensor, Time], Tensor]
"""`(x_t, t) -> S(x_t, t)`, like x_t."""

_VIEWS: dict[str, tuple[Callable[[Network, Schedule], Denoiser], Callable[..., Tensor]]] = {
    "eps": (from_eps, prediction.score_from_eps),
    "x0": (from_x0, prediction.score_from_x0),
    "v": (from_v, prediction.score_from_v),
    "score": (from_score, lambda schedule, x_t, value, t: value),
}

TARGETS = tuple(_VIEWS)
"""What a network may predict; each gives the score."""


@dataclass(frozen=True)
class Budget:
    """Updates, examples in each, and the network's width."""

    steps: int
    batch: int
    width: int


@dataclass(frozen=True)
class Learned:
    """A trained network: its score and its denoiser."""

    schedule: Schedule
    network: Timed
    target: str

    def score(self, x: Tensor, t: Time) -> Tensor:
        """S_theta at x `(batch, 2)` and t, `()` or `(batch,)`."""
        t = torch.as_tensor(t, dtype=torch.float64)
        value = self.network(x, network_time(self.schedule, x, t))
        return _VIEWS[self.target][1](self.schedule, x, value, t)

    def denoiser(self) -> Denoiser:
        """E[x_0 | x_t] as the network has it."""
        return _VIEWS[self.target][0](self.network, self.schedule)


@dataclass(frozen=True)
class Point:
    """At time t: E norm(S_theta - S)^2 with its standard error, and E norm(S)^2, over x ~ q_t."""

    t: float
    divergence: float
    error: float
    size: float


def learn(
    schedule: Schedule,
    data: GaussianMixture,
    target: str,
    budget: Budget,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> Learned:
    """A network of that target, from nothing, on fresh samples; `tick` is called at each update.

    The loss is one for every target: weight SNR on the error in x_0, that is 1 on the error in eps
    (C19, C26). Of one seed the targets share first weights, draws, times and noise.
    """
    generator = seeded(seed)
    network = Timed(schedule, budget.width, generator)

    def loss(generator: Generator) -> Tensor:
        tick()
        x0 = data.sample(generator, budget.batch).float()
        t = uniform_times(schedule, generator, budget.batch)
        eps = torch.randn(x0.shape, generator=generator)
        mean: Tensor = training_loss(schedule, network, target, x0, eps, t, snr).mean()
        return mean

    fit(network, loss, generator, budget.steps, 4e-3)
    return Learned(schedule, network.requires_grad_(False), target)


def curve(
    learned: Learned, data: GaussianMixture, times: list[float], generator: Generator, n: int
) -> list[Point]:
    """The Fisher divergence at every time, from n samples of q_t each."""
    found = []
    for t in times:
        x = _noisy(learned.schedule, data, torch.tensor(t, dtype=torch.float64), generator, n)
        each = _squared_error(learned, data, x, t)
        size = data.score(learned.schedule, x, t).square().sum(1).mean()
        error = each.std() / math.sqrt(n)
        found.append(Point(t, float(each.mean()), float(error), float(size)))
    return found


def relative(
    learned: Learned, data: GaussianMixture, generator: Generator, n: int, times: int = 400
) -> Estimate:
    """The part of the score that is missed, as the loss weighs it, over t uniform and x ~ q_t.

        E sigma_t^2 norm(S_theta - S)^2 / E sigma_t^2 norm(S)^2

    0 for the exact score, 1 for none at all. From n samples of x at each of `times` times, evenly
    spread; its error, to first order, is that of differences between neighbouring times, which
    holds the noise of x and what is not smooth in t (von Neumann).
    """
    schedule = learned.schedule
    t = stratified_times(schedule, generator, times).sort().values.repeat_interleave(n)
    x = _noisy(schedule, data, t, generator, len(t))
    variance = schedule(t)[1].square()
    missed = (variance * _squared_error(learned, data, x, t)).reshape(times, n).mean(1)
    whole = variance * data.score(schedule, x, t).square().sum(1)
    whole = whole.reshape(times, n).mean(1)
    ratio = missed.mean() / whole.mean()
    steps = (missed - ratio * whole).diff()
    error = (steps.square().mean() / (2 * times)).sqrt() / whole.mean()
    return Estimate(float(ratio), float(error))


def _noisy(
    schedule: Schedule, data: GaussianMixture, t: Tensor, generator: Generator, n: int
) -> Tensor:
    x0 = data.sample(generator, n)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    return marginal(schedule, x0, t).sample(eps)


def _squared_error(learned: Learned, data: GaussianMixture, x: Tensor, t: Time) -> Tensor:
    schedule = learned.schedule
    return explicit(lambda x: learned.score(x, t), lambda x: data.score(schedule, x, t), x)
