"""C12 to C14 and E3 as equalities: chains of linear Gaussian steps, where every side is closed.

An affine denoiser x0_hat = g_t x + h_t makes the model a linear Gaussian chain, so that x_{0:T} is
jointly Gaussian under the model, and x_{1:T} given x_0 under q. From those joints alone come

    log p(x_0), by carrying a mean and a variance down the chain
    KL(q(x_{1:T} | x_0), p(x_{1:T} | x_0)), of two T-dimensional Gaussians
    ELBO = E_q log p(x_{0:T}) + entropy of q(x_{1:T} | x_0)

with the coefficients of DDPM's eq. 7 written out of the betas, and nothing of `elbo` or `gaussian`.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.elbo import bound
from diffusion_math.gaussian import Gaussian
from diffusion_math.grid import trailing
from diffusion_math.schedule import Discrete
from diffusion_math.testing.strategies import betas
from diffusion_math.variance import constant_variance, large_variance, optimal_variance
from tests.support.linear_chain import POINTS, Chain, log_normal, random_chain


def divergence(q, p):
    """KL of two Gaussians, each a (mean, covariance)."""
    (m, A), (n, B) = q, p
    distance = (n - m) @ np.linalg.solve(B, n - m)
    logs = np.linalg.slogdet(B)[1] - np.linalg.slogdet(A)[1]
    return (np.trace(np.linalg.solve(B, A)) - len(m) + distance + logs) / 2


def exact_chain(betas, mean, c):
    """The oracle's denoiser and reverse variances, for data N(mean, c)."""
    betas = np.asarray(betas)
    schedule = Discrete(torch.from_numpy(betas))
    numbers = [torch.tensor(x, dtype=torch.float64) for x in ([0.0], [[mean]], [c])]
    data = GaussianMixture(*numbers)
    denoise, times = data.denoiser(schedule), range(1, len(betas) + 1)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    affine = [denoise(ends, torch.tensor(float(t))).flatten().tolist() for t in times]
    variance = optimal_variance(c)
    return Chain(
        betas,
        np.array([one - zero for zero, one in affine]),
        np.array([zero for zero, _ in affine]),
        np.array([variance(schedule, t, t - 1).item() for t in times]),
    )


def check(chain):
    """C12, C13, C14 at three x_0. Conditions of up to 1e4 leave 1e-12 of sums of up to 1e3."""
    nats = chain.nats(POINTS)
    for x0, got in zip(POINTS, nats, strict=True):
        log_p, gap = chain.log_marginal(x0), divergence(chain.forward(x0), chain.posterior(x0))
        size = 1 + abs(got)
        assert log_p == pytest.approx(-got + gap, abs=1e-10 * size)  # C12
        assert log_p >= -got - 1e-10 * size  # C13
        assert -got == pytest.approx(chain.elbo(x0), abs=1e-10 * size)  # C14
    return nats


@pytest.mark.claim("C12", "diffusion_math.elbo.bound")
@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_c12_for_any_wrong_model(measured, T, seed):
    """log p(x_0) = ELBO + KL, to rounding, whatever the model; so the ELBO is below, by the KL."""
    chain = random_chain(T, seed)
    for x0, got in zip(POINTS, check(chain), strict=True):
        gap = divergence(chain.forward(x0), chain.posterior(x0))
        off = abs(chain.log_marginal(x0) + got - gap) / (1 + abs(got))
        measured(off, 1e-10, "relative error of ELBO + KL: sums of 1e3 at a condition of 1e4")


@settings(max_examples=15)
@given(
    betas(steps=(1, 6), values=(0.02, 0.7)),
    st.floats(-1, 1),
    st.floats(0.05, 2),
)
def test_c12_for_the_exact_reverse(table, mean, c):
    """With the oracle's reverse steps p = q but for x_T ~ N(0, 1), and that alone is the gap.

    p(x_{0:T}) = q(x_{0:T}) r(x_T), r = N(x; 0, 1) / q(x_T): ELBO = log q(x_0) + E log r(x_T), the
    mean over q(x_T | x_0).
    """
    chain = exact_chain(table, mean, c)
    nats = check(chain)
    x_T = math.sqrt(chain.abar[-1]) * mean, chain.abar[-1] * c + 1 - chain.abar[-1]
    for x0, got in zip(POINTS, nats, strict=True):
        (where, *_), (spread, *_) = (part[..., -1:].flatten()[::-1] for part in chain.forward(x0))
        log_q0 = log_normal(np.array([x0]), np.array([mean]), np.array([[c]]))
        log_r = math.log(x_T[1]) - (where**2 + spread) + ((where - x_T[0]) ** 2 + spread) / x_T[1]
        assert -got == pytest.approx(log_q0 + log_r / 2, abs=1e-9 * (1 + abs(got)))


@pytest.mark.parametrize("T", [1, 2, 6])
def test_the_bound_is_tight_for_standard_normal_data(T):
    """Data N(0, I) under the true reverse, v = beta: -ELBO = -log p(x_0) for every x_0, any T."""
    schedule = Discrete.linear(T, 0.1, 0.5)
    x0 = torch.tensor([[-2.0, 0.1], [0.3, 3.0]], dtype=torch.float64)
    data = GaussianMixture(torch.zeros(1), 0 * x0[:1], torch.ones(1))

    def average(variance):
        parts = [
            bound(
                schedule,
                data.denoiser(schedule),
                x0,
                trailing(schedule, T),
                lambda x, t, s, z=z: torch.full_like(x, z),
                variance,
                log_likelihood=Gaussian.log_density,
            )
            for z in (-1.0, 1.0)
        ]
        return (parts[0].nats + parts[1].nats) / 2

    exact = -Gaussian(0 * x0, torch.ones(()).double()).log_density(x0)
    torch.testing.assert_close(average(large_variance), exact, rtol=1e-12, atol=1e-12)
    if T > 1:
        assert (average(constant_variance(0.05)) > exact + 0.1).all()


def test_c14_only_the_prior_term_knows_no_theta():
    """Two models under one schedule share L_T and nothing else."""
    one, two = random_chain(4, 1), random_chain(4, 2)
    two = Chain(one.betas, two.gains, two.offsets, two.variances)
    (a, _), (b, _) = one.bound(POINTS), two.bound(POINTS)
    assert bool((a.prior == b.prior).all())
    assert bool((a.steps != b.steps).all())
    assert bool((a.reconstruction != b.reconstruction).all())


def test_wrong_bounds_are_rejected():
    """Each misses the identity by more than 1e-2, where the right one keeps it to 1e-10."""
    chain, x0 = random_chain(5, 3), (0.7,)
    log_p = chain.log_marginal(*x0)
    q, p = chain.forward(*x0), chain.posterior(*x0)
    parts = chain.bound(x0)
    prior, last = (
        sum(getattr(b, k) for b in parts).item() / 2 for k in ("prior", "reconstruction")
    )
    steps = (sum(b.steps for b in parts) / 2).flatten()
    right = log_p - divergence(q, p)
    assert -(prior + steps.sum().item() + last) == pytest.approx(right, abs=1e-10)
    halved = Chain(chain.betas, chain.gains, chain.offsets, chain.variances / 2)
    wrong = {
        "the path KL turned round": -log_p + divergence(p, q),
        "no KL: equality with log p": -log_p,
        "no prior term": steps.sum() + last,
        "no reconstruction": prior + steps.sum(),
        "t = 2..T-1": prior + steps[1:].sum() + last,
        "lost half": prior + 2 * steps.sum() + last,
        "another variance": halved.nats(x0).item(),
    }
    for what, value in wrong.items():
        assert abs(float(value) + right) > 1e-2, what


@pytest.mark.claim("E3", "diffusion_math.elbo.bound")
def test_e3_the_product_is_the_joint_and_not_the_marginal(measured):
    """E3: P(x_T) prod P(x_{t-1} | x_t) is a density of (x_0, x_1, x_2); p(x_0) is its integral.

    Trapezoid rule in the plane of (x_1, x_2) on a fifth of the least deviation: exact to e^-100.
    Put for p(x_0), the product at a path breaks C12 by nats, and differently for every path.
    """
    chain, x0 = Chain(*(row[:2] for row in vars(random_chain(4, 5)).values())), 0.4
    a, b = chain.slopes
    line = np.linspace(-14, 14, 1401)
    x1, x2 = line[:, None], line[None, :]

    def log_n(x, mean, variance):
        return -((x - mean) ** 2 / variance + math.log(2 * math.pi * variance)) / 2

    log_joint = log_n(x2, 0, 1) + log_n(x1, a[1] * x2 + b[1], chain.variances[1])
    log_joint = log_joint + log_n(x0, a[0] * x1 + b[0], chain.variances[0])
    marginal = chain.log_marginal(x0)
    mass = np.exp(log_joint).sum() * (line[1] - line[0]) ** 2
    assert math.log(mass) == pytest.approx(marginal, abs=1e-10)
    mean, cov = chain.joint()
    path = np.array([x0, line[720], line[650]])
    assert log_joint[720, 650] == pytest.approx(log_normal(path, mean, cov), abs=1e-10)
    gap = divergence(chain.forward(x0), chain.posterior(x0))
    elbo = -chain.nats([x0]).item()
    measured(abs(elbo + gap - math.log(mass)), 1e-10, "error of the integral, in nats")
    off = [abs(log_joint[i, j] - elbo - gap) for i, j in ((720, 650), (700, 700), (760, 700))]
    assert min(off) > 0.1
    assert len({round(value, 3) for value in off}) == 3
