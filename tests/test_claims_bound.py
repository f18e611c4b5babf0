"""C13 and C14: the bound is one, and its terms add up, for linear Gaussian chains."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.linear_chain import POINTS, random_chain
from tests.support.measuring import Measured


@pytest.mark.claim("C13", "diffusion_math.elbo.bound")
@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_c13_the_bound_is_below_the_log_likelihood(measured: Measured, T: int, seed: int) -> None:
    """ELBO <= log p(x_0) for models that fit nothing; a bound without its prior term is above."""
    chain = random_chain(T, seed)
    for x0, nats in zip(POINTS, chain.nats(POINTS), strict=True):
        above = (-nats - chain.log_marginal(x0)) / (1 + abs(nats))
        measured(above, 1e-10, "ELBO - log p(x_0), relative: at most its rounding above 0")


def test_c13_without_its_prior_term_it_is_no_bound() -> None:
    """Far from 0 the prior term is the larger part of the gap: left out, the sum passes log p."""
    above = []
    for seed in range(20):
        chain = random_chain(1, seed)
        for x0 in POINTS:
            parts = chain.bound((x0,))
            without = sum(part.reconstruction.item() for part in parts) / 2
            above.append(-without - chain.log_marginal(x0))
    assert max(above) > 0.1


@pytest.mark.claim("C14", "diffusion_math.elbo.Bound")
@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_c14_the_terms_add_up_to_the_bound(measured: Measured, T: int, seed: int) -> None:
    """-ELBO = L_T + sum L_{t-1} + L_0, the ELBO from the two joint Gaussians: the terms one by
    one, and their sum as `Bound` gives it in nats and in bits per dimension."""
    chain = random_chain(T, seed)
    for x0 in POINTS:
        parts = chain.bound((x0,))  # a mean over two draws, exact for quadratics
        exact = chain.elbo(x0)
        sums = (
            sum((part.prior + part.steps.sum(0) + part.reconstruction).item() for part in parts),
            sum(part.nats.item() for part in parts),
            sum(part.bits_per_dimension.item() * math.log(2) for part in parts),
        )
        off = max(abs(total / 2 + exact) for total in sums) / (1 + abs(exact))
        measured(off, 1e-10, "relative error of the sum of terms: 1e3 at a condition of 1e4")
