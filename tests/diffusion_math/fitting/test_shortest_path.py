"""Shortest paths against all paths, the KL bound against its sum, walks against the recursion."""

from itertools import combinations, pairwise

import pytest
import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.shortest_path import dynamic_programming, kl_upper_bound, shortest
from diffusion_math.grid import uniform_log_snr
from diffusion_math.noise import zeros
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.solvers.exponential import dpmpp_2m
from diffusion_math.solvers.one_step import euler, heun
from diffusion_math.solvers.step import State
from tests.support.mixtures import normal, seeded

DATA = GaussianMixture(
    torch.zeros(2), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.tensor([0.05, 0.2])
)


def test_shortest_is_the_best_of_all_paths():
    costs = torch.rand(7, 7, generator=seeded(1), dtype=torch.float64)
    costs = torch.where(torch.ones(7, 7).triu(1) > 0, costs, torch.nan)  # never read
    for steps in range(1, 7):
        every = [(0, *inner, 6) for inner in combinations(range(1, 6), steps - 1)]
        best = min(every, key=lambda path: sum(float(costs[i, j]) for i, j in pairwise(path)))
        assert shortest(costs, steps) == list(best)


def test_shortest_of_costs_that_are_least_where_steps_are_equal():
    place = torch.arange(13, dtype=torch.float64)
    costs = (place - place[:, None]).square()
    assert shortest(costs, 4) == [0, 3, 6, 9, 12]
    assert shortest(costs, 12) == list(range(13))


def test_shortest_of_costs_below_the_rounding_of_one():
    """Costs may be of any size: what a path begins with is 0, or 1e-18 would be lost in it."""
    costs = torch.rand(9, 9, generator=seeded(3), dtype=torch.float64)
    assert shortest(1e-18 * costs, 4) == shortest(costs, 4)


def test_the_bound_of_a_denoiser_of_time_alone():
    """Nothing random: c_ij sums D (f_low - f_i)^2 (1 / r_low^2 - 1 / r_high^2) / 2 over cells."""
    schedule, nodes = VPLinear(), torch.tensor([1.0, 0.7, 0.4, 0.2, 0.1], dtype=torch.float64)
    f = [0.3, 1.0, -0.5, 2.0, 0.0]

    def denoise(x_t, t):
        return torch.full_like(x_t, f[nodes.tolist().index(float(t))])

    found = kl_upper_bound(schedule, denoise, normal(seeded(2), 3, 2), nodes, seeded(3))
    alphas, sigmas = schedule(nodes)
    r = (sigmas / alphas).tolist()
    for i in range(5):
        for j in range(5):
            cells = range(i, j)
            parts = [2 * (f[k + 1] - f[i]) ** 2 * (r[k + 1] ** -2 - r[k] ** -2) / 2 for k in cells]
            assert float(found[i, j]) == pytest.approx(sum(parts), rel=1e-10, abs=1e-14)


def test_the_bound_walks_one_path_of_the_forward_process():
    """D(x, t) = x / alpha_t = y: increments of variance r_k^2 - r_{k+1}^2, from clean data up."""
    schedule, nodes = VPLinear(), torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    x = normal(seeded(4), 5, 2)

    def denoise(x_t, t):
        return x_t / schedule(t)[0]

    found = kl_upper_bound(schedule, denoise, x, nodes, seeded(5))
    alphas, sigmas = schedule(nodes)
    r, generator = sigmas / alphas, seeded(5)
    z = [normal(generator, 5, 2) for _ in range(3)]
    up = [(r[1] ** 2 - r[2] ** 2).sqrt() * z[1], (r[0] ** 2 - r[1] ** 2).sqrt() * z[2]]
    weights = (r[1:] ** -2 - r[:-1] ** -2) / 2
    apart = [up[1].square().sum(1).mean(), (up[0] + up[1]).square().sum(1).mean()]
    assert float(found[0, 1]) == pytest.approx(float(apart[0] * weights[0]), rel=1e-9)
    last = apart[0] * weights[0] + apart[1] * weights[1]
    assert float(found[0, 2]) == pytest.approx(float(last), rel=1e-9)
    # And the lowest node is noised too.
    seen = []

    def remember(x_t, t):
        seen.append(x_t)
        return x_t

    kl_upper_bound(schedule, remember, x, nodes, seeded(5))
    lowest = alphas[2] * (x + r[2] * z[0])
    assert torch.allclose(seen[0], lowest, rtol=1e-12) and len(seen) == 3


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6, 1e-9])
def test_the_bound_of_predictions_that_hardly_differ(apart):
    """33 nodes, predictions 1 + apart f_k: by products of matrices this was off by a factor of 300.

    The sum of differences by hand; the predictions' own rounding is 2e-16 / apart of each.
    """
    schedule = VPLinear()
    nodes = schedule.time(torch.linspace(-4, 4, 33, dtype=torch.float64))
    f = torch.sin(torch.arange(33, dtype=torch.float64))
    at = {float(node): 1 + apart * f_k for node, f_k in zip(nodes, f, strict=True)}

    def denoise(x_t, t):
        return torch.full_like(x_t, at[float(t)])

    found = kl_upper_bound(schedule, denoise, normal(seeded(2), 3, 2), nodes, seeded(3))
    alphas, sigmas = schedule(nodes)
    r = sigmas / alphas
    weights = (1 / r[1:].square() - 1 / r[:-1].square()) / 2
    told = torch.stack(list(at.values()))
    each = 2 * (told[None, 1:] - told[:, None]).square() * weights
    wanted = torch.cat([torch.zeros(33, 1).double(), each], dim=1).triu(1).cumsum(1)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    exact = 2 * apart**2 * float(((f[1:] - f[0]).square() * weights).sum())
    assert float(found[0, -1]) == pytest.approx(exact, rel=1e-14 / apart + 1e-12)


def teacher(schedule, nodes, starts):
    """The fine walk at the nodes, by Heun's steps with 4 between two."""
    parts = [torch.linspace(float(a), float(b), 5)[:-1] for a, b in pairwise(nodes)]
    grid = torch.cat([*parts, nodes[-1:]]).double()
    states = [
        state.x for state in trajectory(heun(schedule), DATA.denoiser(schedule), starts, grid)
    ]
    return states[::4]


def naive(step, denoise, states, nodes, steps):
    """The recursion as it is written, every step walked anew."""
    count = len(nodes)
    best = {(0, 0): (State(states[0], nodes[0]), (0,))}
    for k in range(1, steps + 1):
        for j in range(k, count):
            made = []
            for i in range(k - 1, j):
                if (k - 1, i) in best:
                    state, path = best[k - 1, i]
                    state = step(denoise, state, nodes[i], nodes[j], zeros)
                    made.append((float((state.x - states[j]).square().mean()), state, (*path, j)))
            if made:
                _, state, path = min(made, key=lambda one: one[0])
                best[k, j] = state, path
    return list(best[steps, count - 1][1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", [euler, dpmpp_2m, heun])
def test_the_walk_follows_its_recursion(make):
    schedule = VPLinear()
    nodes, starts = uniform_log_snr(schedule, 6), normal(seeded(6), 8, 2)
    states, denoise = teacher(schedule, nodes, starts), DATA.denoiser(schedule)
    for steps in range(1, 7):
        found = dynamic_programming(make(schedule), denoise, states, nodes, steps)
        wanted = naive(make(schedule), denoise, states, nodes, steps)
        assert found.tolist() == nodes[wanted].tolist()


@pytest.mark.usefixtures("unchecked")
def test_two_steps_are_the_best_two():
    schedule = VPLinear()
    nodes, starts = uniform_log_snr(schedule, 9), normal(seeded(7), 8, 2)
    states, denoise = teacher(schedule, nodes, starts), DATA.denoiser(schedule)
    step = euler(schedule)

    def off(i):
        last = final(step, denoise, starts, nodes[[0, i, 9]])
        return float((last - states[-1]).square().mean())

    best = min(range(1, 9), key=off)
    assert dynamic_programming(step, denoise, states, nodes, 2).tolist() == (
        nodes[[0, best, 9]].tolist()
    )


def test_a_node_is_asked_about_once():
    schedule = VPLinear()
    nodes, starts = uniform_log_snr(schedule, 5), normal(seeded(8), 2, 2)
    states, denoise, asked = teacher(schedule, nodes, starts), DATA.denoiser(schedule), []

    def counted(x_t, t):
        asked.append(float(t))
        return denoise(x_t, t)

    dynamic_programming(euler(schedule), counted, states, nodes, 3)
    assert sorted(asked, reverse=True) == nodes[[0, 1, 2, 2, 3, 3, 4]].tolist()


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are its subject
def test_illegal_requests():
    schedule, nodes = VPLinear(), torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    x, denoise = normal(seeded(9), 2, 2), DATA.denoiser(schedule)
    with pytest.raises(ValueError, match=r"^costs: wanted a square"):
        shortest(torch.zeros(3, 4, dtype=torch.float64), 2)
    for steps in (0, 3):
        with pytest.raises(ValueError, match=r"^steps: wanted a whole number of at least 1 and at"):
            shortest(torch.zeros(3, 3, dtype=torch.float64), steps)
        with pytest.raises(ValueError, match=r"^steps: wanted a whole number of at least 1 and at"):
            dynamic_programming(euler(schedule), denoise, [x, x, x], nodes, steps)
    with pytest.raises(ValueError, match=r"^states: wanted 3, one a node, got 2"):
        dynamic_programming(euler(schedule), denoise, [x, x], nodes, 1)
    with pytest.raises(ValueError, match=r"^nodes: wanted a non-empty, strictly"):
        dynamic_programming(euler(schedule), denoise, [x, x, x], nodes.flip(0), 1)
    with pytest.raises(ValueError, match=r"^nodes: wanted a non-empty, strictly"):
        kl_upper_bound(schedule, denoise, x, nodes.flip(0), seeded(1))
    ends = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    for some in (ends[:2], ends[1:]):
        with pytest.raises(ValueError, match=r"^nodes: wanted alpha, sigma > 0"):
            kl_upper_bound(RectifiedFlow(), denoise, x, some, seeded(1))


def test_the_walk_begins_at_the_first_state_and_no_step_has_no_length():
    """A step that goes astray but out of the first node: to stay would be nearest."""
    nodes = torch.tensor([1.0, 0.8, 0.6, 0.3, 0.1], dtype=torch.float64)
    states = [torch.full((2, 1), 10.0 * k, dtype=torch.float64) for k in range(5)]
    first = []

    def step(denoise, state, t, s, noise):
        if t == s:
            return State(state.x, s, state.history)
        if t == nodes[0]:
            first.append(state.x)
            return State(states[nodes.tolist().index(float(s))], s, state.history)
        return State(states[nodes.tolist().index(float(s))] + 1, s, state.history)

    picked = dynamic_programming(step, lambda x, t: x, states, nodes, 3)
    assert len(picked) == 4 and bool((picked.diff() < 0).all())
    assert all(x.equal(states[0]) for x in first)


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are its subject
def test_messages_say_what_was_given():
    costs = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"costs: wanted a square, got \(2, 3\)"):
        shortest(costs, 1)
    nodes = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"nodes: wanted alpha, sigma > 0, got .*0\.5"):
        kl_upper_bound(RectifiedFlow(), lambda x, t: x, torch.ones(1, 1), nodes, seeded(1))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_steps_are_made_from_the_state_s_own_time_and_the_last_to_the_last_node(steps):
    """Step k comes from nodes that k - 1 steps reach, and leaves nodes for those to come."""
    nodes, made = torch.tensor([1.0, 0.8, 0.6, 0.3, 0.1], dtype=torch.float64), []

    def step(denoise, state, t, s, noise):
        assert state.t == t > s
        made.append((float(t), float(s)))
        return State(state.x, s)

    states = [torch.zeros(1, 1, dtype=torch.float64)] * 5
    dynamic_programming(step, lambda x, t: x, states, nodes, steps)
    count, left = 5, nodes.tolist()
    wanted = [
        (left[i], left[j])
        for k in range(1, steps + 1)
        for i in (range(k - 1, count - steps + k - 1) if k > 1 else [0])
        for j in (range(i + 1, count - steps + k) if k < steps else [4])
    ]
    assert sorted(made) == sorted(wanted)


def test_of_equals_the_first_is_taken():
    """Every step lands on its node's state: a node's way leads over the earliest nodes."""
    nodes = torch.tensor([1.0, 0.8, 0.6, 0.3, 0.1], dtype=torch.float64)
    states = [torch.full((2, 1), 10.0 * k, dtype=torch.float64) for k in range(5)]

    def step(denoise, state, t, s, noise):
        return State(states[nodes.tolist().index(float(s))], s)

    found = dynamic_programming(step, lambda x, t: x, states, nodes, 3)
    assert found.tolist() == [1.0, 0.8, 0.6, 0.1]
