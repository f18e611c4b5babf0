"""Short steps: the sum of the step terms becomes an integral over log-SNR."""

import itertools
import math

import numpy as np
import pytest
import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.elbo import bound, continuous_integrand
from diffusion_math.gaussian import Gaussian
from diffusion_math.grid import uniform_log_snr
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.variance import large_variance, small_variance

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULES = [VPLinear(), VPCosine(), VE(), RectifiedFlow(), Discrete.linear(50)]
C = 0.4
MEAN = torch.tensor([[0.7, -0.2]], dtype=torch.float64)
DATA = GaussianMixture(torch.zeros(1), MEAN, torch.tensor([C], dtype=torch.float64))

# The terms are squares of what is linear in x0 and z, entry by entry, so that the mean over these
# four signs is the mean over x0 ~ N(m, C I) and z ~ N(0, I), exactly.
SIGNS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2)), dtype=torch.float64)
X0 = MEAN + math.sqrt(C) * SIGNS[:, :1]
Z = SIGNS[:, 1:].expand(4, 2)


def noise(x, t, s):
    return Z


def closed(low, high):
    """D / 2 log((1 + C e^high) / (1 + C e^low)): the integral of (1/2) e^l D C / (1 + C e^l)."""
    return math.log((1 + C * math.exp(high)) / (1 + C * math.exp(low)))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_integral_over_log_snr_is_closed_for_gaussian_data(schedule):
    """Gauss-Legendre on 60 nodes; a lost half or e^l, or l for l / 2, is off by more than 10%."""
    low, high = (schedule.log_snr(t).item() for t in (schedule.t_max, schedule.t_min))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    for node, weight in zip(nodes, weights, strict=True):
        at = (low + high) / 2 + (high - low) / 2 * float(node)
        each = continuous_integrand(schedule, DATA.denoiser(schedule), X0, Z, at)
        total += float(weight) * (high - low) / 2 * each.mean().item()
    assert total == pytest.approx(closed(low, high), rel=1e-9)


def test_the_schedule_leaves_no_trace():
    """At one log-SNR and one z every schedule has one integrand: x_t differs by a scale alone."""
    at = torch.tensor([-3.0, 0.0, 1.0, 2.5], dtype=torch.float64)
    values = [
        continuous_integrand(schedule, DATA.denoiser(schedule), X0, Z, at)
        for schedule in SCHEDULES[:4]
    ]
    rows = [
        continuous_integrand(SCHEDULES[0], DATA.denoiser(SCHEDULES[0]), X0[[i]], Z[[i]], at[i])
        for i in range(4)
    ]
    for value in [*values[1:], torch.cat(rows)]:
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("schedule", [VPLinear(), VE()], ids=lambda s: type(s).__name__)
def test_the_sum_converges_to_it_at_first_order(schedule):
    """steps(n) = limit + K / n + O(1 / n^2), from above: an upper Riemann sum over SNR.

    With e(n) = steps(n) - limit, e(n) / e(2 n) is 2 to 6% from 64 steps on, and the extrapolation
    2 steps(2 n) - steps(n) comes 8 times nearer. The large variance has one limit with the small.
    """
    low, high = (schedule.log_snr(t).item() for t in (schedule.T, schedule.t_min))

    def steps(n, variance):
        grid = uniform_log_snr(schedule, n + 1)  # n steps to t_min and the one to 0
        got = bound(
            schedule,
            DATA.denoiser(schedule),
            X0,
            grid,
            noise,
            variance,
            log_likelihood=Gaussian.log_density,
        )
        assert len(got.steps) == n
        return got.steps.sum(0).mean().item()

    limit = closed(low, high)
    errors = [steps(n, small_variance) - limit for n in (64, 128, 256)]
    assert all(error > 0 for error in errors)
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.06)
        assert abs(2 * fine - coarse) < fine / 8
    assert errors[-1] < 0.05 * limit
    large = [steps(n, large_variance) - limit for n in (64, 128)]
    assert abs(large[1]) < 0.6 * abs(large[0])
