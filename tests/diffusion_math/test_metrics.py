"""Distances between samples: exact cases, symmetries, and the law of the estimate itself."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffusion_math.metrics import empirical_wasserstein2, energy_distance


def normals(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def folded(mean: float, variance: float) -> float:
    """E|Z| of Z ~ N(mean, variance)."""
    return float(stats.foldnorm.mean(abs(mean) / math.sqrt(variance), scale=math.sqrt(variance)))


def test_energy_distance_of_four_numbers_by_hand() -> None:
    """x = 0, 1 and y = 3, 7: 2 * (3 + 7 + 2 + 6) / 4 - 1 - 4."""
    found = energy_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 7.0]))
    assert found.value == pytest.approx(4.0, rel=1e-14)


def test_energy_distance_is_unbiased_with_an_honest_error() -> None:
    """300 estimates between N(0, 1) and N(1, 1.5^2) against the closed form (folded normals).

    The mean lies within 6 standard errors (false alarm 2e-9); the share of |z| < 1 is 68.3% up to
    6 binomial sd. An estimate with |x_i - x_i| = 0 in the mean (a V-statistic) is off by 8 sd.
    """
    exact = 2 * folded(1.0, 1 + 2.25) - folded(0.0, 2.0) - folded(0.0, 4.5)
    estimates = []
    for seed in range(300):
        z = normals(seed, 2, 20)
        estimates.append(energy_distance(z[0], 1.0 + 1.5 * z[1]))
    values = torch.tensor([estimate.value for estimate in estimates], dtype=torch.float64)
    error = float(values.std()) / math.sqrt(300)
    assert float(values.mean()) == pytest.approx(exact, abs=6 * error)
    biased = exact + (folded(0.0, 2.0) + folded(0.0, 4.5)) / 20
    assert abs(float(values.mean()) - biased) > 6 * error
    inside = sum(abs(e.value - exact) < e.error for e in estimates) / 300
    assert inside == pytest.approx(0.683, abs=6 * math.sqrt(0.683 * 0.317 / 300))


def test_energy_distance_tells_a_wrong_spread_from_a_right_one() -> None:
    x, y = normals(1, 2000, 2), normals(2, 2000, 2)
    same, other = energy_distance(x, y), energy_distance(x, 1.5 * y)
    assert abs(same.value) < 0.01 < other.value - 6 * other.error


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**31))
def test_wasserstein_is_the_best_of_all_pairings(n: int, size: int, seed: int) -> None:
    """Against all n! permutations; rounding of a handful of sums."""
    x, y = normals(seed, 2, n, size)
    every = [float((x - y[list(p)]).square().sum(1).mean()) for p in permutations(range(n))]
    assert float(empirical_wasserstein2(x, y)) == pytest.approx(math.sqrt(min(every)), rel=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_wasserstein_of_a_shift_is_its_length(seed: int, a: float, b: float) -> None:
    x, shift = normals(seed, 50, 2), torch.tensor([a, b], dtype=torch.float64)
    moved = (x + shift)[torch.randperm(50, generator=torch.Generator().manual_seed(seed))]
    # the pairing is exact; the differences carry the rounding of x + shift
    assert float(empirical_wasserstein2(x, moved)) == pytest.approx(math.hypot(a, b), abs=1e-9)


def test_wasserstein_on_the_line_pairs_in_order() -> None:
    x, y = normals(5, 2, 200)
    in_order = (x.sort().values - y.sort().values).square().mean().sqrt()
    assert float(empirical_wasserstein2(x, y)) == pytest.approx(float(in_order), rel=1e-12)


@pytest.mark.parametrize("distance", [energy_distance, empirical_wasserstein2])
def test_what_cannot_be_compared_is_refused(distance: object) -> None:
    assert callable(distance)
    with pytest.raises(ValueError, match=r"^y: wanted events of shape \(2,\)"):
        distance(torch.zeros(3, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"^x: wanted \d points or more"):
        distance(torch.zeros(0, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"^y: wanted 3 points"):
        empirical_wasserstein2(torch.zeros(3, 2), torch.zeros(4, 2))
