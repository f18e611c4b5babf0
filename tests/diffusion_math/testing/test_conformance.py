"""The single checks of grids, levels and last noise: what they count, and what they say of it."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

from diffusion_math.schedule import RectifiedFlow
from diffusion_math.testing import Sampler, UnsupportedError
from diffusion_math.testing.conformance import (
    Finding,
    crashed,
    finite,
    grid_faults,
    idle,
    image_to_image,
    levels,
    residual_noise,
)
from diffusion_math.testing.problems import POINT
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes have tests of their own

PATH = RectifiedFlow()
"""alpha = 1 - t and sigma = t, for t from 0 to 1."""


def even(n):
    return torch.linspace(1, 0, n + 1, dtype=torch.float64)


def exactly(denoise, x, grid, noise):
    """The same direction from the denoiser's point at every level."""
    x0 = denoise(x, grid[0])
    z = (x - (1 - grid[0]) * x0) / grid[0]
    for s in grid[1:]:
        yield (1 - s) * x0 + s * z


def subject(grid=even, sample=exactly, grouped=False):
    return Sampler("mine", PATH, sample, grid, grouped=grouped)


def raised(error):
    raise error


def given(grids):
    """The grids by their numbers of steps; an error in the place of one is raised."""

    def grid(n):
        if isinstance(grids[n], Exception):
            raised(grids[n])
        return torch.as_tensor(grids[n], dtype=torch.float64)

    return grid


def fault(n, *nodes, grouped=False):
    """What is said of one grid where n steps are asked for."""
    found = grid_faults(subject(given({n: nodes}), grouped=grouped), (n,))
    sound = found == Finding(0.0, None, "every grid is sound", 0)
    assert sound or found == Finding(1.0, n, found.words, 0)
    return found.words


REFUSAL = UnsupportedError("no such number of steps")
CRASH = KeyError("lost")
LOST = f"KeyError: 'lost' (test_conformance.py, line {raised.__code__.co_firstlineno + 1})"
SOUND = "every grid is sound"


@pytest.mark.parametrize(
    ("nodes", "grouped", "words"),
    [
        ((1, 0.75, 0.5, 0.25, 0), False, SOUND),
        ((0.75, 0.5, 0.25, 0.125, 0.0625), False, SOUND),
        ((1, 0.75, 0.5, 0), False, "3 steps where 4 were asked for"),
        ((1, 0.75, 0.5, 0.25, 0.125, 0), False, "5 steps where 4 were asked for"),
        ((1, 0.75, 0.5, 0.25, 0), True, SOUND),
        ((1, 0.75, 0.5, 0), True, SOUND),
        ((1, 0), True, SOUND),
        ((1,), True, "0 steps where 4 were asked for"),
        ((1, 0.75, 0.5, 0.25, 0.125, 0), True, "5 steps where 4 were asked for"),
    ],
)
def test_a_grid_of_four_steps_has_five_nodes_or_fewer_where_steps_are_grouped(
    nodes, grouped, words
):
    assert fault(4, *nodes, grouped=grouped) == words


@pytest.mark.parametrize("time", [math.nan, math.inf])
def test_a_time_that_is_not_finite_is_told(time):
    assert fault(2, 1, time, 0) == "a time that is not finite"


def test_the_first_step_that_rises_is_told():
    """Not one that stays, which is no fault of a grid."""
    assert fault(5, 1, 1, 0.5, 0.75, 0.25, 0.375) == "step 3 goes from t = 0.5 to 0.75"
    assert fault(3, 1, 0.5, 0.5, 0) == fault(2, 0.5, 0.5, 0.5) == SOUND


def test_times_beyond_the_schedule_are_told():
    assert fault(2, 1.5, 0.5, 0) == "times 1.5 to 0 where 0 to 1 are valid"
    assert fault(2, 1, 0.5, -0.25) == "times 1 to -0.25 where 0 to 1 are valid"


def test_faults_of_grids_are_counted_and_the_first_is_told():
    grids = {1: REFUSAL, 2: (1, 0.5, 0), 3: (1, 0), 4: CRASH, 5: REFUSAL, 6: (1,)}
    mine = subject(given(grids))
    assert grid_faults(mine, grids) == Finding(3.0, 3, "1 steps where 3 were asked for", 2)
    assert grid_faults(mine, (5, 4, 3)) == Finding(2.0, 4, LOST, 1)
    assert grid_faults(mine, (2,)) == Finding(0.0, None, SOUND, 0)


def test_a_crash_is_told_in_one_line_of_at_most_120_characters():
    assert crashed(ValueError("lost \n  and gone")) == "ValueError: lost and gone"
    assert crashed(ValueError("x" * 200)) == "ValueError: " + "x" * 108


def test_steps_of_no_length_are_counted_and_the_first_is_told():
    grids = {1: CRASH, 2: (1, 0.5, 0), 4: (1, 0.5, 0.5, 0.5, 0), 3: (1, 1, 0.5, 0)}
    mine = subject(given(grids))
    assert idle(mine, grids) == Finding(2.0, 4, "step 2 stays at t = 0.5")
    assert idle(mine, (2,)) == Finding(0.0, None, "every step has a length")


def moved(k=2, mean=0.0, spread=0.0, left=0.0):
    """Exact but for the state after step k: its mean shifted, its deviation stretched by a share,
    or more of the start's direction left in it."""

    def sample(denoise, x, grid, noise):
        x0 = denoise(x, grid[0])
        z = (x - (1 - grid[0]) * x0) / grid[0]
        for one, s in enumerate(grid[1:], 1):
            if one == k:
                yield (1 - s) * x0 + mean + (s * (1 + spread) + left) * z
            else:
                yield (1 - s) * x0 + s * z

    return sample


@pytest.mark.parametrize(
    ("last", "off", "error"),
    [
        (0.5, {"mean": 0.01}, 0.02),
        (0.5, {"mean": -0.01}, 0.02),
        (0.5, {"spread": 0.1}, 0.1),
        (0.5, {"spread": -0.1}, 0.1),
        (0.004, {"mean": 0.001}, 0.1),
        (0, {"mean": 0.001}, 0.1),
        (0, {"left": 0.03}, 0.03),
    ],
)
def test_an_error_of_a_level_is_relative_to_its_deviation(last, off, error):
    """That of a mean to 0.01 where the deviation is smaller."""
    found = levels(subject(given({2: (1, 0.75, last)}), moved(2, **off)), (2,))
    assert found.worst == pytest.approx(error, rel=1e-9)
    assert (found.steps, found.words) == (2, f"step 2 of 2, into t = {last:g}")


def test_one_coordinate_that_is_off_is_enough():
    for k, off in ((2, {"mean": f64(0.0, 0.01)}), (1, {"spread": f64(0.02, 0.0)})):
        found = levels(subject(given({2: (1, 0.5, 0.25 * k)}), moved(k, **off)), (2,))
        assert found.worst == pytest.approx(0.02, rel=1e-9)
        assert found.words == f"step {k} of 2, into t = 0.5"


def test_a_last_state_alone_has_the_level_of_the_last_time():
    def last(denoise, x, grid, noise):
        return list(moved(3, spread=0.1)(denoise, x, grid, noise))[-1]

    mine = subject(given({3: (1, 0.75, 0.5, 0.25), 4: (1, 0.75, 0.5, 0.25, 0.125)}), last)
    found = levels(mine, (3,))
    assert found.worst == pytest.approx(0.1, rel=1e-9)
    assert found.words == "step 3 of 3, into t = 0.25"
    assert levels(mine, (4,)).worst < 1e-15


def test_the_worst_level_is_told_of_all_numbers_of_steps():
    wide, near = (1, 0.75, 0.5, 0.25), (1, 0.75, 0.125)
    grids = {1: REFUSAL, 3: wide, 2: near, 4: REFUSAL, 5: (1, 0.75, 0.5, 0.25, 0.1, 0)}
    mine = subject(given(grids), moved(2, mean=0.01))
    found = levels(mine, grids)
    assert found.worst == pytest.approx(0.08, rel=1e-9)
    assert (found.steps, found.words, found.refused) == (2, "step 2 of 2, into t = 0.125", 2)
    assert levels(mine, (3,)).words == "step 2 of 3, into t = 0.5"


def test_levels_that_are_exact_are_told_so():
    assert levels(subject(), (1,)) == Finding(0.0, None, "every level is exact", 0)


def test_a_crash_is_an_infinite_error_of_levels():
    mine = subject(given({1: REFUSAL, 2: CRASH, 3: (1, 0.75, 0.5, 0)}))
    assert levels(mine, (3, 1, 2, 3)) == Finding(math.inf, 2, LOST, 1)


@pytest.mark.parametrize("first", [{"left": 1e200}, {"mean": math.nan}])
def test_of_levels_that_are_not_finite_the_first_is_told(first):
    """1e200 squared is an infinite variance."""

    def sample(denoise, x, grid, noise):
        states = list(moved(2, **first)(denoise, x, grid, noise))
        return [states[0] + 0.01, states[1], states[2] + math.nan]

    found = levels(subject(even, sample), (3,))
    assert not math.isfinite(found.worst)
    assert found.words == "step 2 of 3, into t = 0.333333"


def test_what_is_not_a_number_is_worse_than_what_comes_later():
    def sample(denoise, x, grid, noise):
        yield from moved(2, mean=math.nan if len(grid) == 3 else 0.01)(denoise, x, grid, noise)

    for counts in ((2, 3, 4), (3, 2, 4)):
        for look in (levels, residual_noise):
            found = look(subject(even, sample), counts)
            assert math.isnan(found.worst) and found.steps == 2


@pytest.mark.parametrize(
    ("part", "steps"), [(1.0, 10), (0.75, 8), (0.5, 5), (0.34, 3), (0.1, 1), (0.01, 1)]
)
def test_a_strength_is_the_share_of_the_last_steps_that_is_run(part, steps):
    seen = []

    def sample(denoise, x, grid, noise):
        seen.append((x, grid))
        return exactly(denoise, x, grid, noise)

    levels(subject(even, sample), (10,), part)
    for x, grid in seen:
        assert torch.equal(grid, even(10)[-1 - steps :])
        assert torch.equal(x[0], (1 - grid[0]) * POINT)


def by_start(**off):
    """Off by a mean in the last step, by the time that a run begins at."""

    def sample(denoise, x, grid, noise):
        mean = off[f"t{float(grid[0]):g}"]
        if mean is None:
            raise UnsupportedError("no such strength")
        yield from moved(len(grid) - 1, mean)(denoise, x, grid, noise)

    return sample


def test_the_worst_strength_is_told():
    parts = (0.25, 0.5, 0.75)
    for worst in (0.002, math.nan):
        mine = subject(even, by_start(**{"t0.25": 0.001, "t0.5": worst, "t0.75": 0.001}))
        found = image_to_image(mine, 4, parts)
        assert found.worst == pytest.approx(100 * worst, rel=1e-9, nan_ok=True)
        assert (found.steps, found.refused) == (4, 0)
        assert found.words == "strength 0.5: step 2 of 2, into t = 0"
    mine = subject(even, by_start(**{"t0.25": None, "t0.5": 0.001, "t0.75": None}))
    assert image_to_image(mine, 4, parts).refused == 2
    assert image_to_image(subject(), 1) == Finding(0.0, None, "every level is exact", 0)


def test_the_most_noise_on_clean_data_is_told():
    """Of a sampler that gives its start back; above 0 noise is in order."""
    grids = {1: CRASH, 2: (1, 0.75, 0.5), 3: (0.2, 0), 4: (0.3, 0.1, 0), 5: (0.25, 0)}
    mine = subject(given(grids), lambda denoise, x, grid, noise: x)
    found = residual_noise(mine, grids)
    assert found.worst == pytest.approx(0.3, rel=1e-13)
    assert (found.steps, found.refused) == (4, 0)
    assert found.words == "noise of standard deviation 0.3 on clean data"
    assert residual_noise(subject(), (1, 2, 3)) == Finding(
        0.0, None, "no noise is left on clean data"
    )


@pytest.mark.parametrize("exact", [True, False])
def test_a_level_that_is_off_is_no_noise_where_none_is_claimed(exact):
    """0.4 of the start is left, and 0.3 of the last normal; 0.5 together."""

    def sample(denoise, x, grid, noise, last=0.3):
        for t, s in pairwise(grid):
            z = noise(x, t, s)
        return denoise(x, t) + 0.4 * (x - x[:1]) + last * z

    mine = Sampler("mine", PATH, sample, even, noisy=True, exact=exact)
    wanted = 0.5 if exact else 0.3
    assert residual_noise(mine, (1, 3)).worst == pytest.approx(wanted, rel=1e-12)
    quiet = replace(mine, sample=partial(sample, last=0.0))
    assert residual_noise(quiet, (1, 3)).worst == pytest.approx(0.4 if exact else 0.0)


def test_runs_that_are_not_finite_are_counted_and_the_first_is_told():
    grids = {1: REFUSAL, 2: CRASH, 3: even(3), 4: even(4), 5: REFUSAL}

    def sample(denoise, x, grid, noise):
        bad = (2, 3) if len(grid) == 5 else ()
        return [x / 0 if k in bad else x for k in range(1, len(grid))]

    mine = subject(given(grids), sample)
    assert finite(mine, grids) == Finding(2.0, 2, LOST, 2)
    assert finite(mine, (4, 2, 3)) == Finding(2.0, 4, "step 2 is not finite", 0)
    assert finite(mine, (3,)) == Finding(0.0, None, "every state is finite", 0)


def test_runs_that_are_to_be_finite_have_a_denoiser_and_noise_of_zero():
    seen = []

    def sample(denoise, x, grid, noise):
        seen.append((x, denoise(x, grid[0]), noise(x, grid[0], grid[1])))
        return exactly(denoise, x, grid, noise)

    assert finite(subject(given({2: (0.3, 0.1, 0)}), sample), (2,)).worst == 0
    [(x, x0, z)] = seen
    assert torch.equal(x, f64([0.3, 0.3]))
    assert torch.equal(x0, torch.zeros_like(x)) and torch.equal(z, torch.zeros_like(x))
