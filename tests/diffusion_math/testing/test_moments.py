"""Unit vectors in the place of noise: rows of their own, and what comes out of them."""

from itertools import pairwise

import pytest
import torch

from diffusion_math.grid import trailing
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing import Sampler
from diffusion_math.testing.moments import Units, exact_moments
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes have tests of their own


def test_each_value_of_the_noise_has_rows_of_its_own():
    """Of five rows the first is left; the second value has what is left of its rows."""
    units, x, one = Units(1), torch.zeros(4, 1, 2), f64(1.0)[0]
    first, second = units(x, one, one / 2), units(x, one / 2, one / 4)
    assert first.squeeze(1).tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert second.squeeze(1).tolist() == [[0, 0], [0, 0], [0, 0], [1, 0]]
    assert units.times == [(1.0, 0.5), (0.5, 0.25)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_affine_sampler_s_moments_are_those_of_its_formula(dtype):
    """x -> x / 2 + denoise(x) + 3 z with denoise(x) = 1 - x: the mean is 1 - m / 2, and the
    covariance C / 4 + 9; it is told in float64 whatever the sampler's dtype."""

    def sample(denoise, x, grid, noise):
        x = x.to(dtype)
        for t, s in pairwise(grid):
            x = x / 2 + denoise(x, t) + 3 * noise(x, t, s)
            yield x

    path = RectifiedFlow()
    sampler = Sampler("affine", path, sample, lambda n: trailing(path, n), noisy=True)
    mean, covariance = f64(1.0, -2.0), f64([2.0, 0.5], [0.5, 1.0])
    grid = f64(0.9, 0.5, 0.25)
    found = exact_moments(sampler, lambda x, t: 1 - x, mean, covariance, grid)
    assert found.means.dtype == found.covariances.dtype == torch.float64
    noise = 9 * torch.eye(2, dtype=torch.float64)
    once = covariance / 4 + noise
    wanted = torch.stack([once, once / 4 + noise])
    assert torch.allclose(found.covariances, wanted, rtol=1e-6)
    assert torch.allclose(found.means, torch.stack([1 - mean / 2, 0.5 + mean / 4]), rtol=1e-6)
    assert found.times == ((0.9, 0.5), (0.5, 0.25))
