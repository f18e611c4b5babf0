"""A sampler's exact output on Gaussian data, without sampling: unit vectors in the place of noise.

With a denoiser that is affine in x every state is affine in the start and in the noises. A first
run counts the evaluations of the noise; in a second one the k-th moves D rows of its own by
unit vectors, and the columns of what comes out give mean and covariance (noise.5), (noise.6). No
index of the noise is used, so it serves samplers that draw at times of their own.
"""

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.testing.sampler import Sampler

__all__ = ["Moments", "exact_moments"]


@final
@dataclass
class Units:
    """Noise whose k-th value is unit vectors in D rows of its own, after the `first` rows."""

    first: int
    times: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        z = torch.zeros_like(x).reshape(len(x), -1)
        size = z.shape[1]
        rows = z[self.first + len(self.times) * size :][:size]
        rows += torch.eye(size, dtype=x.dtype, device="cpu")[: len(rows)]
        self.times.append((float(t), float(s)))
        return z.reshape(x.shape)


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Of each state that the sampler shows: `means` (states, D), `columns` (states, D + D k, D).

    `columns`: what the start's unit vectors, then those of each of the k normals add to the state.
    `times`: the (t, s) of each evaluation of the noise.
    """

    means: Tensor
    columns: Tensor
    times: tuple[tuple[float, float], ...]

    @property
    def covariances(self) -> Tensor:
        """`(states, D, D)`."""
        return self.columns.mT @ self.columns

    @classmethod
    def of_rows(cls, rows: Tensor, times: tuple[tuple[float, float], ...] = ()) -> "Moments":
        """From states `(states, 1 + D + D k, D)` whose first row has the mean's start, no noise."""
        return cls(rows[:, 0], rows[:, 1:] - rows[:, :1], times)


def exact_moments(
    sampler: Sampler, denoise: Denoiser, mean: Tensor, covariance: Tensor, grid: Tensor
) -> Moments:
    """The exact moments of the sampler's states for x ~ N(mean, covariance) at grid[0].

    Args:
        denoise: affine in x.
        mean, covariance: `(D,)` and `(D, D)`, positive definite.

    Derivation: (noise.5), (noise.6).
    """
    size, counter = len(mean), Units(1)
    sampler.states(denoise, mean[None].clone(), grid, counter)
    x = mean.repeat(1 + size * (1 + len(counter.times)), 1)
    x[1 : 1 + size] += torch.linalg.cholesky(covariance).T
    rows = torch.stack(sampler.states(denoise, x, grid, Units(1 + size))).to(torch.float64)
    return Moments.of_rows(rows, tuple(counter.times))
