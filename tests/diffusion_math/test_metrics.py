"""Distances between samples: exact cases, symmetries, and the law of the estimate itself."""

import ast
import math
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffusion_math.metrics import empirical_wasserstein2, energy_distance
from tests.support.chance import Count, known, rare, seeded


def normals(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def folded(mean: float, variance: float) -> float:
    """E|Z| of Z ~ N(mean, variance)."""
    return float(stats.foldnorm.mean(abs(mean) / math.sqrt(variance), scale=math.sqrt(variance)))


def test_energy_distance_of_four_numbers_by_hand() -> None:
    """x = 0, 1 and y = 3, 7: 2 * (3 + 7 + 2 + 6) / 4 - 1 - 4."""
    found = energy_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 7.0]))
    assert found.value == pytest.approx(4.0, rel=1e-14)


def test_energy_distance_is_unbiased() -> None:
    """E estimate = 2 E|X - Y| - E|X - X'| - E|Y - Y'|, summed over every sample of 2 and 3 points.

    An estimate with |x_i - x_i| = 0 in its means (a V-statistic) is off by half of E|X - X'|.
    """
    of_x, of_y = {0.0: 0.5, 1.0: 0.3, 3.0: 0.2}, {0.5: 0.6, 2.0: 0.4}

    def apart(one: dict[float, float], two: dict[float, float]) -> float:
        return sum(p * q * abs(a - b) for a, p in one.items() for b, q in two.items())

    exact = 2 * apart(of_x, of_y) - apart(of_x, of_x) - apart(of_y, of_y)
    mean = 0.0
    for x, y in product(product(of_x, repeat=2), product(of_y, repeat=3)):
        chance = math.prod(of_x[a] for a in x) * math.prod(of_y[b] for b in y)
        mean += chance * energy_distance(torch.tensor(x), torch.tensor(y)).value
    assert mean == pytest.approx(exact, rel=1e-12)
    assert apart(of_x, of_x) / 2 > 0.1


@pytest.mark.chance(4e-9, "an error half as large, or twice")
def test_energy_distance_states_an_honest_error() -> None:
    """1000 estimates between N(0, 1) and N(1, 1.5^2), 20 points each: |z| < 1 as often as it was.

    A normal law has 68.3%; with so few points it was 13,035 of 20,000 estimates from other seeds,
    half the error 7,491 of them and twice the error 17,633. The exact distance is that of folded
    normals.
    """
    exact = 2 * folded(1.0, 1 + 2.25) - folded(0.0, 2.0) - folded(0.0, 4.5)
    z = normals(0, 1000, 2, 20)
    estimates = [energy_distance(x, 1.0 + 1.5 * y) for x, y in z]
    bound = Count(len(z), known(13_035, 20_000, 1e-9), 1e-9)
    assert bound.holds(sum(abs(e.value - exact) < e.error for e in estimates))
    assert rare(bound.misses(0.40)) and rare(bound.misses(0.86))
    assert not bound.holds(sum(abs(e.value - exact) < e.error / 2 for e in estimates))
    assert not bound.holds(sum(abs(e.value - exact) < e.error * 2 for e in estimates))


def moments(s: float, n: int) -> tuple[float, float]:
    """Mean and variance of the energy distance of n normals N(0, I) of the plane from n of s^2 I.

    Hoeffding's parts of the estimate are uncorrelated: 2 sum_i g(x_i) / n of each sample, with
    g(x) = E|x - Y| - E|x - X'|, and the means over pairs of |a - b| less what is known of it by a
    or b alone. E|x - Y| is the mean of Rice's law; the midpoints of 4000 parts of the radii's laws.
    """
    part = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    radius, scale = (-2 * torch.log1p(-part)).sqrt().numpy(), {"x": 1.0, "y": s}

    def along(a: str, b: str) -> np.ndarray:
        """E|a - B| at the radii of a."""
        return np.asarray(stats.rice.mean(scale[a] * radius / scale[b], scale=scale[b]))

    def mean(a: str, b: str) -> float:
        return math.sqrt(math.pi / 2) * math.hypot(scale[a], scale[b])

    def left(a: str, b: str) -> float:
        squares = 2 * scale[a] ** 2 + 2 * scale[b] ** 2 + mean(a, b) ** 2
        return float(squares - (along(a, b) ** 2).mean() - (along(b, a) ** 2).mean())

    single = (along("x", "y") - along("x", "x")).var() + (along("y", "x") - along("y", "y")).var()
    pairs = 2 * (left("x", "x") + left("y", "y")) / (n * (n - 1)) + 4 * left("x", "y") / n**2
    return 2 * mean("x", "y") - mean("x", "x") - mean("y", "y"), 4 * float(single) / n + pairs


@pytest.mark.chance(2e-9, "a standard deviation of 1.5")
def test_energy_distance_tells_a_wrong_spread_from_a_right_one() -> None:
    """60 estimates on 200 draws each: 0.03 divides N(0, I) from N(0, 1.5^2 I), at 0.088.

    By the exact mean and variance and Cantelli's inequality, P(estimate - mean >= a) <= v / (v +
    a^2), an estimate of the one passes 0.03 at most once in 10, and of the other all but once in 5.
    """
    n, bar = 200, 0.03
    (none, spread), (exact, wide) = moments(1.0, n), moments(1.5, n)
    assert none == pytest.approx(0, abs=1e-12)
    x, y = normals(1, 60, n, 2), normals(2, 60, n, 2)
    bound = Count(60, (0.0, spread / (spread + bar**2)), 1e-9)
    same = [energy_distance(*pair).value > bar for pair in zip(x, y, strict=True)]
    other = [energy_distance(*pair).value > bar for pair in zip(x, 1.5 * y, strict=True)]
    assert bound.holds(sum(same)) and not bound.holds(sum(other))
    assert rare(bound.misses(1 - wide / (wide + (exact - bar) ** 2)))


@pytest.mark.parametrize(
    "distance", [lambda x, y: energy_distance(x, y).value, empirical_wasserstein2]
)
@pytest.mark.parametrize(("n", "scale"), [(10, 1.0), (200, 1.0), (200, 1e-3)])
@pytest.mark.parametrize("shift", [1e3, 1e7, 1e8])
def test_a_distance_does_not_depend_on_where_the_points_are(distance, n, scale, shift) -> None:
    """What moves is the rounding of x + shift; by matrix products it was 40% at 1e8, n = 200."""
    x, y = normals(4, 2, n, 3)
    x, y = scale * x, scale * (y + 0.5)
    moved = float(distance(x + shift, y + shift))
    assert moved == pytest.approx(float(distance(x, y)), abs=8 * shift * 2**-52)


def test_no_source_takes_distances_from_expanded_squares() -> None:
    """`torch.cdist` multiplies matrices above 25 points: decision 23."""
    root = Path(__file__).resolve().parents[2]
    for room in ("diffusion_math", "sd", "experiments"):
        for source in sorted((root / room).rglob("*.py")):
            for node in ast.walk(ast.parse(source.read_text())):
                if isinstance(node, ast.Attribute) and node.attr == "cdist":
                    pytest.fail(f"{source.relative_to(root)}: {ast.unparse(node)}")


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
