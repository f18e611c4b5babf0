"""Data in the plane of which the first coordinate is known, and steps of the exact reverse kernel.

Gaussian data also have the exact distribution of replacement and RePaint in closed form.
"""

from itertools import pairwise

import torch

from diffusion_math import gaussian
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.reverse_kernel import sample_reverse
from diffusion_math.grid import uniform_log_snr
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.step import State
from tests.support.tensors import f64

SCHEDULE = VPLinear()
MASK = torch.tensor([True, False])
COVARIANCE = f64([1.0, 0.8], [0.8, 1.0])
CORRELATED = GaussianMixture(f64(0.0), f64([0.0, 0.0]), COVARIANCE[None])
MODES = GaussianMixture(f64(0.5, 0.5).log(), f64([-1.0, -1.0], [1.0, 1.0]), f64(0.1, 0.1))


def grid_to(end, steps):
    """A grid with as many steps, uniform in log-SNR, to the time where sigma / alpha is `end`."""
    last = float(SCHEDULE.time(-2 * f64(end).log()))
    return uniform_log_snr(SCHEDULE, steps, end=last)


def exact_step(data, generator):
    """A solver's step that is one sample of the true reverse kernel."""

    def step(denoise, state, t, s, noise):
        return State(sample_reverse(data, generator, SCHEDULE, state.x, t, s).to(state.x), s)

    return step


def of_gaussian(known, grid, repeats, covariance=COVARIANCE):
    """Mean and variance of u at the last node: the recursion of one Gaussian of mean 0."""
    eye = torch.eye(2, dtype=torch.float64)
    a, b = f64(0.0)[0], SCHEDULE(grid[0])[1].square()
    for t, s in pairwise(grid):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE(t), SCHEDULE(s)
        S_t = alpha_t**2 * covariance + sigma_t**2 * eye
        S_s = alpha_s**2 * covariance + sigma_s**2 * eye
        ratio = alpha_t / alpha_s
        A = ratio * S_s @ torch.linalg.inv(S_t)
        V = S_s - A @ S_t @ A.T
        for repetition in range(repeats):
            if repetition > 0:
                a, b = ratio * a, ratio**2 * b + sigma_t**2 - ratio**2 * sigma_s**2
            a = A[1, 0] * alpha_t * known + A[1, 1] * a
            b = A[1, 0] ** 2 * sigma_t**2 + A[1, 1] ** 2 * b + V[1, 1]
    return gaussian.Gaussian(a, b)
