"""The oracle's ways back from x_t: the kernel q(x_s | x_t) and the closed probability flow."""

import math

import pytest
import torch

from diffusion_math import gaussian
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import RectifiedFlow, VPLinear
from tests.support.mixtures import FORMS, SCHEDULES, cases, mixture, normal, seeded, time_at


@pytest.mark.claim("C08", "diffusion_math.densities.mixture.GaussianMixture.reverse")
@cases(spreads=(1.5, 3))  # N(0, 1) is its own marginal at every t of a VP schedule
def test_the_reverse_kernel_is_bayes_rule(measured, data, schedule, part, seed):
    """C08: log q(x_s | x_t) = log q(x_t | x_s) + log q(x_s) - log q(x_t), for any s < t.

    Both sides are computed apart: the left as a mixture of its own, the right by `gaussian`.
    """
    t, event = time_at(schedule, max(part, 0.1)), data.means.shape[1:]
    s = time_at(schedule, 0.45) if part > 0.1 else 0.0
    if t <= s:
        s = 0.0
    alpha_s, sigma_s = schedule(s)
    x_0 = data.sample(seeded(seed), 4)
    x_s = alpha_s * x_0 + sigma_s * normal(seeded(seed), 4, *event)
    link = gaussian.transition(schedule, x_s, s, t)
    x_t = link.sample(normal(seeded(seed + 1), 1, *event).expand(x_s.shape))[:1].expand(x_s.shape)
    left = data.reverse(schedule, x_t[0], t, s).log_density(schedule, x_s, 0)
    right = link.log_density(x_t) + data.log_density(schedule, x_s, s)
    right = right - data.log_density(schedule, x_t, t)
    wrong = link.log_density(x_t) + data.log_density(schedule, x_s, t)  # marginal of t, not of s
    wrong = wrong - data.log_density(schedule, x_t, t)
    off, wrong_off = (((left - x).abs() / (1 + x.abs())).max() for x in (right, wrong))
    measured(off, 1e-8, "relative error of log q(x_s given x_t) against Bayes' rule")
    assert wrong_off > 1e-8


def kernel_against_its_gaussian(schedule, data, x_t, t, s):
    """KL(q(x_s | x_t) || N with its mean and variance), by quadrature in one dimension."""
    kernel = data.reverse(schedule, x_t, t, s)
    mean, covariance = kernel.moments()
    std = covariance[0, 0].sqrt()
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    x = mean + std * z
    log_q = kernel.log_density(schedule, x, 0)
    log_p = -z.square() / 2 - (std * math.sqrt(2 * math.pi)).log()
    return torch.trapezoid(log_q.exp() * (log_q - log_p), x).item()


def test_the_reverse_kernel_is_gaussian_for_short_steps_only():
    """C09: a Gaussian in place of q(x_s | x_t) costs little over a short step, much over a long.

    Between two modes, the divergence falls from over 0.1 to below 1e-4 of a nat as t - s halves,
    by a factor of 4 or more each time in the end.
    """
    schedule = RectifiedFlow()
    data = GaussianMixture(torch.zeros(2), torch.tensor([-1.0, 1.0]), torch.tensor([0.04, 0.04]))
    x_t = torch.zeros((), dtype=torch.float64)
    steps = [0.5 / 2**i for i in range(8)]
    costs = [kernel_against_its_gaussian(schedule, data, x_t, 0.5, 0.5 - h) for h in steps]
    assert costs[0] > 0.1
    assert costs[-1] < 1e-4
    assert all(4 * after < before for before, after in zip(costs[-4:], costs[-3:], strict=False))


def test_the_reverse_kernel_averages_back_to_the_marginal():
    """E over x_t of q(x_s | x_t) is q(x_s): total mean and variance, by quadrature over x_t."""
    schedule, data, t, s = VPLinear(), mixture("isotropic", (), 2, seed=1), 0.5, 0.2
    x_t = torch.linspace(-9, 9, 601, dtype=torch.float64)
    weight = data.log_density(schedule, x_t, t).exp() * (x_t[1] - x_t[0])
    first, second = 0.0, 0.0
    for x, w in zip(x_t, weight, strict=True):
        mean, covariance = data.reverse(schedule, x, t, s).moments()
        first, second = first + w * mean, second + w * (covariance[0, 0] + mean**2)
    mean, covariance = data.marginal(schedule, s).moments()
    torch.testing.assert_close(first, mean, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(second - first**2, covariance[0, 0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_closed_flow_carries_marginals_into_marginals(form, schedule):
    """One Gaussian: the flow composes, comes back, and is affine with C_s = A C_t A^T."""
    data = mixture(form, (3,), K=1)
    T, middle = time_at(schedule, 1.0), time_at(schedule, 0.5)
    start = data.marginal(schedule, T)
    x = torch.cat([start.means, start.means + torch.eye(3, dtype=torch.float64)])
    end = data.probability_flow(schedule, x, T, 0)
    both = data.probability_flow(schedule, data.probability_flow(schedule, x, T, middle), middle, 0)
    torch.testing.assert_close(both, end, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        data.probability_flow(schedule, end, 0, T), x, rtol=1e-11, atol=1e-11
    )
    mean, covariance = data.moments()
    A = (end[1:] - end[0]).T
    torch.testing.assert_close(end[0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A @ start.moments()[1] @ A.T, covariance, rtol=1e-10, atol=1e-11)


def test_the_closed_flow_needs_one_component():
    """A mixture's flow has no closed form."""
    with pytest.raises(ValueError, match="one component"):
        mixture("full").probability_flow(VPLinear(), torch.zeros(1, 2), 1.0, 0.5)
