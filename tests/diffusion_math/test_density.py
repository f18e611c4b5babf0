"""Toy densities: normalised, sampled exactly, and where they say they are."""

import math

import pytest
import torch

from diffusion_math.density import DENSITIES, grid25, ring, two_moons
from diffusion_math.schedule import VPLinear

SCHEDULE = VPLinear()


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_mass_mean_and_covariance_by_quadrature(name, t):
    """The trapezoid rule on a grid finer than half a standard deviation is exact to 1e-9 (a
    Gaussian's aliasing falls as exp(-2 pi^2 std^2 / h^2), e^-79 at h = std / 2) and [-8, 8]^2
    leaves out 8 standard deviations at t = 1.
    """
    density = DENSITIES[name]()
    line = torch.arange(-8, 8, 0.05, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    mass = density.log_density(SCHEDULE, x, t).exp() * 0.05**2
    mean, covariance = density.marginal(SCHEDULE, t).moments()
    torch.testing.assert_close(mass.sum().item(), 1.0, rtol=0, atol=1e-9)
    torch.testing.assert_close(mass @ x, mean, rtol=0, atol=1e-9)
    apart = x - mean
    torch.testing.assert_close(apart.T @ (mass[:, None] * apart), covariance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_have_the_density_s_entropy_and_moments(name):
    """False alarm below 1e-9 a comparison: 20000 draws, six and a half standard errors.

    Wrong alternative: a sampler whose std is 20% too large fails on the mean log-density.
    """
    density, n = DENSITIES[name](), 20_000
    line = torch.arange(-8, 8, 0.05, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    log_q = density.log_density(SCHEDULE, x, 0)
    mass = log_q.exp() * 0.05**2
    expected, second = mass @ log_q, mass @ log_q.square()
    error = 6.5 * (second - expected.square()).sqrt() / math.sqrt(n)
    draws = density.sample(torch.Generator().manual_seed(0), n)
    wide = DENSITIES[name](std=1.2 * density.covariances[0].sqrt().item())
    wrong = wide.sample(torch.Generator().manual_seed(0), n)
    assert (density.log_density(SCHEDULE, draws, 0).mean() - expected).abs() < error
    assert (density.log_density(SCHEDULE, wrong, 0).mean() - expected).abs() > error
    mean, covariance = density.moments()
    assert ((draws.mean(0) - mean).abs() < 6.5 * (covariance.diag() / n).sqrt()).all()


def test_places():
    """The ring lies on its circle, the grid on its lattice, each moon on a half circle."""
    torch.testing.assert_close(
        ring(modes=5, radius=3.0).means.norm(dim=1), torch.full((5,), 3.0, dtype=torch.float64)
    )
    assert len(grid25().means) == 25
    assert grid25(spacing=2.0).means.abs().amax() == 4
    upper, lower = two_moons(modes=9).means.split(9)
    centre = torch.tensor([-0.5, -0.25], dtype=torch.float64)
    torch.testing.assert_close(
        (upper - centre).norm(dim=1), torch.ones(9, dtype=torch.float64), rtol=1e-14, atol=0
    )
    assert ((upper - centre)[:, 1] >= 0).all()
    torch.testing.assert_close(lower, -upper)
    assert torch.cdist(upper, lower).min() > 0.4  # interleaved, not touching


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ring(modes=0), "modes"),
        (lambda: two_moons(modes=1), "modes"),
        (lambda: ring(std=0.0), "std"),
        (lambda: grid25(std=-1.0), "std"),
        (lambda: two_moons(std=math.nan), "std"),
    ],
)
def test_bad_arguments(make, argument):
    """Each names its argument."""
    with pytest.raises(ValueError, match=f"{argument}: wanted"):
        make()
