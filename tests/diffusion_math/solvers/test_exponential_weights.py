"""phi, and the weights that integrate a polynomial under the exponential."""

import math
from functools import cache
from itertools import pairwise

import mpmath
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from sympy import exp

from diffusion_math.solvers.exponential import phi, weights
from tests.support.derivation import EPS, exactly, is_zero, ulps
from tests.support.tensors import f64

h, rate, u = sympy.symbols("h rate u", positive=True)
POINTS = sympy.symbols("p0:4", real=True)

rates = st.sampled_from([-1.0, 1.0, 1.3, 1.5, 2.0])
lengths = st.floats(0.01, 4)
shares = st.lists(st.floats(-3, 1), min_size=1, max_size=4, unique=True)


# phi


@given(st.floats(-40, 40), st.integers(1, 5))
def test_phi_is_an_integral(z, count):
    """phi_k(z) = int_0^1 e^{(1 - x) z} x^{k-1} / (k-1)! dx, to 100 ulps.

    The recursion's loss is the product of phi_k / (z phi_{k+1}), 50 at z = -2, k = 5.
    """
    with mpmath.workdps(40):
        exact = [
            mpmath.hyp1f1(1, k + 1, mpmath.mpf(z)) / mpmath.factorial(k)
            for k in range(1, count + 1)
        ]
    got = phi(z, count)
    assert len(got) == count
    assert all(ulps(g, e, float(abs(e))) < 100 for g, e in zip(got, exact, strict=True))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_phi_s_three_forms(k):
    """The integral that is derived, the recursion, and the function that is compared with."""
    z, x = sympy.symbols("z x", positive=True)
    integral = sympy.integrate(exp((1 - x) * z) * x ** (k - 1), (x, 0, 1)) / sympy.factorial(k - 1)
    before = exp(z)
    for j in range(k):
        before = (before - 1 / sympy.factorial(j)) / z
    assert is_zero(integral - before)
    with mpmath.workdps(30):
        there = exactly(before, {z: 3.5})
        assert abs(mpmath.hyp1f1(1, k + 1, 3.5) / mpmath.factorial(k) - there) < 1e-25


@pytest.mark.parametrize("z", [-2.0, 2.0])
def test_phi_s_two_ways_meet(z):
    """At |z| = 2 the series takes over from the recursion; at 0 phi_k is 1 / k!."""
    inner = phi(math.nextafter(z, 0.0), 5)
    assert inner == pytest.approx(phi(z, 5), rel=100 * EPS)
    assert phi(0.0, 5) == [1 / math.factorial(k) for k in range(1, 6)]


# weights


@cache
def derived(count):
    """The weights of `count` nodes at shares p_j of h: Lagrange's polynomials, integrated."""
    found = []
    for j in range(count):
        others = [i for i in range(count) if i != j]
        lagrange = sympy.prod((u - POINTS[i]) / (POINTS[j] - POINTS[i]) for i in others)
        terms = sympy.Poly(sympy.expand(sympy.numer(lagrange)), u).all_coeffs()[::-1]
        area = sum(a * moment(m) for m, a in enumerate(terms))
        found.append(area / sympy.denom(lagrange))
    return found


@cache
def moment(m):
    """int_0^1 rate h e^{-rate h (1 - u)} u^m du."""
    return sympy.integrate(rate * h * exp(-rate * h * (1 - u)) * u**m, (u, 0, 1))


@given(shares, lengths, rates, st.floats(-5, 5))
def test_weights_are_lagrange_s_integrals(points, length, kappa, at):
    """In 60 digits, at the very nodes; the error grows with how near two of them are."""
    levels = f64(*points) * length + at
    begin, end = f64(at)[0], f64(at)[0] + length
    span = float(end - begin)
    places = [float((lam - begin) / span) for lam in levels]
    gap = min([1.0] + [abs(a - b) for i, a in enumerate(places) for b in places[:i]])
    if gap < 0.05:
        return
    got = weights(list(levels), begin, end, kappa)
    values = {h: span, rate: abs(kappa), **dict(zip(POINTS, places, strict=False))}
    for c, form in zip(got, derived(len(points)), strict=True):
        if kappa < 0:
            form = form.subs(rate, -rate)
        assert ulps(c, exactly(form, values), 1e4 / gap ** (len(points) - 1)) < 10


@given(shares, lengths, rates, st.floats(-5, 5), st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_weights_integrate_polynomials(points, length, kappa, at, numbers):
    """int rate e^{-rate (stop - l)} p(l) dl for any p of degree < nodes, by Gauss's quadrature.

    Tolerance: 1e-11 of the terms that are added, the residual of a linear solve in float64.
    """
    places = sorted(points)
    if any(b - a < 0.02 for a, b in pairwise(places)):
        return
    nodes = [f64(at + p * length)[0] for p in places]
    begin, end = f64(at)[0], f64(at + length)[0]
    numbers = numbers[: len(nodes)]

    def p(level):
        xi = (level - float(begin)) / length
        return sum(a * xi**m for m, a in enumerate(numbers))

    with mpmath.workdps(20):
        exact = mpmath.quad(
            lambda at: kappa * mpmath.exp(-kappa * (float(end) - at)) * p(at),
            [float(begin), float(end)],
        )
    got = weights(nodes, begin, end, kappa)
    parts = [float(c) * p(float(lam)) for c, lam in zip(got, nodes, strict=True)]
    size = sum(abs(c) for c in got.tolist()) * sum(map(abs, numbers)) * 3 ** (len(nodes) - 1)
    assert abs(sum(parts) - float(exact)) <= 1e-11 * (size + abs(float(exact))) + 1e-13


def test_one_node_has_the_whole_weight():
    """1 - e^{-rate h} wherever it lies: DPM-Solver's and DPM-Solver++'s first-order coefficient."""
    for kappa in (-1.0, 1.0, 2.0):
        (got,) = weights([f64(7.0)[0]], f64(1.0)[0], f64(1.7)[0], kappa)
        assert got.item() == pytest.approx(-math.expm1(-kappa * 0.7), rel=1e-14)
