"""Gaussians by themselves: density, entropy, and the distances between two of them; claim C10."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

from diffusion_math.gaussian import Gaussian, cross_entropy, fisher_divergence, kl, wasserstein2
from tests.support.measuring import Measured

EPS = torch.finfo(torch.float64).eps


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def standard_normal_rule(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Hermite nodes z and weights: E f(z) exactly for polynomials f of degree < 2n."""
    z, weight = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(z), torch.from_numpy(weight) / math.sqrt(2 * math.pi)


@pytest.mark.claim("C10", "diffusion_math.gaussian.kl")
@given(st.floats(-3, 3), st.floats(0.05, 4), st.floats(-3, 3), st.floats(0.05, 4))
def test_kl_entropy_and_density_by_quadrature(
    measured: Measured, m: float, v: float, n: float, w: float
) -> None:
    """C10: KL(q || p) = E_q log q/p >= 0; entropy = -E_q log q; the density integrates to 1."""
    q, p = Gaussian(vector(m), vector(v)), Gaussian(vector(n), vector(w))
    z, weight = standard_normal_rule(8)  # exact here: log-densities are quadratic
    x = m + math.sqrt(v) * z
    log_q, log_p = (Gaussian(g.mean.expand(8), g.variance.expand(8)).log_density(x) for g in (q, p))
    size = 1 + (m - n) ** 2 / w + v / w + abs(math.log(v)) + abs(math.log(w))
    off = abs(kl(q, p).item() - (weight @ (log_q - log_p)).item()) / size
    measured(off, 1e-13, "error against quadrature, over the size of the terms; KL >= 0 besides")
    assert q.entropy().item() == pytest.approx(-(weight @ log_q).item(), abs=1e-13 * size)
    # The trapezoid rule is exact to rounding for a function this smooth that ends this small.
    line = torch.linspace(m - 12 * math.sqrt(v), m + 12 * math.sqrt(v), 401, dtype=torch.float64)
    density = Gaussian(q.mean.expand(401), q.variance.expand(401)).log_density(line).exp()
    assert torch.trapezoid(density, line).item() == pytest.approx(1, abs=1e-12)
    assert kl(q, p).item() >= 0
    assert kl(q, q).item() == 0


@given(st.floats(-3, 3), st.floats(0.05, 4), st.floats(-3, 3), st.floats(0.05, 4))
def test_score_cross_entropy_and_fisher_divergence_by_quadrature(
    m: float, v: float, n: float, w: float
) -> None:
    """Expectations of polynomials: the rule is exact; the score is autograd's."""
    q, p = Gaussian(vector(m), vector(v)), Gaussian(vector(n), vector(w))
    z, weight = standard_normal_rule(8)
    x = (m + math.sqrt(v) * z).requires_grad_()
    wide_q, wide_p = (Gaussian(g.mean.expand(8), g.variance.expand(8)) for g in (q, p))
    (slope,) = torch.autograd.grad(wide_q.log_density(x).sum(), x)
    torch.testing.assert_close(wide_q.score(x), slope, rtol=1e-13, atol=1e-13)
    got = cross_entropy(q, p).item()
    assert got == pytest.approx(-(weight @ wide_p.log_density(x)).item(), rel=1e-12, abs=1e-12)
    assert got == pytest.approx(q.entropy().item() + kl(q, p).item(), rel=1e-13, abs=1e-13)
    apart = (weight @ (wide_q.score(x) - wide_p.score(x)).square()).item()
    assert fisher_divergence(q, p).item() == pytest.approx(apart, rel=1e-9, abs=1e-11)
    assert fisher_divergence(q, q).item() == 0


@given(st.floats(0.1, 10), st.floats(-15, 8), st.floats(-12, 2))
def test_fisher_divergence_of_the_nearly_equal_and_the_far_apart(
    v: float, exponent: float, thin: float
) -> None:
    """Against 50 digits, for variances that agree to any digit and for one of nearly 0."""
    w = v * (1 + 10.0**exponent)
    for a, b in ((w, v), (v, w), (10.0**thin, v), (v, 10.0**thin)):
        d = mpf(a) / mpf(b) - 1
        exact = d**2 / mpf(a) + (mpf(2.5) / mpf(b)) ** 2
        got = fisher_divergence(Gaussian(vector(2.5), vector(a)), Gaussian(vector(0), vector(b)))
        assert abs(got.item() / exact - 1) <= 16 * EPS


@given(st.floats(-1, 1), st.floats(0.1, 10), st.floats(-15, 3))
def test_kl_of_nearly_equal_variances(m: float, v: float, exponent: float) -> None:
    """d - log(1 + d) in 50 digits: the error is EPS d and not the EPS of r - 1 - log r."""
    d = 10.0**exponent
    q, p = Gaussian(vector(m), vector(v * (1 + d))), Gaussian(vector(m), vector(v))
    exact_d = mpf(q.variance.item()) / mpf(v) - 1
    exact = (exact_d - mpmath.log(1 + exact_d)) / 2
    assert abs(kl(q, p).item() - float(exact)) <= 8 * EPS * float(exact_d)


def test_wrong_divergences_are_rejected() -> None:
    q, p = Gaussian(vector(1.0), vector(0.5)), Gaussian(vector(-0.5), vector(2.0))
    right = kl(q, p).item()
    wrong = {
        "arguments swapped": kl(p, q).item(),
        "mean over q's variance": (2.25 / 0.5 + 0.25 - 1 - math.log(0.25)) / 2,
        "sign of the log": (2.25 / 2 + 0.25 - 1 + math.log(0.25)) / 2,
        "lost half": 2 * right,
        "deviation for variance": (2.25 / math.sqrt(2) + 0.5 - 1 - math.log(0.5)) / 2,
    }
    assert right == pytest.approx((2.25 / 2 + 0.25 - 1 - math.log(0.25)) / 2, rel=8 * EPS)
    assert all(abs(value - right) > 1e-2 for value in wrong.values())


@given(st.floats(-3, 3), st.floats(0, 4), st.floats(-3, 3), st.floats(0, 4))
def test_wasserstein_by_quantiles(m: float, v: float, n: float, w: float) -> None:
    """On a line W2^2 = integral of (F^-1 - G^-1)^2 = E ((m - n) + (sqrt v - sqrt w) z)^2."""
    got = wasserstein2(Gaussian(vector(m), vector(v)), Gaussian(vector(n), vector(w))).item()
    z, weight = standard_normal_rule(4)
    exact = (weight @ (m - n + (math.sqrt(v) - math.sqrt(w)) * z).square()).item()
    assert got**2 == pytest.approx(exact, rel=1e-10, abs=1e-13)


def test_events_are_summed_and_variances_broadcast() -> None:
    mean, x = torch.zeros(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, 4, dtype=torch.float64)
    for variance in (vector(2.0)[0], torch.full((2, 1, 1), 2.0), torch.full((2, 3, 4), 2.0)):
        q = Gaussian(mean, variance.double())
        one = Gaussian(vector(0.0), vector(2.0))
        unit = Gaussian(mean, torch.ones((), dtype=torch.float64))
        assert torch.allclose(q.entropy(), 12 * one.entropy().expand(2))
        assert torch.allclose(q.log_density(x), 12 * one.log_density(vector(1.0)).expand(2))
        expected = 12 * kl(one, Gaussian(vector(0.0), vector(1.0)))
        assert torch.allclose(kl(q, unit), expected.expand(2))
        distance = math.sqrt(12) * (math.sqrt(2) - 1)
        assert wasserstein2(q, unit).tolist() == pytest.approx([distance] * 2, rel=16 * EPS)
        assert torch.allclose(q.sample(x), math.sqrt(2) * x)
        assert torch.allclose(q.score(x), -x / 2)
        assert torch.allclose(cross_entropy(q, unit), q.entropy() + kl(q, unit))
        assert fisher_divergence(q, unit).tolist() == pytest.approx([12 / 2] * 2)
    empty = Gaussian(mean[:0], vector(1.0)[0])
    assert empty.entropy().shape == kl(empty, empty).shape == (0,)


@pytest.mark.usefixtures("unchecked")
def test_illegal_arguments() -> None:
    x = torch.ones(2, 3)
    for bad in (torch.ones(2), torch.ones(3, 3), torch.ones(1, 2, 3)):
        with pytest.raises(ValueError, match=r"^variance: wanted a shape that broadcasts"):
            Gaussian(x, bad)
    q = Gaussian(x, torch.ones(()))
    for call in (
        lambda: kl(q, Gaussian(x[:1], torch.ones(()))),
        lambda: wasserstein2(q, Gaussian(x[:1], torch.ones(()))),
        lambda: cross_entropy(q, Gaussian(x[:1], torch.ones(()))),
        lambda: fisher_divergence(q, Gaussian(x[:1], torch.ones(()))),
        lambda: q.sample(x[:1]),
        lambda: q.score(x[:1]),
        lambda: q.log_density(x[:1]),
    ):
        with pytest.raises(ValueError, match="wanted shape"):
            call()
