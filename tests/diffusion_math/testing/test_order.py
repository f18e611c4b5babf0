"""What the ladders measure, on subjects whose errors are written down: no sampling is done."""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch

from diffusion_math.grid import trailing
from diffusion_math.noise import BrownianPath, zeros
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.testing import Sampler, order
from diffusion_math.testing.convergence import fit_order
from diffusion_math.testing.order import (
    cut,
    flow_order,
    ladder,
    running_order,
    start_order,
    strong_order,
    weak_order,
)
from diffusion_math.testing.problems import GAUSSIAN, MIXTURE, flow
from tests.support.tensors import f64

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes have tests of their own

SCHEDULE = VPLinear()


def grid_of(*levels, end=(), schedule=SCHEDULE):
    """Nodes at these log-SNRs, and times after them."""
    return torch.cat([schedule.time(f64(*levels)), f64(*end)])


def even(n, low=-4.0, high=2.0):
    """n nodes, evenly from one log-SNR to another."""
    return [low + (high - low) * k / (n - 1) for k in range(n)]


@dataclass
class Subject:
    """A sampler of stated states: `states(x, grid)`; it keeps what it was called with."""

    states: object
    calls: list = field(default_factory=list)

    def __call__(self, denoise, x, grid, noise):
        self.calls.append((denoise, x, grid, noise))
        return self.states(x, grid)

    def sampler(self, grid=None, **how):
        """On its own grids where they are given, else a sampler of any grid."""
        own = grid or (lambda n: trailing(SCHEDULE, n))
        return Sampler("subject", SCHEDULE, self, own, any_grid=grid is None, **how)


# The grids.


@pytest.mark.parametrize(("n", "nodes"), [(1, (0, 1)), (4, (0, 1, 2, 3, 4)), (5, range(6))])
def test_the_grids_are_smoothly_uneven_in_log_snr(n, nodes):
    """From -4 to 3, where the part u of the steps has gone u + u (1 - u) / 4 of the way."""
    [grid] = ladder(Subject(None).sampler(), (n,))
    u = f64(*nodes) / n
    wanted = -4 + 7 * (u + u * (1 - u) / 4)
    assert torch.allclose(SCHEDULE.log_snr(grid), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("n", "nodes"), [(1, (0, 1)), (4, (0, 1.4, 2, 3.4, 4)), (5, (0, 1.4, 2, 3.4, 4, 5))]
)
def test_uneven_grids_have_every_other_node_moved_by_four_tenths_of_a_step(n, nodes):
    [grid] = ladder(Subject(None).sampler(), (n,), uneven=True)
    wanted = -4 + 7 * f64(*nodes) / n
    assert torch.allclose(SCHEDULE.log_snr(grid), wanted, rtol=0, atol=1e-9)


def test_a_sampler_on_its_own_grids_is_not_put_on_uneven_ones():
    subject = Subject(None).sampler(lambda n: grid_of(*even(n + 1)))
    assert [len(grid) for grid in ladder(subject, (2, 3))] == [3, 4]
    said = "^uneven: wanted False for a sampler on its own grids, got True$"
    with pytest.raises(ValueError, match=said):
        ladder(subject, (2, 3), uneven=True)


def test_a_node_where_the_error_is_taken_is_compared(monkeypatch):
    grid = grid_of(0.0, 1.0, 2.0, 4.0)
    monkeypatch.setattr(order, "STOP", float(SCHEDULE.log_snr(grid)[2]))
    assert torch.equal(cut(SCHEDULE, grid), grid[:3])


def test_two_nodes_at_least_are_compared():
    grid = grid_of(3.5, 4.0, 5.0)
    assert torch.equal(cut(SCHEDULE, grid), grid[:2])


# The order against the exact flow.


def test_the_flow_order_is_of_the_distance_to_the_exact_flow():
    """A subject that is off by h^2, and shows its last state alone: errors, sizes and inputs."""
    subject = Subject(lambda x, grid: flow(SCHEDULE, grid[-1:])[0] + (7 / (len(grid) - 1)) ** 2)
    found = flow_order(subject.sampler(), (4, 8, 16))
    h = (7 / 4, 7 / 8, 7 / 16)
    assert found.sizes == pytest.approx(h) and found.order == pytest.approx(2)
    assert found.errors == pytest.approx([one**2 for one in h])
    for (denoise, x, grid, noise), wanted in zip(
        subject.calls, ladder(subject.sampler(), (4, 8, 16)), strict=True
    ):
        assert torch.equal(grid, wanted) and noise is zeros
        assert torch.equal(x, flow(SCHEDULE, grid[:1])[0]) and x.shape == (16, 2)
        t = SCHEDULE.time(f64(0.5))[0]
        assert torch.equal(denoise(x, t), MIXTURE.posterior_mean(SCHEDULE, x, t))


@pytest.mark.parametrize(("measure", "calls"), [(flow_order, 1), (weak_order, 2)])
def test_an_order_is_measured_on_uneven_steps_where_that_is_asked(measure, calls):
    subject = Subject(lambda x, grid: x)
    measure(subject.sampler(), (4, 8, 16), True)
    called = [grid for _, _, grid, _ in subject.calls[::calls]]
    wanted = ladder(subject.sampler(), (4, 8, 16), uneven=True)
    assert all(map(torch.equal, called, wanted)) and len(called) == 3


def off_by(node, errors):
    """States on the exact flow but for an error at each of some nodes, in units of h^2."""

    def states(x, grid):
        h = 6 / (len(grid) - node - 1)
        exact = flow(SCHEDULE, grid.clamp(min=SCHEDULE.t_min))[1:]
        off = f64(*[100.0] * (len(grid) - 1 - len(errors)), *errors) * h**2
        return list(exact + off[:, None, None])

    return states


def test_on_a_sampler_s_own_grid_the_error_is_told_between_two_nodes():
    """h^2 at log-SNR 2 and 4 h^2 at 4 are 2 h^2 at 3; what is elsewhere does not count."""
    subject = Subject(off_by(2, [1.0, 4.0, 100.0]))
    found = flow_order(subject.sampler(lambda n: grid_of(*even(n), 4.0, 6.0)), (4, 7, 13))
    assert found.sizes == pytest.approx([2, 1, 0.5])
    assert found.errors == pytest.approx([2 * h**2 for h in (2, 1, 0.5)])
    assert [len(grid) for _, _, grid, _ in subject.calls] == [6, 9, 15]


@pytest.mark.parametrize("end", [(0.0,), (SCHEDULE.t_min,), (SCHEDULE.t_min, 0.0)])
def test_where_sampling_ends_is_no_node_to_compare(end):
    """The error is that of the node before; a grid of two steps is one of all states too."""
    subject = Subject(off_by(len(end), [1.0, *[100.0] * len(end)]))
    found = flow_order(subject.sampler(lambda n: grid_of(*even(n), end=end)), (2, 4, 7))
    assert found.sizes == pytest.approx([6, 2, 1])
    assert found.errors == pytest.approx([36, 4, 1])


def test_a_grid_of_one_step_is_compared_at_its_end():
    """Of one step there is one state, which is all of them: at t_min, as nothing is before."""

    def grid(n):
        return grid_of(*even(n), end=(SCHEDULE.t_min,))

    subject = Subject(lambda x, grid: [x * 0 + one for one in flow(SCHEDULE, grid)[1:]])
    found = flow_order(subject.sampler(grid=grid_from_one(grid)), (1, 4, 7))
    assert found.sizes[0] == pytest.approx(float(SCHEDULE.log_snr(SCHEDULE.t_min)) + 4)
    assert found.order == math.inf


def grid_from_one(grid):
    """The same grids, of one step for n = 1."""
    return lambda n: grid_of(-4.0, end=(SCHEDULE.t_min,)) if n == 1 else grid(n)


def test_an_error_of_nothing_has_no_logarithm():
    """Beside an error of 0 the node before is told."""
    assert order._at_stop(f64(2.0, 4.0), [0.5, 0.0]) == 0.5
    assert order._at_stop(f64(2.0, 4.0), [0.0, 0.5]) == 0.0
    assert order._at_stop(f64(2.0, 6.0), [16.0, 1.0]) == pytest.approx(8)


def test_a_sampler_that_draws_noise_has_no_flow():
    said = "^sampler: wanted one that draws no noise, got subject$"
    with pytest.raises(ValueError, match=said):
        flow_order(Subject(None).sampler(noisy=True))


@pytest.mark.parametrize("measure", [flow_order, running_order, start_order])
def test_on_its_own_grids_a_sampler_shows_all_states(measure):
    subject = Subject(lambda x, grid: x).sampler(lambda n: grid_of(*even(n + 1)))
    with pytest.raises(ValueError, match=r"^subject: wanted all states, got the last alone$"):
        measure(subject, (4, 8, 16))


# The weak order.


def moved(grid, factor, first, last):
    """Frobenius's norm of what the covariance is off, and the mean's, when x is scaled."""
    mean, covariance = GAUSSIAN.marginal(SCHEDULE, grid[first]).moments()
    wanted, spread = GAUSSIAN.marginal(SCHEDULE, grid[last]).moments()
    return float((factor**2 * covariance - spread).norm() + (factor * mean - wanted).norm())


def test_the_weak_order_is_of_covariance_and_mean():
    """A subject that stays where it starts, and shows its last state alone."""
    subject = Subject(lambda x, grid: x)
    found = weak_order(subject.sampler(noisy=True), (4, 8, 16))
    grids = ladder(subject.sampler(), (4, 8, 16))
    assert found.sizes == pytest.approx([7 / 4, 7 / 8, 7 / 16])
    assert found.errors == pytest.approx([moved(grid, 1, 0, -1) for grid in grids])
    called = [grid for _, _, grid, _ in subject.calls[::2]]
    assert all(map(torch.equal, called, grids)) and len(called) == 3


def test_on_its_own_grid_a_sampler_s_law_is_told_at_the_last_node_before_the_end():
    """The k-th state is k times the start; the grid goes on to t_min, which is not compared."""
    subject = Subject(lambda x, grid: [k * x for k in range(1, len(grid))])
    sampler = subject.sampler(lambda n: grid_of(*even(n), end=(SCHEDULE.t_min,)), noisy=True)
    found = weak_order(sampler, (4, 7, 13))
    assert found.sizes == pytest.approx([2, 1, 0.5])
    wanted = [moved(sampler.grid(n), n - 1, 0, n - 1) for n in (4, 7, 13)]
    assert found.errors == pytest.approx(wanted)
    assert [len(grid) for _, _, grid, _ in subject.calls[::2]] == [5, 8, 14]


# The order of single steps.


def stepped(errors):
    """Each step is exact, from where the one before has ended, but for an error of its own."""

    def states(x, grid):
        schedule = RectifiedFlow() if float(grid[0]) == 1 else SCHEDULE
        for k, (t, s) in enumerate(pairwise(grid)):
            x = GAUSSIAN.probability_flow(schedule, x, t, s) + errors(k, len(grid) - 1)
            yield x

    return states


def less_one(sizes, errors, floor):
    """The fit of a local error: an order less, and so are its bounds and its trend."""
    found = fit_order(sizes, errors, floor)
    less = {name: getattr(found, name) - 1 for name in ("order", "low", "high", "trend")}
    return replace(found, **less)


def alike(found, wanted):
    for name in ("order", "low", "high", "trend", "sizes", "errors"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name)), name
    assert found.floor == wanted.floor


def test_the_running_order_is_of_the_middle_third_of_the_steps():
    """Of 12 nodes the steps 4 to 7; the error of step k is 2^k / n^3, and a bit for n = 5."""
    subject = Subject(stepped(lambda k, n: 2.0**k * (n**-3 + (0.01 if n == 5 else 0))))
    sampler = subject.sampler()
    found = running_order(sampler, (5, 8, 11))
    errors, sizes = [], []
    for n, first, last, grid in zip(
        (5, 8, 11), (2, 3, 4), (3, 5, 7), ladder(sampler, (5, 8, 11)), strict=True
    ):
        squares = [4.0**k for k in range(first, last + 1)]
        unit = n**-3 + (0.01 if n == 5 else 0)
        errors.append(unit * math.sqrt(sum(squares) / len(squares)))
        levels = SCHEDULE.log_snr(grid)
        sizes.append(float(levels[last + 1] - levels[first]) / (last + 1 - first))
    alike(found, less_one(sizes, errors, 0))
    called = [grid for _, _, grid, _ in subject.calls]
    assert all(map(torch.equal, called, ladder(sampler, (5, 8, 11)))) and len(called) == 3
    denoise, x, _, noise = subject.calls[0]
    t = SCHEDULE.time(f64(0.5))[0]
    assert noise is zeros and torch.equal(denoise(x, t), GAUSSIAN.posterior_mean(SCHEDULE, x, t))


def test_the_start_order_is_of_the_first_step():
    subject = Subject(stepped(lambda k, n: 5.0 if k else n**-2 + (0.01 if n == 4 else 0)))
    found = start_order(subject.sampler(), (4, 8, 16))
    grids = ladder(subject.sampler(), (4, 8, 16))
    sizes = [float(SCHEDULE.log_snr(grid)[:2].diff()) for grid in grids]
    alike(found, less_one(sizes, [4**-2 + 0.01, 8**-2, 16**-2], 0))


def test_from_pure_noise_the_first_step_has_the_mean_size():
    """Its own log-SNR starts at -inf: that of the steps after it is told."""
    flat = RectifiedFlow()

    def grid(n):
        return torch.cat([f64(1.0), grid_of(*even(n), schedule=flat)])

    subject = Subject(stepped(lambda k, n: 5.0 if k else n**-2))
    found = start_order(replace(subject.sampler(grid), schedule=flat), (4, 7, 13))
    assert found.sizes == pytest.approx([2, 1, 0.5])
    assert found.errors == pytest.approx([4**-2, 7**-2, 13**-2])


@pytest.mark.parametrize("measure", [running_order, start_order])
def test_grids_that_are_all_first_step_or_last_are_passed_over(measure):
    """Of two nodes before the end, or still at pure noise after a step; of three they count."""
    flat = RectifiedFlow()

    def grid(n):
        early = {1: (1.0,), 2: (1.0, 1.0), 3: (1.0,)}.get(n, (1.0,))
        levels = {1: [-4.0], 2: even(5), 3: [-4.0, 2.0]}.get(n) or even(n)
        return torch.cat([f64(*early), grid_of(*levels, end=(0.0,), schedule=flat)])

    subject = Subject(stepped(lambda k, n: n**-2.0))
    found = measure(replace(subject.sampler(grid), schedule=flat), (1, 2, 3, 7, 13))
    assert found.errors == pytest.approx([3**-2, 8**-2, 14**-2])
    assert [len(grid) for _, _, grid, _ in subject.calls] == [4, 9, 15]


# The strong order.


def test_the_strong_order_is_of_the_distance_to_eight_times_as_many_steps():
    """A subject whose end is h^2, whatever the path: 64 paths from the exact flow, one source."""
    subject = Subject(lambda x, grid: torch.full_like(x, (7 / (len(grid) - 1)) ** 2))
    found = strong_order(subject.sampler(noisy=True), (4, 8, 16))
    sizes = [7 / 4, 7 / 8, 7 / 16]
    assert found.sizes == pytest.approx(sizes)
    assert found.errors == pytest.approx([h**2 - (7 / 128) ** 2 for h in sizes])
    grids = ladder(subject.sampler(), (128, 4, 8, 16))
    path, t, s = BrownianPath((0,), 1.0), f64(0.75)[0], f64(0.5)[0]
    for (denoise, x, grid, noise), wanted in zip(subject.calls, grids, strict=True):
        assert torch.equal(grid, wanted)
        assert torch.equal(x, flow(SCHEDULE, grid[:1], 64)[0])
        assert torch.equal(denoise(x, t), MIXTURE.posterior_mean(SCHEDULE, x, t))
        assert torch.equal(noise(x, t, s), path(x[None], t, s)[0])


def test_the_strong_order_has_a_floor():
    """Distances below 30 times the sampler's precision are rounding."""
    subject = Subject(lambda x, grid: torch.full_like(x, (7 / (len(grid) - 1)) ** 2))
    floored = subject.sampler(noisy=True, precision=(7 / 8) ** 2 / 30)
    found = strong_order(floored, (4, 8, 16), 2)
    assert found.floor and found.order == math.inf
    assert not strong_order(subject.sampler(noisy=True, precision=1e-4), (4, 8, 16), 2).floor


def test_the_strong_order_is_of_a_sampler_that_takes_any_grid():
    subject = Subject(None).sampler(lambda n: grid_of(*even(n + 1)), noisy=True)
    said = "^sampler: wanted one that takes any grid, got subject$"
    with pytest.raises(ValueError, match=said):
        strong_order(subject)
