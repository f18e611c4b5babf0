"""Gaussians with full covariances, against quadrature that is exact for them, and limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math.densities import multivariate
from diffusion_math.densities.multivariate import (
    Multivariate,
    condition,
    cross_entropy,
    fisher_divergence,
    kl,
    product,
    wasserstein2,
)

EPS = torch.finfo(torch.float64).eps


def drawn(seed: int, D: int, least: float = 0.3, most: float = 3.0) -> Multivariate:
    """A Gaussian with random axes and eigenvalues within [least, most]."""
    rng = np.random.default_rng([seed, D])
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0]
    C = (Q * rng.uniform(least, most, D)) @ Q.T
    mean = torch.from_numpy(rng.uniform(-2, 2, D))
    return Multivariate(mean, torch.from_numpy((C + C.T) / 2))


def nodes(q: Multivariate, n: int = 6) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite points and weights: E_q exactly for polynomials of degree < 2n in each axis."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    D = q.mean.shape[-1]
    points = torch.from_numpy(np.stack(np.meshgrid(*[z] * D, indexing="ij"), -1).reshape(-1, D))
    weights = np.stack(np.meshgrid(*[w / math.sqrt(2 * math.pi)] * D, indexing="ij"), -1)
    return every(q, len(points)).sample(points), torch.from_numpy(weights.reshape(-1, D).prod(1))


def every(q: Multivariate, n: int) -> Multivariate:
    return Multivariate(q.mean.expand(n, -1), q.covariance.expand(n, -1, -1))


pairs = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 3))


@settings(max_examples=25)
@given(pairs)
def test_entropies_and_divergences_are_their_integrals(drawing: tuple[int, int, int]) -> None:
    """Log-densities are quadratic and scores linear, so the rule errs by rounding only."""
    a, b, D = drawing
    q, p = drawn(a, D), drawn(b + 1, D)
    x, weight = nodes(q)
    log_q, log_p = (every(g, len(x)).log_density(x) for g in (q, p))
    apart = every(q, len(x)).score(x) - every(p, len(x)).score(x)
    # Eigenvalues within [0.3, 3] and means within 4: terms up to some 400 are summed.
    near = {"rel": 1e-11, "abs": 1e-11}
    assert q.entropy().item() == pytest.approx(-(weight @ log_q).item(), **near)
    assert cross_entropy(q, p).item() == pytest.approx(-(weight @ log_p).item(), **near)
    assert kl(q, p).item() == pytest.approx((weight @ (log_q - log_p)).item(), **near)
    assert kl(q, p).item() >= 0 == kl(q, q).item()
    fisher = (weight @ apart.square().sum(1)).item()
    assert fisher_divergence(q, p).item() == pytest.approx(fisher, **near)
    if a != b + 1:  # the arguments may not be swapped
        assert abs(fisher_divergence(p, q).item() - fisher) > 1e-9


@settings(max_examples=25)
@given(pairs)
def test_density_and_score(drawing: tuple[int, int, int]) -> None:
    """The density is scipy's; the score is the gradient that autograd finds in it."""
    a, b, D = drawing
    q, x = drawn(a, D), drawn(b, D).mean.clone().requires_grad_()
    value = q.log_density(x)
    expected = stats.multivariate_normal(q.mean.numpy(), q.covariance.numpy()).logpdf(x.detach())
    assert value.item() == pytest.approx(float(expected), rel=1e-11, abs=1e-11)
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(q.score(x.detach()), gradient, rtol=1e-10, atol=1e-10)


@settings(max_examples=25)
@given(pairs)
def test_a_diagonal_covariance_is_the_diagonal_gaussian(drawing: tuple[int, int, int]) -> None:
    a, b, D = drawing
    q, p = (
        Multivariate(g.mean, g.covariance.diagonal().diag()) for g in (drawn(a, D), drawn(b, D))
    )
    flat_q, flat_p = (
        gaussian.Gaussian(g.mean[None], g.covariance.diagonal()[None]) for g in (q, p)
    )
    near = {"rel": 1e-11, "abs": 1e-12}
    assert kl(q, p).item() == pytest.approx(gaussian.kl(flat_q, flat_p).item(), **near)
    distance = gaussian.wasserstein2(flat_q, flat_p).item()
    assert wasserstein2(q, p).item() == pytest.approx(distance, **near)
    assert q.entropy().item() == pytest.approx(flat_q.entropy().item(), **near)
    for one in ("cross_entropy", "fisher_divergence"):
        flat = getattr(gaussian, one)(flat_q, flat_p).item()
        assert getattr(multivariate, one)(q, p).item() == pytest.approx(flat, rel=1e-10, abs=1e-11)


@settings(max_examples=25)
@given(pairs)
def test_wasserstein_is_the_cost_of_the_optimal_map(drawing: tuple[int, int, int]) -> None:
    """x -> m_p + T (x - m_q) with T = C_q^-1/2 (C_q^1/2 C_p C_q^1/2)^1/2 C_q^-1/2 (Brenier)."""
    a, b, D = drawing
    q, p = drawn(a, D), drawn(b, D)

    def root(C: Tensor) -> Tensor:
        values, Q = torch.linalg.eigh(C)
        return (Q * values.sqrt()) @ Q.mT

    R = root(q.covariance)
    inverse = torch.linalg.inv(R)
    T = inverse @ root(R @ p.covariance @ R) @ inverse
    assert torch.allclose(T @ q.covariance @ T.mT, p.covariance, rtol=1e-9, atol=1e-9)
    x, weight = nodes(q)
    moved = p.mean + (x - q.mean) @ T.mT
    cost = (weight @ (moved - x).square().sum(1)).item()
    assert wasserstein2(q, p).item() ** 2 == pytest.approx(cost, rel=1e-9, abs=1e-12)
    far = (weight @ (x - p.mean).square().sum(1)).item()  # a map to the mean alone costs else
    assert abs(far - cost) > 1e-6


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(-12, -2))
def test_nearly_equal_gaussians_keep_their_digits(seed: int, exponent: float) -> None:
    """C_p = C_q (1 + h): KL = D (d - log(1 + d)) / 2, d = -h / (1 + h);

    W2^2 = (sqrt(1 + h) - 1)^2 tr C.

    The difference C_p - C_q is itself known to EPS C_q only: 1e-15 / h of relative error.
    """
    h, q = 10.0**exponent, drawn(seed, 3)
    p = Multivariate(q.mean, q.covariance * (1 + h))
    rel = 1e-9 + 1e-14 / h
    d = -h / (1 + h)
    closed = 3 * d**2 * (0.5 - d / 3 + d**2 / 4 - d**3 / 5) / 2
    assert kl(q, p).item() == pytest.approx(closed, rel=2 * rel)
    spread = math.expm1(math.log1p(h) / 2) * q.covariance.trace().sqrt().item()
    assert wasserstein2(q, p).item() == pytest.approx(spread, rel=rel, abs=1e-14)
    trace = torch.linalg.inv(q.covariance).trace().item()
    assert fisher_divergence(q, p).item() == pytest.approx(trace * d**2, rel=2 * rel)


def test_singular_covariances_have_distances_and_no_density() -> None:
    """Two segments at an angle a: W2^2 = 2 - 2 cos a, as for their ends."""
    for angle in (0.0, 0.4, math.pi / 2):
        u = torch.tensor([1.0, 0.0], dtype=torch.float64)
        v = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        q, p = (Multivariate(torch.zeros(2), torch.outer(w, w)) for w in (u, v))
        assert wasserstein2(q, p).item() ** 2 == pytest.approx(2 - 2 * math.cos(angle), abs=1e-12)
        with pytest.raises(ValueError, match="not singular"):
            q.log_density(torch.zeros(2))
        with pytest.raises(ValueError, match=r"p\.covariance"):
            kl(drawn(0, 2), p)
    point = Multivariate(torch.zeros(2), torch.zeros(2, 2))
    assert kl(point, drawn(0, 2)).item() == math.inf
    assert torch.equal(point.sample(torch.ones(2)), torch.zeros(2).double())


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.permutations(range(4)), st.integers(1, 3))
def test_conditioning_is_the_chain_rule(seed: int, order: list[int], count: int) -> None:
    """log q(a, b) = log q(a | b) + log q(b), whichever entries are known."""
    joint, known = drawn(seed, 4), list(order[:count])
    other = [i for i in range(4) if i not in known]
    x = drawn(seed + 1, 4).mean
    given_b = condition(joint, known, x[known])
    rest = Multivariate(joint.mean[known], joint.covariance[known][:, known])
    total = given_b.log_density(x[other]) + rest.log_density(x[known])
    assert total.item() == pytest.approx(joint.log_density(x).item(), rel=1e-10, abs=1e-10)


@settings(max_examples=25)
@given(pairs)
def test_a_product_of_densities(drawing: tuple[int, int, int]) -> None:
    a, b, D = drawing
    q, p = drawn(a, D), drawn(b, D)
    both, constant = product(q, p)
    x = drawn(a + b + 2, D).mean
    got = (both.log_density(x) + constant).item()
    assert got == pytest.approx((q.log_density(x) + p.log_density(x)).item(), rel=1e-10, abs=1e-9)
    point = Multivariate(p.mean, torch.zeros(D, D))
    certain, weight = product(q, point)
    assert torch.allclose(certain.mean, p.mean, rtol=1e-12, atol=1e-12)
    assert weight.item() == pytest.approx(q.log_density(p.mean).item(), rel=1e-11, abs=1e-11)


def test_parameters_that_change_later_change_nothing() -> None:
    mean, covariance = torch.zeros(2).double(), torch.eye(2).double()
    q = Multivariate(mean, covariance)
    mean.add_(5.0)
    covariance.mul_(7.0)
    assert torch.equal(q.sample(torch.ones(2).double()), torch.ones(2).double())


def test_batches_are_their_members() -> None:
    some, others = [drawn(i, 2) for i in range(3)], [drawn(i + 9, 2) for i in range(3)]
    q, p = (
        Multivariate(torch.stack([g.mean for g in all_]), torch.stack([g.covariance for g in all_]))
        for all_ in (some, others)
    )
    for distance in (kl, cross_entropy, wasserstein2, fisher_divergence):
        one_by_one = torch.stack([distance(*two) for two in zip(some, others, strict=True)])
        torch.testing.assert_close(distance(q, p), one_by_one, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([0.0, 0.0], [[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "no negative eigenvalue"),
        ([0.0, math.nan], [[1.0, 0.0], [0.0, 1.0]], "mean: wanted finite"),
    ],
)
def test_what_is_no_gaussian_is_refused(mean: list, covariance: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Multivariate(torch.tensor(mean), torch.tensor(covariance))


def test_what_cannot_be_known_is_refused() -> None:
    joint = drawn(0, 2)
    for known in ([0, 1], [0, 0], [2], [-1]):
        with pytest.raises(ValueError, match="known: wanted"):
            condition(joint, known, torch.zeros(len(known)))
