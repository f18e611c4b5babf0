"""Estimates of the log-likelihood of a mixture's points, each with what it should be."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.reverse_kernel import path_log_density
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.grid import uniform_log_snr
from diffusion_math.likelihood import FlowDensity, flow_log_density
from diffusion_math.noise import from_generator
from diffusion_math.schedule import Schedule, VPLinear
from diffusion_math.score_matching import rademacher
from diffusion_math.variance import large_variance
from experiments.common.chains import Model, elbo_of_true_kernels, sample_backward, sample_forward
from experiments.common.statistics import mean_interval

PROBED_AT = 1e-6
"""Tolerance of the ODE under Hutchinson's divergence, far below its spread."""


@dataclass(frozen=True)
class Spread:
    """Hutchinson's mean square error in nats^2, found and predicted.

    count: how many estimates there are; mean_error: their mean's, in nats; width: root mean square
    of the range that one estimate of one probe lies in.
    """

    probes: int
    count: int
    found: float
    predicted: float
    mean_error: float
    width: float

    @property
    def ratio(self) -> float:
        """Found over predicted."""
        return self.found / self.predicted

    def ratio_interval(self, level: float) -> tuple[float, float]:
        """For the true ratio, by the exact distribution of `count` squares' mean (`SignSquares`).

        Needs two probes or more: of one, every square is the same.
        """
        least, most = SignSquares(self.probes, self.count).middle(level)
        return self.ratio / most, self.ratio / least if least > 0 else math.inf


@dataclass(frozen=True)
class SignSquares:
    """The exact distribution of a mean of `count` values n m^2, m the mean of n independent signs.

    n m^2 = (n - 2 B)^2 / n with B ~ Bin(n, 1/2), so the sum lies on a lattice, and its distribution
    is that whose Fourier transform is the count-th power of one value's. E n m^2 = 1, Var n m^2 =
    2 (1 - 1/n): next to nothing lies beyond 32 times the mean.
    """

    signs: int
    count: int

    def middle(self, level: float) -> tuple[float, float]:
        """Two of its values; it lies below the first or above the second with probability
        (1 - level) / 2 at most each. Levels to 1 - 1e-11: the transform rounds."""
        n, low = self.signs, self.signs % 2  # the least square; they go on in steps of 4 or 8
        step = 8 if low else 4
        squares = (n - 2 * np.arange(n + 1)) ** 2
        places = (squares - low) // step
        one = np.zeros(self.count * min(int(places.max()), 8 * n) + 1)
        np.add.at(one, places % len(one), binom.pmf(np.arange(n + 1), n, 0.5))
        pmf = np.fft.irfft(np.fft.rfft(one) ** self.count, len(one))
        tail = (1 - level) / 2
        below, above = np.cumsum(pmf), np.cumsum(pmf[::-1])[::-1]
        ends = int(np.argmax(below > tail)), int(len(pmf) - 1 - np.argmax(above[::-1] > tail))
        least, most = (float(self.count * low + step * k) / (n * self.count) for k in ends)
        return least, most


@dataclass(frozen=True)
class BoundGap:
    """-ELBO(x_0) + log q(x_0) by the bound's terms, and log q / p of whole paths, in nats."""

    steps: int
    bound: list[float]
    kl: list[float]

    @property
    def mean_bound(self) -> float:
        """What the bound exceeds the truth by."""
        return sum(self.bound) / len(self.bound)

    @property
    def mean_kl(self) -> float:
        """KL(q(x_{0:T}), p(x_{0:T}))."""
        return sum(self.kl) / len(self.kl)

    def difference(self, level: float) -> tuple[float, float]:
        """Of the two means, whose draws are independent of each other."""
        ends = [mean_interval(values, level) for values in (self.bound, self.kl)]
        half = math.hypot(*((high - low) / 2 for low, high in ends))
        difference = self.mean_bound - self.mean_kl
        return difference - half, difference + half


@dataclass(frozen=True)
class LikelihoodProblem:
    """A mixture under a continuous schedule; its points have the noise of the least time."""

    data: GaussianMixture
    schedule: Schedule

    @classmethod
    def of(cls, density: str) -> "LikelihoodProblem":
        """A density by name under `VPLinear`."""
        data = DENSITIES[density]()
        if not isinstance(data, GaussianMixture):
            raise ValueError(f"--density: wanted a mixture, got {density}")
        return cls(data, VPLinear())

    @property
    def at_start(self) -> GaussianMixture:
        """q at t_min, where the flow ends: the mixture whose points are looked at."""
        return self.data.marginal(self.schedule, self.schedule.t_min)

    def exact(self, x: Tensor) -> Tensor:
        """log q(x_{t_min}), closed."""
        return self.data.log_density(self.schedule, x, self.schedule.t_min)

    def by_flow(self, x: Tensor, tolerance: float, probes: Tensor | None = None) -> FlowDensity:
        """The probability flow's, from the exact distribution of x_T."""
        return flow_log_density(
            self.schedule,
            self.data.denoiser(self.schedule),
            x,
            lambda x_T: self.data.log_density(self.schedule, x_T, self.schedule.T),
            probes=probes,
            rtol=tolerance,
            atol=tolerance,
        )

    def half_range(self, x: Tensor) -> Tensor:
        """h, `(batch,)`: one probe's estimate of log p(x) is the exact value plus or minus it.

        log p is linear in v v^T, and a sign v in the plane is (1, 1) or (1, -1) up to its own sign.
        """
        both = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        one_each = both.repeat_interleave(len(x), 0)[None]
        ends = self.by_flow(x.repeat(2, 1), PROBED_AT, one_each).log_density.reshape(2, -1)
        return (ends[0] - ends[1]).abs() / 2

    def hutchinson(
        self, x: Tensor, half: Tensor, count: int, copies: int, generator: torch.Generator
    ) -> Spread:
        """Estimates of `count` probes, `copies` of each point, whose mean square error is h^2 / n.

        half: `(batch,)`, h of each point by `half_range`.
        """
        every = x.repeat(copies, 1)
        found = self.by_flow(every, PROBED_AT, rademacher(generator, every, count))
        errors = found.log_density.reshape(copies, -1) - self.exact(x)
        # In units of its own h, so that no point's scale rules the mean.
        scale = float(half.square().mean())
        return Spread(
            count,
            errors.numel(),
            float((errors / half).square().mean()) * scale,
            scale / count,
            float(errors.mean()),
            2 * math.sqrt(scale),
        )

    def by_kernels(self, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """By the ELBO of the chain of true reverse kernels, one path from each point."""
        grid = uniform_log_snr(self.schedule, steps, end=self.schedule.t_min)
        path = sample_forward(x, self.schedule, grid, generator)
        return elbo_of_true_kernels(self.data, self.schedule, path, grid)

    def gaps(
        self, steps: int, paths: int, terms: torch.Generator, backward: torch.Generator
    ) -> BoundGap:
        """What a chain of Gaussian steps with the exact denoiser loses, in two ways.

        By the bound's terms at samples of x_0, and on other whole paths, drawn by the true reverse.
        """
        schedule, grid = self.schedule, uniform_log_snr(self.schedule, steps)
        model = Model(self.data.denoiser(schedule), large_variance, large_variance)
        x0 = self.data.sample(terms, paths)
        nats = model.bound(schedule, x0, grid, from_generator(terms)).nats
        excess = nats + self.data.log_density(schedule, x0, 0.0)
        start = self.data.marginal(schedule, grid[0]).sample(backward, paths)
        path = sample_backward(start, self.data, schedule, grid, backward)
        log_ratio = path_log_density(self.data, schedule, path, grid)
        log_ratio = log_ratio - model.log_density(schedule, path, grid)
        return BoundGap(steps, excess.tolist(), log_ratio.tolist())
