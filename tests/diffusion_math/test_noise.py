"""Noise: indexed by seed and step, replayable, independent of the batch, standard normal.

The random tests' seeds are the suite's, so a verdict is a function of the commit and of SUITE_SEED;
their thresholds hold for fresh seeds, so they do not depend on luck either.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.grid import karras, trailing
from diffusion_math.noise import (
    BrownianPath,
    UnitNoise,
    from_generator,
    from_seeds,
    start_noise,
    zeros,
)
from diffusion_math.schedule import VE, VPLinear
from diffusion_math.testing import strategies
from tests.support.chance import Distance, Mean, rare, shifted
from tests.support.distribution import Law, independent, line

seeds = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5, unique=True)
events = strategies.events(sides=(0, 4))
times = st.tuples(st.floats(0, 1000), st.floats(0, 1000)).filter(
    lambda p: not math.isclose(*p, rel_tol=1e-8)
)


def time(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@given(seeds, events, times, st.data())
def test_a_sample_does_not_depend_on_its_batch(
    seeds: list[int], event: tuple[int, ...], step: tuple[float, float], data: st.DataObject
) -> None:
    """Row i is a function of seeds[i], t, s: any subset, in any order, gives the same rows."""
    t, s = time(max(step)), time(min(step))
    whole = from_seeds(seeds)(torch.zeros(len(seeds), *event), t, s)
    assert torch.equal(whole, from_seeds(seeds)(torch.ones(len(seeds), *event), t, s))
    order = data.draw(st.permutations(range(len(seeds))))[: data.draw(st.integers(0, 5))]
    part = from_seeds([seeds[i] for i in order])(torch.zeros(len(order), *event), t, s)
    assert torch.equal(part, whole[list(order)])
    start = start_noise(seeds, event)
    assert start.shape == (len(seeds), *event)
    assert torch.equal(start_noise([seeds[i] for i in order], event), start[list(order)])


@given(times)
def test_steps_seeds_and_the_start_are_told_apart(step: tuple[float, float]) -> None:
    t, s = time(max(step)), time(min(step))
    x = torch.zeros(2, 16)
    z = from_seeds([1, 2])(x, t, s)
    others = [
        z.flip(0),  # another seed
        from_seeds([1, 2])(x, s, t),  # another order of times
        from_seeds([1, 2])(x, t + 1, s),
        from_seeds([1, 2])(x, t, s + 1e-9 * (1 + s)),
        start_noise([1, 2], (16,)),
    ]
    assert all(not torch.equal(z, other) for other in others)
    assert torch.equal(from_seeds([1])(x[:1], t, time(0.0)), from_seeds([1])(x[:1], t, time(-0.0)))


def test_the_last_bits_of_a_grid_do_not_change_its_noise() -> None:
    """A power's last bits differ from one CPU to another, and with them a grid's times."""
    x, noise = torch.zeros(1, 4), from_seeds([5])
    for grid in (karras(VE(), 18), trailing(VPLinear(), 30), time(0.1).expand(2)):
        for near in (grid * (1 + 2.0**-50), grid * (1 - 2.0**-50)):
            for step in zip(grid[:-1], grid[1:], near[:-1], near[1:], strict=True):
                t, s, t_near, s_near = step
                assert torch.equal(noise(x, t, s), noise(x, t_near, s_near))


def test_times_of_a_batch_and_dtypes() -> None:
    noise, x = from_seeds([3, 4]), torch.zeros(2, 5)
    t, s = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.5])
    both = noise(x, t, s)
    for i in range(2):
        assert torch.equal(both[i], noise(x, t[i], s[i])[i])
    for dtype in (torch.float64, torch.bfloat16):
        z = noise(x.to(dtype), t, s)
        assert z.dtype == dtype
        assert torch.equal(z, both.to(dtype))  # one draw, cast
        assert start_noise([3], (2,), dtype).dtype == dtype


SOURCES = {
    "seeds": lambda n, seed: from_seeds([seed])(torch.zeros(1, n), time(2.0), time(1.0))[0],
    "many seeds": lambda n, seed: from_seeds(range(seed, seed + n))(
        torch.zeros(n, 1), time(2.0), time(1.0)
    )[:, 0],
    "start": lambda n, seed: start_noise([seed], (n,))[0],
    "generator": lambda n, seed: from_generator(torch.Generator().manual_seed(seed))(
        torch.zeros(n), time(2.0), time(1.0)
    ),
    "path": lambda n, seed: BrownianPath((seed,), 3.0)(torch.zeros(1, n), time(2.0), time(0.3))[0],
}


@pytest.mark.chance(3e-8, "N(0.1, 1), N(0, 1.15^2) and the uniform of unit variance")
@pytest.mark.parametrize("name", SOURCES)
def test_draws_are_standard_normal(name: str) -> None:
    """Mean, variance and the whole distribution of 20000 draws."""
    n, law = 20_000, line()
    first, second, whole = (
        Mean(law, n, 1e-9),
        Mean(law.of(torch.square), n, 1e-9),
        Distance(n, 1e-9),
    )
    z = SOURCES[name](n, shifted(7)).double()
    assert first.holds(z.mean()) and second.holds(z.square().mean())
    assert whole.holds(torch.special.ndtr(z))
    assert rare(first.misses(law.of(lambda z: z + 0.1)))
    assert rare(second.misses(law.of(lambda z: (1.15 * z).square())))
    at = torch.linspace(-math.sqrt(3), math.sqrt(3), 1001, dtype=torch.float64)
    apart = torch.special.ndtr(at) - torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert rare(whole.misses(apart.abs().max().item()))
    uniform = (torch.special.ndtr(z) - 0.5) * math.sqrt(12)
    assert not whole.holds(torch.special.ndtr(uniform))


def products(r: float) -> Law:
    """The law of a b for standard normals a, b of correlation r, without the 1e-18 beyond 9."""
    a = line(9, 301)
    return independent(a, a, lambda a, b: a * (r * a + math.sqrt(1 - r * r) * b))


@pytest.mark.chance(2e-9, "a correlation of 0.1")
def test_different_steps_are_uncorrelated() -> None:
    """Twelve consecutive steps, 66 pairs: the mean product of 20000 draws of each."""
    n, x = 20_000, torch.zeros(1, 20_000)
    noise, bound = from_seeds([shifted(11)]), Mean(products(0.0), n, 1e-9 / 66)
    z = torch.cat([noise(x, time(k + 1.0), time(float(k))) for k in range(12)]).double()
    for one, other in itertools.combinations(z, 2):
        assert bound.holds((one * other).mean())
    assert rare(bound.misses(products(0.1)))


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 64), min_size=3, max_size=3, unique=True),
)
def test_a_brownian_path_adds_up(seed: int, nodes: list[int]) -> None:
    """W(t) - W(s) = (W(t) - W(u)) + (W(u) - W(s)): coarse and fine grids see one path. The wrong
    version, independent noise for each pair, misses by order 1. Rounding: float64."""
    s, u, t = (time(k / 64 * 5) for k in sorted(nodes))
    path, x = BrownianPath((seed,), 5.0), torch.zeros(1, 3, dtype=torch.float64)

    def increment(t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return path(x, t, s) * (t - s).sqrt()

    assert torch.allclose(increment(t, s), increment(t, u) + increment(u, s), atol=1e-12)
    fresh = from_seeds([seed])
    wrong = fresh(x, t, u) * (t - u).sqrt() + fresh(x, u, s) * (u - s).sqrt()
    assert not torch.allclose(fresh(x, t, s) * (t - s).sqrt(), wrong, atol=1e-3)


@pytest.mark.chance(2e-9, "a correlation of 0.1")
def test_brownian_increments_are_independent() -> None:
    """Seven increments, 21 pairs: the mean product of 20000 draws of each."""
    n = 20_000
    path, x = BrownianPath((shifted(5),), 1.0, levels=10), torch.zeros(1, n)
    bound = Mean(products(0.0), n, 1e-9 / 21)
    z = torch.cat([path(x, time((k + 1) / 7), time(k / 7)) for k in range(7)]).double()
    for one, other in itertools.combinations(z, 2):
        assert bound.holds((one * other).mean())
    assert rare(bound.misses(products(0.1)))


def test_a_path_does_not_depend_on_its_batch() -> None:
    x, t, s = torch.zeros(3, 2), time(0.7), time(0.2)
    whole = BrownianPath((1, 2, 3), 1.0)(x, t, s)
    assert torch.equal(BrownianPath((3, 1), 1.0)(x[:2], t, s), whole[[2, 0]])


@given(events, st.integers(1, 4), st.floats(0.1, 3))
def test_basis_reads_off_an_affine_chain(event: tuple[int, ...], steps: int, std: float) -> None:
    """x <- a x + b + c z, iterated: mean and covariance have the closed forms computed here. A
    start that is left out, or noise shared by two steps (c summed before squaring), fails."""
    grid = torch.arange(steps, -1, -1, dtype=torch.float64)
    basis = UnitNoise(grid, event)
    mean = torch.full(event, 2.0, dtype=torch.float64)
    x = basis.start(mean, std)
    a, b, c = 0.5, 0.25, 0.75
    m, variance, shared = 2.0, std**2, std
    for t, s in itertools.pairwise(grid):
        x = a * x + b + c * basis(x, t, s)
        m, variance, shared = a * m + b, a**2 * variance + c**2, a * shared + c
    size = math.prod(event)
    assert torch.allclose(basis.mean(x), torch.full(event, m, dtype=torch.float64))
    covariance = basis.covariance(x)
    assert torch.allclose(covariance, variance * torch.eye(size, dtype=torch.float64))
    assert size == 0 or abs(covariance[0, 0] - shared**2) > 1e-3
    assert size == 0 or abs(covariance[0, 0] - (variance - a ** (2 * steps) * std**2)) > 1e-6


def test_none_is_zeros() -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(zeros(x, time(1.0), time(0.0)), torch.zeros_like(x))


def test_a_generator_advances_and_repeats() -> None:
    x, t, s = torch.zeros(2, 3, dtype=torch.float64), time(1.0), time(0.0)
    noise = from_generator(torch.Generator().manual_seed(1))
    first = noise(x, t, s)
    assert first.dtype == torch.float64
    assert not torch.equal(first, noise(x, t, s))
    assert torch.equal(first, from_generator(torch.Generator().manual_seed(1))(x, t, s))


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    from_seeds([1])(torch.zeros(1, 4), time(1.0), time(0.0))
    start_noise([1], (4,))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "several", [np.arange(3), torch.arange(3), [*np.arange(3, dtype=np.uint64)]]
)
def test_seeds_may_be_an_array_of_whole_numbers(several: Any) -> None:
    x, t, s = torch.zeros(3, 2), time(1.0), time(0.5)
    assert torch.equal(from_seeds(several)(x, t, s), from_seeds(range(3))(x, t, s))
    assert torch.equal(start_noise(several, (2,)), start_noise(range(3), (2,)))
    assert BrownianPath(several, 1.0).seeds == (0, 1, 2)
    for bad in (
        np.zeros(3),
        torch.zeros(3),
        np.zeros((3, 2), int),
        torch.zeros(3, 2, dtype=torch.int),
    ):
        with pytest.raises(ValueError, match=r"^seeds: wanted a whole number of at least 0"):
            start_noise(bad, (2,))


def test_illegal_arguments() -> None:
    x, t, s = torch.zeros(2, 3), time(1.0), time(0.0)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=r"^seeds: "):
            from_seeds([seed])
        with pytest.raises(ValueError, match=r"^seeds: "):
            start_noise([seed], (2,))
        with pytest.raises(ValueError, match=r"^seeds: "):
            BrownianPath((seed,), 1.0)
    for noise in (from_seeds([1]), BrownianPath((1,), 1.0)):
        with pytest.raises(ValueError, match=r"^x: wanted a batch of 1"):
            noise(x, t, s)
    path = BrownianPath((1, 2), 1.0, levels=4)
    for bad in ((s, t), (t, t), (time(0.51), time(0.5))):
        with pytest.raises(ValueError, match=r"^t - s: "):
            path(x, *bad)
    with pytest.raises(ValueError, match=r"^t, s: "):
        path(x, time(1.1), s)
    with pytest.raises(ValueError, match=r"^T: "):
        BrownianPath((1,), 0.0)
    with pytest.raises(ValueError, match=r"^levels: "):
        BrownianPath((1,), 1.0, levels=0)
    basis = UnitNoise(torch.tensor([1.0, 0.5, 0.0]), (1,))
    with pytest.raises(ValueError, match=r"^t, s: wanted a step of the grid"):
        basis(torch.zeros(4, 1), t, s)
    with pytest.raises(ValueError, match=r"^x: wanted shape"):
        basis(torch.zeros(3, 1), t, time(0.5))
