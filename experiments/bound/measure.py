"""The bound's terms on data of the plane, and what they are compared with."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion_math.densities import multivariate
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.reverse_kernel import path_log_density
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.elbo import (
    Bound,
    LogLikelihood,
    continuous_integrand,
    lambda_t,
    quantized_log_probability,
    step_term,
)
from diffusion_math.gaussian import Gaussian, marginal
from diffusion_math.grid import trailing, uniform_log_snr
from diffusion_math.noise import from_generator
from diffusion_math.prediction import eps_from_x0
from diffusion_math.schedule import Discrete, VPLinear
from diffusion_math.variance import large_variance, small_variance
from experiments.common.chains import Model, affine_chain, forward_chain
from experiments.common.statistics import seeded

EXACT, SMALL, AFFINE = "exact denoiser", "exact denoiser, small variance", "one-normal denoiser"
"""The models that are compared."""
CHAIN, POINTS = 24, 16
"""Steps of the chain whose paths are weighed, and points at which."""
TIMES = 100
"""At which the weights are compared, evenly spread in log t; some coincide."""
NODES = 64
"""Of the Gauss-Legendre rule over log-SNR."""


@dataclass(frozen=True)
class BoundProblem:
    """The data, the one normal of their mean and covariance, and DDPM's chain."""

    data: GaussianMixture
    normal: GaussianMixture
    schedule: Discrete
    grid: Tensor

    @classmethod
    def of(cls, density: str, steps: int) -> "BoundProblem":
        """A density at half its size under DDPM's linear table, in `steps` steps."""
        whole = DENSITIES[density]()
        if not isinstance(whole, GaussianMixture):
            raise ValueError(f"--density: wanted a mixture, got {density}")
        data = GaussianMixture(whole.log_weights, whole.means / 2, whole.covariances / 4)
        mean, covariance = data.moments()
        normal = GaussianMixture(torch.zeros(1), mean[None], covariance[None])
        schedule = Discrete.linear(1000)
        return cls(data, normal, schedule, trailing(schedule, steps))

    def models(self) -> dict[str, Model]:
        """The exact denoiser with variances beta_t and beta_hat_t, and the affine one."""
        exact, affine = (one.denoiser(self.schedule) for one in (self.data, self.normal))
        return {
            EXACT: Model(exact, large_variance, large_variance),
            SMALL: Model(exact, small_variance, large_variance),
            AFFINE: Model(affine, large_variance, large_variance),
        }

    def bound(
        self, model: Model, x0: Tensor, seed: int, likelihood: LogLikelihood = Gaussian.log_density
    ) -> Bound:
        """Every term, one sample each; equal seeds see equal noise."""
        return model.bound(self.schedule, x0, self.grid, from_generator(seeded(seed)), likelihood)

    def excess(self, model: Model, path: Sequence[Tensor]) -> list[float]:
        """One sample of -ELBO(x_0) + log q(x_0) from each whole path of the forward process.

        By the bound's definition, before it is split into terms: its mean over paths is a KL,

            log q(x_0) + log q(x_{1:T} | x_0) - log p(x_{0:T})

        and it spreads less than the terms, whose draws are independent of each other.
        """
        log_q = path_log_density(self.data, self.schedule, path, self.grid)
        return list((log_q - model.log_density(self.schedule, path, self.grid)).tolist())


def on_levels(x: Tensor) -> Tensor:
    """x rounded to the 256 levels 2 k / 255 - 1."""
    return (127.5 * (x.clamp(-1, 1) + 1)).round() / 127.5 - 1


def path_gaps(problem: BoundProblem, points: Tensor, steps: int) -> tuple[list[float], list[float]]:
    """log p(x_0) - ELBO(x_0) and KL(q(x_{1:T} | x_0), p(x_{1:T} | x_0)) of the affine chain.

    Both without a draw: a term is a square of what is linear in z, so its mean over N(0, I) is that
    over the four signs; p(x_{0:T}) is one normal, and so is q(x_{1:T} | x_0).
    """
    grid, schedule = trailing(problem.schedule, steps), problem.schedule
    model = Model(problem.normal.denoiser(schedule), large_variance, large_variance)
    joint = affine_chain(model, schedule, grid)
    end = [len(joint.mean) - 2, len(joint.mean) - 1]
    last = multivariate.Multivariate(joint.mean[end], joint.covariance[end][:, end])
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2)), dtype=torch.float64)
    gaps, kls = [], []
    for x0 in points:
        got = model.bound(schedule, x0.expand(4, 2), grid, lambda x, t, s: signs)
        gaps.append(float(got.nats.mean() + last.log_density(x0)))
        given = multivariate.condition(joint, end, x0)
        kls.append(float(multivariate.kl(forward_chain(x0, schedule, grid), given)))
    return gaps, kls


@dataclass(frozen=True)
class Limit:
    """Sums of the step terms over rising numbers of steps, less their integral, in nats.

    steps: the numbers. excess: by variance, the mean of S(n) - integral. integral: its mean over
    the samples. bottom: the mean of L_T + L_0, which stays. extrapolated: 2 S(2n) - S(n) - integral
    of every draw, at the last two numbers.
    """

    steps: list[int]
    excess: dict[str, list[float]]
    integral: float
    bottom: float
    extrapolated: list[float]

    def total(self, variance: str) -> list[float]:
        """The mean of -ELBO at every number of steps."""
        return [self.bottom + self.integral + one for one in self.excess[variance]]


def limit(problem: BoundProblem, x0: Tensor, finest: int, generator: torch.Generator) -> Limit:
    """Short steps under a continuous schedule, every draw of noise kept at all times.

    One z serves every time, so each draw's sum tends to each draw's integral, and the difference
    owes little to chance.
    """
    schedule = VPLinear()
    denoise = problem.data.denoiser(schedule)
    z = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    low, high = (float(schedule.log_snr(t)) for t in (schedule.T, schedule.t_min))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    integral = torch.zeros(len(x0), dtype=torch.float64)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        at = (low + high) / 2 + (high - low) / 2 * node
        each = continuous_integrand(schedule, denoise, x0, z, at)
        integral = integral + weight * (high - low) / 2 * each
    steps = [2**k for k in range(1, finest.bit_length())]
    sums: dict[str, list[Tensor]] = {"large": [], "small": []}
    bottom = 0.0
    for n in steps:
        grid = uniform_log_snr(schedule, n + 1)
        for name, variance in (("large", large_variance), ("small", small_variance)):
            model = Model(denoise, variance, large_variance)
            got = model.bound(schedule, x0, grid, lambda x, t, s: z)
            sums[name].append(got.steps.sum(0))
            bottom = float((got.prior + got.reconstruction).mean())
    excess = {name: [float((one - integral).mean()) for one in all] for name, all in sums.items()}
    extrapolated = 2 * sums["small"][-1] - sums["small"][-2] - integral
    return Limit(steps, excess, float(integral.mean()), bottom, extrapolated.tolist())


def mass_of_levels(problem: BoundProblem, model: Model, x0: Tensor) -> float:
    """How far from 1 the 256 levels' probabilities sum, the worst entry of the last steps from x0.

    The step to 0 is taken from a draw at the grid's last positive time that is x0 itself, scaled.
    """
    t, s = problem.grid[-2], problem.grid[-1]
    step = model.step(problem.schedule, marginal(problem.schedule, x0, t).mean, t, s)
    means = step.mean.flatten()
    levels = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1
    every = Gaussian(means.repeat_interleave(256)[:, None], step.variance)
    log_p = quantized_log_probability(every, levels.repeat(len(means))[:, None])
    return float((log_p.exp().reshape(len(means), 256).sum(1) - 1).abs().max())


def weighted(
    problem: BoundProblem, models: dict[str, Model], x0: Tensor, generator: torch.Generator
) -> float:
    """The largest error of C18 between two denoisers, over TIMES of 2..T, relative to the term.

    L(second) - L(first) = lambda_t (|eps - eps_2|^2 - |eps - eps_1|^2)
    """
    schedule, (first, _, second) = problem.schedule, models.values()
    worst = 0.0
    spread = torch.logspace(math.log10(2), math.log10(schedule.T), TIMES, dtype=torch.float64)
    for t in sorted(set(spread.round().int().tolist())):
        eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x_t = marginal(schedule, x0, t).sample(eps)
        terms, errors = [], []
        for model in (first, second):
            terms.append(step_term(schedule, model.denoise, x0, x_t, t, t - 1, model.variance))
            x0_hat = model.denoise(x_t, torch.tensor(float(t), dtype=torch.float64))
            found = eps_from_x0(schedule, x_t, x0_hat, torch.tensor(t).double())
            errors.append((eps - found).square().sum(1))
        difference = lambda_t(schedule, t, first.variance) * (errors[1] - errors[0])
        off = (terms[1] - terms[0] - difference).abs() / terms[0].abs().maximum(terms[1].abs())
        worst = max(worst, float(off.max()))
    return worst
