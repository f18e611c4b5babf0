"""Steps that keep known entries: their formulas, ends, and what they sample."""

import re

import pytest
import torch

from diffusion_math import gaussian, noise
from diffusion_math.inpainting import _systematic, joined, particles, repaint, replacement
from diffusion_math.inpainting_law import log_density
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import VE, RectifiedFlow
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import ddim, ddpm
from diffusion_math.solvers.step import State
from tests.support.chance import Cells, Count, rare, seeded
from tests.support.inpainted import (
    CORRELATED,
    MASK,
    MODES,
    SCHEDULE,
    exact_step,
    grid_to,
    of_gaussian,
)
from tests.support.tensors import f64, normal

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

T, S = f64(0.7)[0], f64(0.4)[0]
KNOWN = f64(1.0, 0.0)
DENOISE = CORRELATED.denoiser(SCHEDULE)
ALL, NONE = MASK | True, MASK & False


def test_joined_is_the_marginal_in_the_mask():
    """(inpainting.2): values of other entries have no effect, NaN among them; t = 0 is the data."""
    x, z = normal(3, 2).double(), normal(3, 2, seed=1).double()
    got = joined(SCHEDULE, x, T, f64(2.0, float("nan")), MASK, z)
    alpha, sigma = SCHEDULE(T)
    torch.testing.assert_close(got[:, 0], 2 * alpha + sigma * z[:, 0])
    assert torch.equal(got[:, 1], x[:, 1])
    clean = joined(SCHEDULE, x, 0, f64(2.0, 0.0), MASK, z)
    assert clean[:, 0].tolist() == [2.0] * 3


@pytest.mark.parametrize("make", [ddpm, ddim, dpmpp_2m])
def test_replacement_is_the_step_and_then_joined(make):
    """Two steps in a row: the others move by the solver, whose history is kept."""
    source, step = noise.from_seeds([3, 4]), make(SCHEDULE)
    x = normal(2, 2).double()
    wrapped = replacement(step, SCHEDULE, KNOWN, MASK)
    plain = state = State(x, T)
    for t, s in ((T, S), (S, f64(0.1)[0])):
        plain = step(DENOISE, plain, t, s, source)
        z = source(x, torch.zeros_like(s), s)
        plain = State(joined(SCHEDULE, plain.x, s, KNOWN, MASK, z), s, plain.history)
        state = wrapped(DENOISE, state, t, s, source)
        assert torch.equal(state.x, plain.x) and state.t == s
        assert len(state.history) == len(plain.history)


def test_repaint_goes_back_and_repeats():
    """U = 2 by hand: step, q(x_t | x_s), step; its last step, to 0, is made once."""
    first, again = noise.from_seeds([3, 4]), noise.from_seeds([13, 14])
    once = replacement(ddpm(SCHEDULE), SCHEDULE, KNOWN, MASK)
    step = repaint(ddpm(SCHEDULE), SCHEDULE, KNOWN, MASK, [again])
    start = State(normal(2, 2).double(), T)
    there = once(DENOISE, start, T, S, first)
    back = gaussian.transition(SCHEDULE, there.x, S, T).sample(again(there.x, S, T))
    wanted = once(DENOISE, State(back, T), T, S, again)
    assert torch.equal(step(DENOISE, start, T, S, first).x, wanted.x)
    zero = torch.zeros_like(S)
    ended = step(DENOISE, start, T, zero, first)
    assert torch.equal(ended.x, once(DENOISE, start, T, zero, first).x)


def test_one_particle_is_ddpm_beside_a_path():
    """A group of one: no choice; the path is q(k_s | k_t, k_0), the other entry is ddpm's."""
    source = noise.from_seeds([3, 4])
    start = State(normal(2, 2).double(), T)
    got = particles(SCHEDULE, KNOWN, MASK, 1)(DENOISE, start, T, S, source).x
    values = KNOWN.expand(2, 2)
    z = source(start.x, torch.zeros_like(S), S)
    path = gaussian.posterior(SCHEDULE, start.x, values, T, S).sample(z)
    assert torch.equal(got[:, 0], path[:, 0])
    assert torch.equal(got[:, 1], ddpm(SCHEDULE)(DENOISE, start, T, S, source).x[:, 1])


def test_a_particle_that_foresaw_the_path_is_chosen():
    """Two groups of two; in each, one particle predicts the path, the other is far off.

    Both places of a group take the right one's mean.
    """
    values = f64([1.0, 5.0], [9.0, -5.0], [9.0, 2.0], [1.0, 3.0])
    x = f64([0.3, 0.0], [0.3, 0.0], [-0.2, 0.0], [-0.2, 0.0])
    step = particles(SCHEDULE, KNOWN, MASK, 2)
    got = step(lambda x, t: values, State(x, T), T, S, lambda x, t, s: torch.full_like(x, 0.3)).x
    wanted = gaussian.posterior(SCHEDULE, x, values, T, S).sample(torch.full_like(x, 0.3))
    torch.testing.assert_close(got[:, 1], wanted[[0, 0, 3, 3], 1])
    assert torch.equal(got[::2, 0], got[1::2, 0])


def test_systematic_resampling_counts():
    """Floor or ceil of n w_i for every offset; over all offsets each place gets i with w_i.

    Wrong: points in order, whose first place has particle 0 whenever 4 w_0 >= 1.
    """
    weights = f64([0.3, 0.25, 0.45, 0.0], [1.0, 0.0, 0.0, 0.0])
    offsets = (torch.arange(1000).double() + 0.5) / 1000
    counts = []
    for u in offsets:
        rows = _systematic(weights, u.expand(2))
        assert rows[4:].tolist() == [4] * 4 and rows[:4].max() < 4
        counts.append(torch.nn.functional.one_hot(rows[:4], 4))
    counts, expected = torch.stack(counts).double(), 4 * weights[0]
    each = counts.sum(1)
    assert bool(((each >= expected.floor()) & (each <= expected.ceil())).all())
    torch.testing.assert_close(counts.mean(0), weights[:1].expand(4, 4), rtol=0, atol=2e-3)
    short = _systematic(f64([0.5, 0.5 - 1e-9]), f64(1 - 1e-12))  # the sum is below 1
    assert short.tolist() == [1, 0]


MAKERS = {
    "replacement": lambda mask: replacement(ddpm(SCHEDULE), SCHEDULE, KNOWN, mask),
    "repaint": lambda mask: repaint(
        ddpm(SCHEDULE), SCHEDULE, KNOWN, mask, [noise.from_seeds(range(10, 14))]
    ),
    "particles": lambda mask: particles(SCHEDULE, KNOWN, mask, 2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_mask_of_all_gives_the_known_values(name):
    source, grid = noise.from_seeds(range(4)), f64(1.0, 0.5, 0.2, 0.0)
    x = normal(1, 2).double().expand(4, 2)
    end = final(MAKERS[name](ALL), DENOISE, x, grid, source)
    assert torch.equal(end, KNOWN.expand(4, 2))


def test_a_mask_of_none_is_the_solver_itself():
    source, grid = noise.from_seeds(range(4)), f64(1.0, 0.5, 0.2, 0.0)
    x = normal(4, 2).double()
    wanted = [state.x for state in trajectory(ddpm(SCHEDULE), DENOISE, x, grid, source)]
    got = [state.x for state in trajectory(MAKERS["replacement"](NONE), DENOISE, x, grid, source)]
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


@pytest.mark.parametrize("schedule", [VE(), RectifiedFlow()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_schedules_and_dtypes_end_on_the_known_values(schedule, dtype):
    denoise, source = CORRELATED.denoiser(schedule), noise.from_seeds(range(4))
    grid = torch.tensor([1.0, 0.6, 0.3, 0.0]).double() * schedule.t_max
    x = noise.start_noise([0], (2,)).to(dtype).expand(4, 2)
    again = [noise.from_seeds(range(4, 8))]
    for step in (
        repaint(ddpm(schedule), schedule, KNOWN, MASK, again),
        particles(schedule, KNOWN, MASK, 4),
    ):
        end = final(step, denoise, x, grid, source)
        assert end.dtype == dtype and end.isfinite().all()
        assert end[:, 0].tolist() == [1.0] * 4


def test_samples_of_a_group_do_not_depend_on_other_groups():
    grid, x = f64(1.0, 0.5, 0.2, 0.0), normal(4, 2).double()
    x[:, 0] = x[[0, 0, 2, 2], 0]
    step = particles(SCHEDULE, KNOWN, MASK, 2)
    both = final(step, DENOISE, x, grid, noise.from_seeds(range(4)))
    alone = final(step, DENOISE, x[2:], grid, noise.from_seeds([2, 3]))
    assert torch.equal(both[2:], alone)


def test_the_mean_of_replacement_on_a_gaussian():
    """ddpm without noise is the mean of the recursion: (inpainting.11), to rounding."""
    grid = grid_to(0.2, 6)
    step = replacement(ddpm(SCHEDULE), SCHEDULE, KNOWN, MASK)
    alpha, _ = SCHEDULE(grid[0])
    x = torch.stack([alpha, torch.zeros_like(alpha)])[None]
    end = final(step, DENOISE, x, grid, noise.zeros)
    torch.testing.assert_close(end[0, 1], of_gaussian(1.0, grid, 1).mean)


BINS, DRAWS, COARSE = 15, 40_000, grid_to(0.3, 4)


def cells(repeats, nodes_per_bin=20):
    """Edges of equal cells, and what U's exact density expects of DRAWS samples there."""
    nodes, (log_p,) = log_density(MODES, 1.0, SCHEDULE, COARSE, (repeats,), BINS * nodes_per_bin)
    mass = (log_p.exp() * nodes.cell).reshape(BINS, -1).sum(1)
    edges = nodes.x[nodes_per_bin::nodes_per_bin, 0] - nodes.cell / 2
    kept = mass * DRAWS > 100
    first, last = int(kept.nonzero()[0]), int(kept.nonzero()[-1])
    merged = torch.cat(
        [mass[: first + 1].sum()[None], mass[first + 1 : last], mass[last:].sum()[None]]
    )
    return edges[first:last], DRAWS * merged / merged.sum()


@pytest.mark.chance(4e-9, "the other number of repetitions: replacement for RePaint")
@pytest.mark.parametrize("repeats", [1, 4])
def test_samples_have_the_exact_density(repeats):
    """Exact kernels in the wrappers: Pearson's sum in cells of u, against (inpainting.9)."""
    edges, expected = cells(repeats)
    bound = Cells(expected, 1e-9)
    generator = seeded(repeats)
    step = exact_step(MODES, generator)
    source = noise.from_generator(generator)
    again = [source] * (repeats - 1)
    step = repaint(step, SCHEDULE, KNOWN, MASK, again)
    x = torch.randn(DRAWS, 2, generator=generator, dtype=torch.float64)
    x = joined(SCHEDULE, x * SCHEDULE(COARSE[0])[1], COARSE[0], KNOWN, MASK, source(x, T, S))
    end = final(step, MODES.denoiser(SCHEDULE), x, COARSE, source)
    places = torch.bucketize(end[:, 1].contiguous(), edges)
    assert bound.holds(torch.bincount(places, minlength=len(expected)).double())
    nodes, (other,) = log_density(MODES, 1.0, SCHEDULE, COARSE, (5 - repeats,), 300)
    at = torch.bucketize(nodes.x[:, 0].contiguous(), edges)
    mass = torch.zeros_like(expected).index_add(0, at, other.exp() * nodes.cell)
    assert rare(bound.misses(DRAWS * mass / mass.sum()))


@pytest.mark.chance(4e-9, "replacement's samples")
def test_particles_sample_the_target():
    """3000 groups of 64, 30 steps: P(u > 0.8) of the target is 1/2, to 0.03 of kernel and count.

    u given k = 1 is N(0.8, 0.36). Replacement's mean is lower.
    """
    groups, count, grid = 3000, 64, grid_to(0.05, 30)
    bound = Count(groups, (0.47, 0.53), 1e-9)
    generator = seeded(5)
    source = noise.from_generator(generator)
    x = torch.randn(groups * count, 2, generator=generator, dtype=torch.float64)
    x[:, 0] = x[::count, 0].repeat_interleave(count)
    alpha, sigma = SCHEDULE(grid[0])
    x = sigma * x + alpha * KNOWN
    end = final(particles(SCHEDULE, KNOWN, MASK, count), DENOISE, x, grid, source)[::count, 1]
    middle = 0.8 * SCHEDULE(grid[-1])[0]
    assert bound.holds(int((end > middle).sum()))
    wrong = of_gaussian(1.0, grid, 1)
    share = float(torch.special.ndtr((wrong.mean - middle) / wrong.variance.sqrt()))
    assert rare(bound.misses(share))


X = State(torch.ones(2, 2).double(), T)


def moved(step, state=X):
    return step(DENOISE, state, T, S, noise.zeros)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: joined(SCHEDULE, X.x, T, KNOWN[:1], MASK, X.x),
            "known: wanted shape (2,), got shape (1,)",
        ),
        (
            lambda: moved(replacement(ddpm(SCHEDULE), SCHEDULE, KNOWN, MASK[None])),
            "mask: wanted shape (2,), got shape (1, 2)",
        ),
        (
            lambda: moved(repaint(ddpm(SCHEDULE), SCHEDULE, KNOWN, MASK.double(), [])),
            "mask: wanted booleans, got torch.float64",
        ),
        (
            lambda: particles(SCHEDULE, KNOWN, MASK, 0),
            "count: wanted a whole number of at least 1, got 0",
        ),
        (
            lambda: moved(particles(SCHEDULE, KNOWN, MASK, 3)),
            "x: wanted a batch of groups of 3, got a batch of 2",
        ),
        (
            lambda: moved(particles(SCHEDULE, KNOWN, MASK, 2), State(f64([1, 0], [2, 0]), T)),
            "x: wanted equal known entries in each group of 2, got different ones",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + r"\Z"):
        call()
