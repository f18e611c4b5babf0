"""Paths of the exact process: one law, drawn or weighed from either end."""

import math
from itertools import pairwise

import pytest
import torch

from diffusion_math import gaussian
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.reverse_kernel import path_log_density, sample_clean, sample_reverse
from diffusion_math.schedule import VE, RectifiedFlow, VPLinear
from tests.support.chance import Distance, rare
from tests.support.mixtures import FORMS, Moments, cases, mixture, normal, seeded, time_at

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own


@cases()
def test_forwards_and_backwards_are_one_law(data, schedule, part, seed):
    """C08, whole: log q(x_0) + sum log q(x_t | x_s) = log q(x_T) + sum log q(x_s | x_t).

    The left is made of densities of the forward process, the right of the mixture's true kernels.
    """
    T, event = time_at(schedule, 1.0), data.means.shape[1:]
    grid = torch.tensor([T, time_at(schedule, 0.55), time_at(schedule, 0.3)], dtype=torch.float64)
    x = data.sample(seeded(seed), 1)
    path = [sum(schedule(t)) * x + normal(seeded(seed + i), 1, *event) for i, t in enumerate(grid)]
    got = path_log_density(data, schedule, path, grid)
    wanted = data.log_density(schedule, path[0], grid[0])
    for (x_t, x_s), (t, s) in zip(pairwise(path), pairwise(grid), strict=True):
        kernel = data.reverse(schedule, x_t[0], t, s)
        wanted = wanted + kernel.log_density(schedule, x_s, 0)
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_kernels_end_in_the_data_for_any_number_of_steps(steps):
    """Kernels composed by quadrature: q(x_T) is carried into q(x_0), density for density.

    Wrong alternative: the Gaussian of the kernel's own mean and variance (what a perfect network
    would use), which at so few steps misses the data by far more.
    """
    schedule, data = VPLinear(), mixture("isotropic", (), 2, seed=3, apart=2.0)
    x = torch.linspace(-9, 9, 501, dtype=torch.float64)
    dx = (x[1] - x[0]).item()
    grid = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    exact = data.log_density(schedule, x, 1.0).exp()
    moments = exact.clone()
    for t, s in pairwise(grid):
        kernels = [data.reverse(schedule, one, t, s) for one in x]
        table = torch.stack([kernel.log_density(schedule, x, 0).exp() for kernel in kernels])
        means = torch.stack([kernel.moments()[0] for kernel in kernels])
        variances = torch.stack([kernel.moments()[1][0, 0] for kernel in kernels])
        normals = gaussian.Gaussian(means, variances)
        spread = (x - normals.mean[:, None]).square() / normals.variance[:, None]
        bell = torch.exp(-spread / 2) / (2 * math.pi * normals.variance[:, None]).sqrt()
        exact, moments = exact @ table * dx, moments @ bell * dx
    wanted = data.log_density(schedule, x, 0).exp()
    assert (exact - wanted).abs().max() < 1e-9
    assert (moments - wanted).abs().max() > 0.01


def cdf(data):
    """The distribution function of a mixture in one dimension."""

    def of(x):
        z = (x[:, None] - data.means.reshape(-1)) / data.covariances.reshape(-1).sqrt()
        return torch.special.ndtr(z) @ data.log_weights.exp()

    return of


def guessed(data, schedule, grid):
    """The distance from the data's law of paths with x_0's posterior mean for x_0, by quadrature.

    The last step is the mean alone; a rule of 1201 nodes knows its distribution to a thousandth.
    """
    z = torch.linspace(-7, 7, 1201, dtype=torch.float64)

    def line(t):
        return z * data.marginal(schedule, t).moments()[1].sqrt()[0, 0]

    x, weights = line(grid[0]), data.log_density(schedule, line(grid[0]), grid[0]).softmax(0)
    for t, s in pairwise(grid[:-1]):
        step = gaussian.posterior(schedule, x, data.posterior_mean(schedule, x, t), t, s)
        spread = (line(s) - step.mean[:, None]).square() / step.variance
        x, weights = line(s), weights @ (-spread / 2).softmax(1)
    end, order = data.posterior_mean(schedule, x, grid[-2]).sort()
    return (weights[order].cumsum(0) - cdf(data)(end)).abs().max().item() - 1e-3


@pytest.mark.chance(1.2e-8, "x_0's posterior mean in the place of a draw of it")
@pytest.mark.parametrize("schedule", [VPLinear(), RectifiedFlow(), VE()], ids=str)
@pytest.mark.parametrize("steps", [1, 3])
def test_ancestral_draws_are_the_data(schedule, steps):
    """8000 paths of exact kernels end in q(x_0): Kolmogorov distance below 0.0366 (Massart)."""
    data, n = mixture("isotropic", (), 2, seed=3, apart=2.0), 8000
    grid, g = torch.linspace(schedule.T, 0.0, steps + 1, dtype=torch.float64), seeded(5)
    bound = Distance(n, 1e-9)
    x = data.marginal(schedule, schedule.T).sample(g, n)
    guess = x.clone()
    for t, s in pairwise(grid):
        x = sample_reverse(data, g, schedule, x, t, s)
        mean = data.posterior_mean(schedule, guess, t)
        guess = gaussian.posterior(schedule, guess, mean, t, s).sample(normal(g, n))
    assert bound.holds(cdf(data)(x))
    assert rare(bound.misses(guessed(data, schedule, grid)))
    assert not bound.holds(cdf(data)(guess))


@pytest.mark.chance(6e-9, "the covariance without the spread of the components' means")
@pytest.mark.parametrize("form", FORMS)
def test_draws_of_x0_have_the_kernels_moments(form):
    """Mean and second moment of 40000 draws given one x_t, along the axes and their sums."""
    data, schedule, t, n = mixture(form, (2,), 3, seed=2), VPLinear(), 0.6, 40_000
    x = torch.tensor([0.4, -0.3], dtype=torch.float64)
    draws = sample_clean(data, seeded(0), schedule, x.expand(n, 2), t)
    kernel = data.reverse(schedule, x, t)
    bound = Moments(kernel, n, 1e-9)
    assert bound.holds(draws)
    middle = kernel.moments()[0].expand_as(kernel.means)
    wrong = GaussianMixture(kernel.log_weights, middle, kernel.covariances)
    assert rare(bound.misses(wrong))
    assert not bound.holds(wrong.sample(seeded(1), n))
    assert sample_clean(data, seeded(0), schedule, draws[:0], t).shape == (0, 2)


def test_bad_paths():
    """One tensor for each node of a falling grid."""
    data, x = mixture("full"), [torch.zeros(1, 2), torch.zeros(1, 2)]
    with pytest.raises(ValueError, match="path: wanted 3 tensors, one a node, got 2"):
        path_log_density(data, VPLinear(), x, torch.tensor([1.0, 0.5, 0.0]))
    with pytest.raises(ValueError, match="grid: wanted"):
        path_log_density(data, VPLinear(), x, torch.tensor([0.5, 1.0]))
