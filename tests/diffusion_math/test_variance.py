"""The variance of an ancestral step: its ends, its optimum, and its place in `ddpm`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math import variance
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import posterior
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.one_step import ddpm
from diffusion_math.solvers.step import State
from tests.support.solver_step import MIXTURE, X, unit_noise
from tests.support.tensors import f64

SCHEDULE = VPLinear()
T, S = f64(0.7)[0], f64(0.4)[0]


@pytest.mark.parametrize("which", [variance.large_variance, variance.small_variance])
def test_fixed_is_elbo_s(which):
    assert torch.equal(variance.fixed(SCHEDULE, which)(X, T, S), which(SCHEDULE, T, S))


def test_large_is_the_default_of_fixed():
    got = variance.fixed(SCHEDULE)(X, T, S)
    assert torch.equal(got, variance.large_variance(SCHEDULE, T, S))


@given(share=st.floats(0, 1))
def test_the_learned_range_is_geometric(share):
    """Nichol & Dhariwal's Eq. 15: the logarithm is linear in the share; the ends are `fixed`."""
    got = variance.learned_range(SCHEDULE, lambda x, t: torch.full_like(x, share))(X, T, S)
    large, small = (v(SCHEDULE, T, S) for v in (variance.large_variance, variance.small_variance))
    wanted = share * large.log() + (1 - share) * small.log()
    torch.testing.assert_close(got.log(), wanted.expand_as(X), rtol=1e-12, atol=1e-12)


def test_the_share_is_asked_at_x_and_t():
    asked = []

    def share(x, t):
        asked.append((x, t))
        return torch.full_like(x, 0.5)

    variance.learned_range(SCHEDULE, share)(X, T, S)
    assert asked[0][0] is X and asked[0][1] is T


@given(c=st.floats(0, 1), t=st.floats(0.2, 1), part=st.floats(0.05, 0.95))
def test_analytic_is_optimal_on_a_gaussian(c, t, part):
    """gamma = sigma^2 / (alpha^2 c + sigma^2) on N(m, c I), where it is Var(x_s | x_t)."""
    t, s = f64(t)[0], f64(t * part)[0]

    def gamma(time):
        alpha, sigma = SCHEDULE(time)
        return sigma**2 / (alpha**2 * c + sigma**2)

    got = variance.analytic(SCHEDULE, gamma)(X, t, s)
    wanted = variance.optimal_variance(c)(SCHEDULE, t, s)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_the_step_of_a_gaussian_is_exact_with_it():
    """Then the law of x_s is q(x_s) however long the step."""
    data = GaussianMixture(f64(0.0), f64([0.3]), f64(0.6))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE(T), SCHEDULE(S)
    total = alpha_t**2 * 0.6 + sigma_t**2
    step = ddpm(SCHEDULE, variance.analytic(SCHEDULE, lambda t: sigma_t**2 / total))
    x = alpha_t * 0.3 + f64([0.0], [1.0]) * total.sqrt()
    drift = step(data.denoiser(SCHEDULE), State(x, T), T, S, lambda x, t, s: torch.zeros_like(x)).x
    noisy = step(data.denoiser(SCHEDULE), State(x, T), T, S, unit_noise).x
    got = (drift[1] - drift[0]) ** 2 + (noisy[0] - drift[0]) ** 2
    torch.testing.assert_close(got, (alpha_s**2 * 0.6 + sigma_s**2)[None], rtol=1e-10, atol=1e-10)


def test_ddpm_takes_a_variance_and_keeps_the_mean():
    denoise = MIXTURE.denoiser(SCHEDULE)
    step = ddpm(SCHEDULE, lambda x, t, s: f64(0.09)[0])
    mean = posterior(SCHEDULE, X, denoise(X, T), T, S).mean
    got = step(denoise, State(X, T), T, S, unit_noise).x
    torch.testing.assert_close(got, mean + 0.3, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_and_gammas_lie_in_the_unit_interval(value):
    with pytest.raises(ValueError, match="share"):
        variance.learned_range(SCHEDULE, lambda x, t: torch.full_like(x, value))(X, T, S)
    with pytest.raises(ValueError, match="gamma"):
        variance.analytic(SCHEDULE, lambda t: f64(value)[0])(X, T, S)
