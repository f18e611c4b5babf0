"""C12 to C14 and E3 as equalities: chains of linear Gaussian steps, where every side is closed.

An affine denoiser x0_hat = g_t x + h_t makes the model a linear Gaussian chain, so that x_{0:T} is
jointly Gaussian under the model, and x_{1:T} given x_0 under q. From those joints alone come

    log p(x_0), by carrying a mean and a variance down the chain
    KL(q(x_{1:T} | x_0), p(x_{1:T} | x_0)), of two T-dimensional Gaussians
    ELBO = E_q log p(x_{0:T}) + entropy of q(x_{1:T} | x_0)

with the coefficients of DDPM's eq. 7 written out of the betas, and nothing of `elbo` or `gaussian`.
"""

import math
from dataclasses import dataclass

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
from diffusion_math.variance import constant_variance, large_variance, optimal_variance


@dataclass(frozen=True)
class Chain:
    """p(x_T) = N(0, 1), p(x_{t-1} | x_t) = N(a_t x + b_t, v_t) with x0_hat = g_t x + h_t."""

    betas: np.ndarray
    gains: np.ndarray
    offsets: np.ndarray
    variances: np.ndarray

    @property
    def T(self):
        return len(self.betas)

    @property
    def abar(self):
        """abar_0 = 1, ..., abar_T."""
        return np.concatenate([[1.0], np.cumprod(1 - self.betas)])

    @property
    def slopes(self):
        """a_t and b_t for t = 1..T: DDPM's eq. 7 at x0_hat."""
        before, after = self.abar[:-1], self.abar[1:]
        on_x0 = np.sqrt(before) * self.betas / (1 - after)
        on_x = np.sqrt(1 - self.betas) * (1 - before) / (1 - after)
        return on_x + on_x0 * self.gains, on_x0 * self.offsets

    @property
    def schedule(self):
        return Discrete(torch.from_numpy(self.betas))

    def denoise(self, x, t):
        return self.gains[int(t) - 1] * x + self.offsets[int(t) - 1]

    def variance(self, schedule, t, s):
        return torch.tensor(self.variances[int(t) - 1], dtype=torch.float64)

    def bound(self, x0):
        """Exactly -ELBO's terms, one row an x0: quadratics in z have their mean over z = -1, 1."""
        x = torch.tensor(x0, dtype=torch.float64).reshape(-1, 1)
        grid = trailing(self.schedule, self.T)
        return [
            bound(
                self.schedule,
                self.denoise,
                x,
                grid,
                lambda x, t, s, z=z: torch.full_like(x, z),
                self.variance,
                self.variance,
                Gaussian.log_density,
            )
            for z in (-1.0, 1.0)
        ]

    def nats(self, x0):
        return sum(part.nats for part in self.bound(x0)).numpy() / 2

    def joint(self):
        """Mean (T + 1,) and covariance of x_{0:T} under the model."""
        a, b = self.slopes
        mean, root = np.zeros(self.T + 1), np.zeros((self.T + 1, self.T + 1))
        root[-1, -1] = 1
        for t in range(self.T, 0, -1):
            mean[t - 1] = a[t - 1] * mean[t] + b[t - 1]
            root[t - 1] = a[t - 1] * root[t]
            root[t - 1, t - 1] = math.sqrt(self.variances[t - 1])
        return mean, root @ root.T

    def log_marginal(self, x0):
        """log p(x_0), of the mean and the variance carried down the chain."""
        (a, b), mean, variance = self.slopes, 0.0, 1.0
        for t in range(self.T - 1, -1, -1):
            mean, variance = a[t] * mean + b[t], a[t] ** 2 * variance + self.variances[t]
        return log_normal(np.array([x0]), np.array([mean]), np.array([[variance]]))

    def posterior(self, x0):
        """Mean and covariance of p(x_{1:T} | x_0), by conditioning the joint."""
        mean, cov = self.joint()
        gain = cov[1:, 0] / cov[0, 0]
        return mean[1:] + gain * (x0 - mean[0]), cov[1:, 1:] - np.outer(gain, cov[0, 1:])

    def forward(self, x0):
        """Mean and covariance of q(x_{1:T} | x_0), sqrt(abar_t / abar_s) (1 - abar_s)."""
        abar = self.abar[1:]
        at_s, at_t = np.maximum.outer(abar, abar), np.minimum.outer(abar, abar)
        return np.sqrt(abar) * x0, np.sqrt(at_t / at_s) * (1 - at_s)

    def elbo(self, x0):
        """E_q log p(x_{0:T}) - E_q log q(x_{1:T} | x_0)."""
        mean, cov = self.joint()
        where, spread = self.forward(x0)
        widened = np.zeros_like(cov)
        widened[1:, 1:] = spread
        energy = log_normal(np.array([x0, *where]), mean, cov)
        energy -= np.trace(np.linalg.solve(cov, widened)) / 2
        return energy + np.linalg.slogdet(2 * math.pi * math.e * spread)[1] / 2


def log_normal(x, mean, cov):
    d = x - mean
    return -(d @ np.linalg.solve(cov, d) + np.linalg.slogdet(2 * math.pi * cov)[1]) / 2


def divergence(q, p):
    """KL of two Gaussians, each a (mean, covariance)."""
    (m, A), (n, B) = q, p
    distance = (n - m) @ np.linalg.solve(B, n - m)
    logs = np.linalg.slogdet(B)[1] - np.linalg.slogdet(A)[1]
    return (np.trace(np.linalg.solve(B, A)) - len(m) + distance + logs) / 2


def random_chain(T, seed):
    """A wrong model: nothing of it fits the data or the schedule."""
    draw = np.random.default_rng(seed)
    return Chain(
        draw.uniform(0.05, 0.6, T),
        draw.uniform(-1.5, 1.5, T),
        draw.normal(size=T),
        draw.uniform(0.05, 2.0, T),
    )


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


POINTS = (-2.0, 0.3, 1.5)


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
    st.lists(st.floats(0.02, 0.7), min_size=1, max_size=6),
    st.floats(-1, 1),
    st.floats(0.05, 2),
)
def test_c12_for_the_exact_reverse(betas, mean, c):
    """With the oracle's reverse steps p = q but for x_T ~ N(0, 1), and that alone is the gap.

    p(x_{0:T}) = q(x_{0:T}) r(x_T), r = N(x; 0, 1) / q(x_T): ELBO = log q(x_0) + E log r(x_T), the
    mean over q(x_T | x_0).
    """
    chain = exact_chain(betas, mean, c)
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
