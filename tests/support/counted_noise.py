"""The exact law of a walk's end on Gaussian data, its noises known by their count.

As `noise.Basis`, for solvers that ask for noise at times that no grid has: a first walk counts the
asks, a second one answers the k-th with unit vectors in rows of its own (noise.5), (noise.6).
"""

import torch

from diffusion_math.sample import final


class Counted:
    """Noise whose k-th ask moves its own D rows, after the `first`, by unit vectors."""

    def __init__(self, first):
        self.first, self.asked = first, 0

    def __call__(self, x, t, s):
        z = torch.zeros_like(x).reshape(len(x), -1)
        rows = z[self.first + self.asked * z.shape[1] :][: z.shape[1]]
        rows += torch.eye(z.shape[1], dtype=x.dtype)[: len(rows)]
        self.asked += 1
        return z.reshape(x.shape)


def end(step, denoise, x, grid, source):
    last = final(step, denoise, x, grid, source)
    return last


def law(step, denoise, mean, covariance, grid):
    """(mean, covariance) of the last x for x ~ N(mean, covariance) at grid[0]: (D,), (D, D)."""
    D, counter = len(mean), Counted(1)
    end(step, denoise, mean[None], grid, counter)
    x = mean.repeat(1 + D * (1 + counter.asked), 1)
    x[1 : 1 + D] += torch.linalg.cholesky(covariance).T
    rows = end(step, denoise, x, grid, Counted(1 + D))
    columns = rows[1:] - rows[0]
    return rows[0], columns.T @ columns
