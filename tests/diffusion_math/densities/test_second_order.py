"""The score's Jacobian and Cov[x_0 | x_t] against autograd, Tweedie, Bayes' kernel, quadrature."""

import math

import pytest
import torch

from diffusion_math.densities.second_order import posterior_covariance, score_jacobian
from diffusion_math.schedule import VPLinear
from tests.support.mixtures import FORMS, cases, mixture, normal, seeded, time_at


@cases()
def test_the_jacobian_is_the_derivative_of_the_score(data, schedule, part, seed):
    """By autograd through `score`, event by event; symmetric to the last bit."""
    t, event = time_at(schedule, part), data.means.shape[1:]
    alpha_t, sigma_t = schedule(t)
    x, D = (alpha_t + sigma_t) * normal(seeded(seed), 2, *event), math.prod(event)
    J = score_jacobian(data, schedule, x, t)
    jacobian = torch.autograd.functional.jacobian(
        lambda y: data.score(schedule, y, t).reshape(2, D).sum(0), x
    )
    wanted = jacobian.reshape(D, 2, D).transpose(0, 1)
    torch.testing.assert_close(J, wanted, rtol=1e-9, atol=1e-9 * J.abs().max().item())
    torch.testing.assert_close(J, J.mT, rtol=1e-12, atol=1e-12 * J.abs().max().item())
    assert not torch.allclose(J, -wanted)


@cases()
def test_tweedies_formula_of_second_order(data, schedule, part, seed):
    """Cov[x_0 | x_t] = (sigma / alpha)^2 (I + sigma^2 J): two sums that share no line.

    The right side cancels: its terms are of size (sigma / alpha)^2, which sets the tolerance.
    """
    t, event = time_at(schedule, max(part, 0.1)), data.means.shape[1:]
    alpha_t, sigma_t = schedule(t)
    x, D = alpha_t * data.means[:1] + sigma_t * normal(seeded(seed), 2, *event), math.prod(event)
    got = posterior_covariance(data, schedule, x, t)
    J = score_jacobian(data, schedule, x, t)
    eye = torch.eye(D, dtype=torch.float64)
    if alpha_t > 1e-9:
        ratio = (sigma_t / alpha_t).square()
        size = (ratio * (1 + sigma_t.square() * J.abs().max())).item()
        torch.testing.assert_close(
            got, ratio * (eye + sigma_t**2 * J), rtol=1e-9, atol=1e-11 * size
        )
        wrong = ratio * (eye + sigma_t * J)  # sigma where sigma^2 belongs
        assert part != 0.5 or not torch.allclose(got, wrong, rtol=1e-6)
    kernel = data.reverse(schedule, x[0], t).moments()[1]
    torch.testing.assert_close(got[0], kernel, rtol=1e-9, atol=1e-10)
    assert torch.linalg.eigvalsh(got).min() >= -1e-12 * got.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_the_total_variance_is_the_datas(form):
    """E Cov[x_0 | x_t] + Cov E[x_0 | x_t] = Cov x_0, in one dimension by quadrature over x_t."""
    event = () if form != "full" else (1,)
    data, schedule, t = mixture(form, event, 3, seed=4), VPLinear(), 0.4
    x = torch.linspace(-12, 12, 1201, dtype=torch.float64).reshape(-1, *event)
    weight = data.log_density(schedule, x, t).exp() * (24 / 1200)
    inner = weight @ posterior_covariance(data, schedule, x, t)[:, 0, 0]
    mean, covariance = data.moments()
    outer = weight @ (data.posterior_mean(schedule, x, t) - mean).reshape(-1).square()
    assert (inner + outer).item() == pytest.approx(covariance.item(), rel=1e-9)
    assert inner > 0.01


def test_at_time_zero_nothing_is_uncertain():
    """Cov[x_0 | x_0] = 0."""
    x = normal(seeded(0), 3, 2)
    assert posterior_covariance(mixture("full"), VPLinear(), x, 0).eq(0).all()
