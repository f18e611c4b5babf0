"""Whole paths: the density of a model's chain, and the exact chain of a denoiser that is affine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.densities.reverse_kernel import sample_reverse
from diffusion_math.elbo import Bound, LogLikelihood, bound, reverse_step
from diffusion_math.gaussian import Gaussian, forward_step, transition
from diffusion_math.noise import Noise, UnitNoise
from diffusion_math.schedule import Discrete, Schedule
from diffusion_math.variance import Variance


@dataclass(frozen=True)
class Model:
    """The chain p(x_{0:T}) of `elbo`: a denoiser, the variance of its steps and of its last one."""

    denoise: Denoiser
    variance: Variance
    last_variance: Variance

    def step(self, schedule: Schedule, x_t: Tensor, t: Tensor, s: Tensor) -> Any:
        """p(x_s | x_t)."""
        variance = self.variance if s > 0 else self.last_variance
        return reverse_step(schedule, self.denoise, x_t, t, s, variance)

    def bound(
        self,
        schedule: Schedule,
        x0: Tensor,
        grid: Tensor,
        noise: Noise,
        log_likelihood: LogLikelihood = Gaussian.log_density,
    ) -> Bound:
        """Every term of -ELBO(x_0), one sample each."""
        variances = self.variance, self.last_variance
        return bound(schedule, self.denoise, x0, grid, noise, *variances, log_likelihood)

    def log_density(self, schedule: Schedule, path: Sequence[Tensor], grid: Tensor) -> Tensor:
        """log p of whole paths, `(batch,)`: N(x_T; 0, I) and every reverse step.

        path: a tensor `(batch, D)` for each node of the grid, from T to 0.
        """
        one = torch.ones((), dtype=torch.float64)
        total = Gaussian(torch.zeros_like(path[0]), one).log_density(path[0])
        for (x_t, x_s), (t, s) in zip(pairwise(path), pairwise(grid), strict=True):
            total = total + self.step(schedule, x_t, t, s).log_density(x_s)
        return total


def sample_backward(
    x: Tensor, data: GaussianMixture, schedule: Schedule, grid: Tensor, generator: torch.Generator
) -> list[Tensor]:
    """A path from each x at the grid's first node, each step drawn from q(x_s | x_t)."""
    path = [x]
    for t, s in pairwise(grid):
        path.append(sample_reverse(data, generator, schedule, path[-1], t, s))
    return path


def sample_forward(
    x0: Tensor, schedule: Schedule, grid: Tensor, generator: torch.Generator
) -> list[Tensor]:
    """One path of the forward process from each x_0 at the grid's nodes, noisiest first."""
    path = [x0]
    for t, s in reversed(list(pairwise(grid))):
        z = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        path.append(transition(schedule, path[-1], s, t).sample(z))
    return path[::-1]


def forward_steps(
    x0: Tensor, schedule: Discrete, times: Collection[int], generator: torch.Generator
) -> dict[int, Tensor]:
    """x_t at each of the times, from x_0 by the one-step kernel alone."""
    x, states = x0, {}
    for t in range(max(times) + 1):
        if t > 0:
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = forward_step(schedule, x, t).sample(z)
        if t in times:
            states[t] = x
    return states


def elbo_of_true_kernels(
    data: GaussianMixture, schedule: Schedule, path: Sequence[Tensor], grid: Tensor
) -> Tensor:
    """log q(x_0) as the bound of the chain of true reverse kernels gives it, `(batch,)`.

        log q(x_T) + sum log q(x_s | x_t) - log q(x_{1:T} | x_0)

    The kernels are the mixtures of `GaussianMixture.reverse`, one for each point of each path. The
    chain's posterior over paths is the forward process itself, so every single path gives it all.
    """
    total = data.log_density(schedule, path[0], grid[0])
    for (x_t, x_s), (t, s) in zip(pairwise(path), pairwise(grid), strict=True):
        each = [
            data.reverse(schedule, x, t, s).log_density(schedule, y[None], 0)
            for x, y in zip(x_t, x_s, strict=True)
        ]
        total = total + torch.cat(each) - transition(schedule, x_s, s, t).log_density(x_t)
    return total


def affine_chain(model: Model, schedule: Schedule, grid: Tensor) -> Multivariate:
    """The joint distribution of (x_T, ..., x_0) in the plane, for a denoiser that is affine in x.

    Read off one run with unit vectors in the place of the noises; events one after another.
    """
    basis = UnitNoise(grid, (2,))
    path = [basis.start(torch.zeros(2, dtype=torch.float64), 1.0)]
    for t, s in pairwise(grid):
        path.append(model.step(schedule, path[-1], t, s).sample(basis(path[-1], t, s)))
    return _joint(path)


def forward_chain(x0: Tensor, schedule: Schedule, grid: Tensor) -> Multivariate:
    """The joint distribution of (x_T, ..., x_1) given one x_0, read off in the same way."""
    basis = UnitNoise(grid, (2,))
    path = [basis.start(x0, 0.0)]
    for t, s in reversed(list(pairwise(grid))):
        path.append(transition(schedule, path[-1], s, t).sample(basis(path[-1], t, s)))
    return _joint(path[:0:-1])


def _joint(path: Sequence[Tensor]) -> Multivariate:
    rows = torch.cat(list(path), dim=1)
    columns = rows[1:] - rows[0]
    return Multivariate(rows[0], columns.T @ columns)
