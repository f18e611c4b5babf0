"""Training of the digits' network, its sampler, and the bound on what it needs to write a digit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from diffusion_math.denoiser import Denoiser, from_eps
from diffusion_math.elbo import Bound, bound, lambda_t
from diffusion_math.gaussian import marginal
from diffusion_math.grid import trailing
from diffusion_math.guidance import cfg
from diffusion_math.loss import Weight, training_loss, uniform_times
from diffusion_math.noise import from_generator
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.one_step import ddpm
from diffusion_math.variance import constant_variance, large_variance
from experiments.common.networks import fit
from experiments.common.statistics import seeded
from experiments.digits.data import Digits, level_log_probability
from experiments.digits.network import NO_LABEL, DigitNetwork, DigitUNet

AnyNetwork: TypeAlias = DigitNetwork | DigitUNet
Times = Callable[[Discrete, Generator, int], Tensor]
"""`(schedule, generator, batch) -> (batch,)`: the times of an update."""


@dataclass(frozen=True)
class Budget:
    """What a training may use: the network's size, updates, examples in each, and Adam's rate.

    unet: the network is `DigitUNet`, with `width` that of its first level and `blocks` a level's.
    """

    width: int
    blocks: int
    steps: int
    batch: int = 128
    rate: float = 3e-3
    unet: bool = False

    def network(self, T: int, pixels: int, generator: Generator) -> AnyNetwork:
        """A new network for digits of so many pixels, its weights from the generator alone."""
        if self.unet:
            return DigitUNet(math.isqrt(pixels), self.width, self.blocks, generator)
        return DigitNetwork(self.width, self.blocks, T, generator)


def learn(
    schedule: Discrete,
    digits: Digits,
    budget: Budget,
    seed: int,
    drop: float = 0.1,
    weight: Weight | None = None,
    times: Times = uniform_times,
    tick: Callable[[], object] = lambda: None,
) -> AnyNetwork:
    """An eps-network of digits and labels, from nothing (C19); `tick` is called at each update.

    The label is dropped with probability `drop` (C28). Weights, digits, times and noise are
    functions of the seed: with the same seed and times, trainings of two weights see the same.
    """
    generator = seeded(seed)
    network = budget.network(int(schedule.T), digits.x.shape[1], generator)

    def loss(generator: Generator) -> Tensor:
        tick()
        rows = torch.randint(len(digits.x), (budget.batch,), generator=generator)
        dropped = torch.rand(budget.batch, generator=generator) < drop
        label = torch.where(dropped, NO_LABEL, digits.labels[rows])
        x0 = digits.x[rows]
        eps = torch.randn(x0.shape, generator=generator)
        t = times(schedule, generator, budget.batch)
        each = training_loss(schedule, network.given(label), "eps", x0, eps, t, weight)
        mean: Tensor = each.mean()
        return mean

    fit(network, loss, generator, budget.steps, budget.rate)
    return network.requires_grad_(False)


def bound_times(schedule: Discrete) -> Times:
    """Times drawn in proportion to lambda_t: weight 1 then is the bound's own, on average (C18)."""
    share = lambda_t(schedule, torch.arange(1, int(schedule.T) + 1))

    def times(_: Discrete, generator: Generator, batch: int) -> Tensor:
        return 1 + torch.multinomial(share, batch, True, generator=generator).double()

    return times


def denoiser(
    schedule: Discrete, network: AnyNetwork, labels: Tensor, scale: float = 1.0
) -> Denoiser:
    """E[x_0 | x_t, label] by classifier-free guidance (C29), labels `(batch,)`."""
    given = from_eps(network.given(labels), schedule)
    free = from_eps(network.given(torch.full_like(labels, NO_LABEL)), schedule)
    return cfg(given, free, scale)


def sample(
    schedule: Discrete,
    network: AnyNetwork,
    labels: Tensor,
    steps: int,
    generator: Generator,
    scale: float = 1.0,
) -> Tensor:
    """Digits `(batch, 64)` of these labels by ancestral sampling in so many steps (C20)."""
    x = torch.randn(len(labels), network.pixels, generator=generator)
    grid = trailing(schedule, steps)
    guided = denoiser(schedule, network, labels, scale)
    return final(ddpm(schedule), guided, x, grid, from_generator(generator))


def last_error(
    schedule: Discrete, network: AnyNetwork, digits: Digits, generator: Generator, t: int
) -> float:
    """Mean square of x_0 - x0_hat over pixels and digits, at time t."""
    x0 = digits.x.double()
    z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    x_t = marginal(schedule, x0, t).sample(z)
    x0_hat = denoiser(schedule, network, digits.labels)(x_t, torch.tensor(float(t)))
    return (x0_hat - x0).square().mean().item()


def bits(
    schedule: Discrete,
    network: AnyNetwork,
    digits: Digits,
    generator: Generator,
    steps: int,
    last: int = 1,
    last_variance: float | None = None,
) -> Bound:
    """-ELBO of each digit given its label, for the chain of `steps` from T to `last`, then to 0.

    One sample of noise a term (C14). The last step has DDPM's variance, or the one given.
    """
    grid = torch.cat([trailing(schedule, steps, end=last), torch.zeros(1, dtype=torch.float64)])
    variance = large_variance if last_variance is None else constant_variance(last_variance)
    return bound(
        schedule,
        denoiser(schedule, network, digits.labels),
        digits.x.double(),
        grid,
        from_generator(generator),
        last_variance=variance,
        log_likelihood=level_log_probability,
    )
