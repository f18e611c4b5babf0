"""Chains of linear Gaussian steps, whose marginals, posteriors and bounds are closed."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from diffusion_math.elbo import bound
from diffusion_math.gaussian import Gaussian
from diffusion_math.grid import trailing
from diffusion_math.schedule import Discrete


@dataclass(frozen=True)
class Chain:
    """p(x_T) = N(0, 1), p(x_{t-1} | x_t) = N(a_t x + b_t, v_t) with x0_hat = g_t x + h_t."""

    betas: np.ndarray
    gains: np.ndarray
    offsets: np.ndarray
    variances: np.ndarray

    @property
    def T(self):
        return len(self.betas)

    @property
    def abar(self):
        """abar_0 = 1, ..., abar_T."""
        return np.concatenate([[1.0], np.cumprod(1 - self.betas)])

    @property
    def slopes(self):
        """a_t and b_t for t = 1..T: DDPM's eq. 7 at x0_hat."""
        before, after = self.abar[:-1], self.abar[1:]
        on_x0 = np.sqrt(before) * self.betas / (1 - after)
        on_x = np.sqrt(1 - self.betas) * (1 - before) / (1 - after)
        return on_x + on_x0 * self.gains, on_x0 * self.offsets

    @property
    def schedule(self):
        return Discrete(torch.from_numpy(self.betas))

    def denoise(self, x, t):
        return self.gains[int(t) - 1] * x + self.offsets[int(t) - 1]

    def variance(self, schedule, t, s):
        return torch.tensor(self.variances[int(t) - 1], dtype=torch.float64)

    def bound(self, x0):
        """Exactly -ELBO's terms, one row an x0: quadratics in z have their mean over z = -1, 1."""
        x = torch.tensor(x0, dtype=torch.float64).reshape(-1, 1)
        grid = trailing(self.schedule, self.T)
        return [
            bound(
                self.schedule,
                self.denoise,
                x,
                grid,
                lambda x, t, s, z=z: torch.full_like(x, z),
                self.variance,
                self.variance,
                Gaussian.log_density,
            )
            for z in (-1.0, 1.0)
        ]

    def nats(self, x0):
        return sum(part.nats for part in self.bound(x0)).numpy() / 2

    def joint(self):
        """Mean (T + 1,) and covariance of x_{0:T} under the model."""
        a, b = self.slopes
        mean, root = np.zeros(self.T + 1), np.zeros((self.T + 1, self.T + 1))
        root[-1, -1] = 1
        for t in range(self.T, 0, -1):
            mean[t - 1] = a[t - 1] * mean[t] + b[t - 1]
            root[t - 1] = a[t - 1] * root[t]
            root[t - 1, t - 1] = math.sqrt(self.variances[t - 1])
        return mean, root @ root.T

    def log_marginal(self, x0):
        """log p(x_0), of the mean and the variance carried down the chain."""
        (a, b), mean, variance = self.slopes, 0.0, 1.0
        for t in range(self.T - 1, -1, -1):
            mean, variance = a[t] * mean + b[t], a[t] ** 2 * variance + self.variances[t]
        return log_normal(np.array([x0]), np.array([mean]), np.array([[variance]]))

    def posterior(self, x0):
        """Mean and covariance of p(x_{1:T} | x_0), by conditioning the joint."""
        mean, cov = self.joint()
        gain = cov[1:, 0] / cov[0, 0]
        return mean[1:] + gain * (x0 - mean[0]), cov[1:, 1:] - np.outer(gain, cov[0, 1:])

    def forward(self, x0):
        """Mean and covariance of q(x_{1:T} | x_0), sqrt(abar_t / abar_s) (1 - abar_s)."""
        abar = self.abar[1:]
        at_s, at_t = np.maximum.outer(abar, abar), np.minimum.outer(abar, abar)
        return np.sqrt(abar) * x0, np.sqrt(at_t / at_s) * (1 - at_s)

    def elbo(self, x0):
        """E_q log p(x_{0:T}) - E_q log q(x_{1:T} | x_0)."""
        mean, cov = self.joint()
        where, spread = self.forward(x0)
        widened = np.zeros_like(cov)
        widened[1:, 1:] = spread
        energy = log_normal(np.array([x0, *where]), mean, cov)
        energy -= np.trace(np.linalg.solve(cov, widened)) / 2
        return energy + np.linalg.slogdet(2 * math.pi * math.e * spread)[1] / 2


def log_normal(x, mean, cov):
    d = x - mean
    return -(d @ np.linalg.solve(cov, d) + np.linalg.slogdet(2 * math.pi * cov)[1]) / 2


def random_chain(T, seed):
    """A wrong model: nothing of it fits the data or the schedule."""
    draw = np.random.default_rng(seed)
    return Chain(
        draw.uniform(0.05, 0.6, T),
        draw.uniform(-1.5, 1.5, T),
        draw.normal(size=T),
        draw.uniform(0.05, 2.0, T),
    )


POINTS = (-2.0, 0.3, 1.5)
