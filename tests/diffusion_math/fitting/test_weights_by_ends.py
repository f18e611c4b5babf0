"""Weights, and nodes with them, moved by the ends: nearer, exact where they can be, for less."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting import weights_by_ends
from diffusion_math.fitting.grids import (
    distances,
    errors,
    fit_grid_of,
    in_medians,
    robust_least_squares,
)
from diffusion_math.fitting.weights import fit_weights
from diffusion_math.fitting.weights_by_ends import (
    _moved_nodes,
    fit_alternating,
    fit_weights_to_ends,
)
from diffusion_math.grid import karras, trailing, uniform_log_snr
from diffusion_math.sample import final
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.linear import from_weights, rescaled_weights
from diffusion_math.solvers.registry import SOLVERS
from tests.support.mixtures import TWO, mixture, normal, seeded, states_of


def problem(steps=5, name="dpmpp_2m", groups=1):
    """Starts, their ends, a grid, and a known solver's own weights on it."""
    schedule = VPLinear()
    denoise, starts = TWO.denoiser(schedule), normal(seeded(7), 60, 4)
    known = SOLVERS[name](schedule)
    ends = final(
        SOLVERS["dpmpp_3m"](schedule), denoise, starts, uniform_log_snr(schedule, 120, None, 0.0)
    )
    grid = karras(schedule, steps)
    first = fit_weights(denoise, states_of(known, denoise, starts, grid), grid, groups=groups)
    return schedule, denoise, starts, ends, grid, first


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("scale", [math.inf, 1.0])
def test_weights_fitted_to_ends_end_nearer(scale):
    _, denoise, starts, ends, grid, first = problem()
    found = fit_weights_to_ends(denoise, starts, ends, grid, first, 2, scale, 6)
    before = errors(from_weights(grid, first), denoise, starts, ends, grid)
    after = errors(from_weights(grid, found), denoise, starts, ends, grid)
    if scale == math.inf:
        assert after.square().mean() < before.square().mean() / 4
    else:
        assert after.log().mean() < before.log().mean() - 1
    changed = (found - first) != 0
    assert changed[4].tolist() == [True, False, False, False, True, True]
    assert changed[0].tolist() == [True, True, False, False, False, False]
    assert not found.triu(2).count_nonzero()


@pytest.mark.usefixtures("unchecked")
def test_ends_alone_are_exact_where_rows_can_be():
    """Two variances in one step: the least loss is nothing, from any weights."""
    schedule = VPLinear()
    grid = torch.tensor([0.9, 0.1], dtype=torch.float64)
    data = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.tensor([[1.0, 0.05]]))
    denoise, starts = data.denoiser(schedule), normal(seeded(12), 20, 2)
    ends = data.probability_flow(schedule, starts, 0.9, 0.1)
    weights = fit_weights_to_ends(denoise, starts, ends, grid, torch.tensor([[0.1, 0.4]]).double())
    assert float(errors(from_weights(grid, weights), denoise, starts, ends, grid).max()) < 1e-8
    exact = fit_weights(denoise, [starts, ends], grid)
    torch.testing.assert_close(weights, exact, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("unchecked")
def test_nodes_move_in_medians_of_the_walk_and_for_so_many_rounds():
    """They are `fit_grid_of`'s with the weights rescaled; another scale or round moves others."""
    schedule, denoise, starts, ends, grid, weights = problem(4)

    def sample(nodes):
        return final(
            from_weights(nodes, rescaled_weights(schedule, weights, grid, nodes)),
            denoise,
            starts,
            nodes,
        )

    def by_hand(scale, rounds):
        unit = in_medians(scale, distances(sample(grid), ends))
        return fit_grid_of(sample, schedule, ends, grid, unit, rounds=rounds)

    found = _moved_nodes(schedule, denoise, starts, ends, grid, weights, 1.0, 2)
    torch.testing.assert_close(found, by_hand(1.0, 2), rtol=0, atol=0)
    for scale, rounds in ((math.inf, 2), (1.0, 30)):
        assert float((found - by_hand(scale, rounds)).abs().max()) > 1e-4


def test_the_search_of_nodes_is_told_its_unit_and_its_rounds(monkeypatch):
    schedule, denoise, starts, ends, grid, weights = problem(4)
    seen = []

    def fit(sample, schedule, ends, grid, unit, **options):
        seen.append((unit, options))
        return grid

    monkeypatch.setattr(weights_by_ends, "fit_grid_of", fit)
    _moved_nodes(schedule, denoise, starts, ends, grid, weights, math.inf, 7)
    assert seen == [(math.inf, {"rounds": 7})]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("groups", [1, 2])
def test_derivatives_from_a_row_on_are_those_of_whole_walks(groups):
    """Beside the same with every nudged walk made whole; and what it costs, which is less."""
    schedule, _, starts, ends, grid, first = problem(4, groups=groups)
    asked, rounds = 0, 6

    def denoise(x, t):
        nonlocal asked
        asked += 1
        return TWO.denoiser(schedule)(x, t)

    found = fit_weights_to_ends(denoise, starts, ends, grid, first, 2, math.inf, rounds)
    rows = [(i, c) for i in range(4) for c in (0, *range(max(1, i), i + 2))]
    places = [(i, c, g) for i, c in rows for g in range(groups)]
    # For the unit and at every try a walk. For slopes two more, each row's own call once, and from
    # there on a walk for each of its weights.
    slopes = 2 * 4 + 4 + sum(3 - i for i, *_ in places)
    assert asked <= 4 + rounds * (4 + slopes)
    wide = first.reshape(4, 5, groups)

    def moved(numbers):
        weights = wide.clone()
        for place, number in zip(places, numbers, strict=True):
            weights[place] = number
        return weights

    def apart(numbers):
        return final(from_weights(grid, moved(numbers)), denoise, starts, grid) - ends

    numbers = torch.stack([wide[place] for place in places])
    plain, _ = robust_least_squares(apart, numbers, math.inf, rounds, 1e-5)
    assert float((plain - numbers).abs().max()) > 1e-2
    torch.testing.assert_close(found.reshape(wide.shape), moved(plain), rtol=1e-6, atol=1e-8)


@settings(max_examples=30)
@given(
    schedule=st.sampled_from([VPLinear(), Discrete.scaled_linear(), VPCosine(), RectifiedFlow()]),
    steps=st.integers(2, 7),
    makers=st.permutations([trailing, uniform_log_snr, karras]),
)
def test_ddim_carried_to_another_grid_is_ddim(schedule, steps, makers):
    """(weights.10)"""
    data = mixture("diagonal", (6,), 3, seed=steps)
    denoise, starts, step = data.denoiser(schedule), normal(seeded(3), 40, 6), SOLVERS["ddim"]
    grid, other = (maker(schedule, steps) for maker in makers[:2])
    known = step(schedule)
    weights = fit_weights(denoise, states_of(known, denoise, starts, grid), grid)
    there = rescaled_weights(schedule, weights, grid, other)
    found = final(from_weights(other, there), denoise, starts, other)
    torch.testing.assert_close(found, final(known, denoise, starts, other), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        rescaled_weights(schedule, weights, grid, grid), weights, rtol=0, atol=0
    )


def test_carried_by_its_formula():
    """VE: alpha is 1, so a is times sigma's ratio, b times 1 minus it; the last a stays."""
    schedule, groups = VE(), normal(seeded(4), 3, 4, 2)
    grid = torch.tensor([1.0, 0.7, 0.3, 0.0], dtype=torch.float64)
    other = torch.tensor([1.0, 0.6, 0.2, 0.0], dtype=torch.float64)
    found = rescaled_weights(schedule, groups, grid, other)
    for i in range(3):
        r, there = (float(schedule(g[i + 1])[1] / schedule(g[i])[1]) for g in (grid, other))
        first = groups[i, 0] * (there / r if r else 1)
        torch.testing.assert_close(found[i, 0], first, rtol=1e-12, atol=0)
        rest = groups[i, 1:] * ((1 - there) / (1 - r))
        torch.testing.assert_close(found[i, 1:], rest, rtol=1e-12, atol=0)
    inner = rescaled_weights(schedule, groups, grid, other - torch.tensor([0, 0, 0, -0.1]))
    assert torch.equal(inner[2, 0], groups[2, 0])  # one of the two ends is clean data
    outer = rescaled_weights(schedule, groups, grid - torch.tensor([0, 0, 0, -0.1]), other)
    assert torch.equal(outer[2, 0], groups[2, 0])  # or the other one


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("scale", [math.inf, 1.0])
def test_nodes_and_weights_in_turn_end_nearer_than_weights_alone(scale):
    schedule, denoise, starts, ends, _, _ = problem()
    grid, known = trailing(schedule, 4), SOLVERS["dpmpp_2m"](schedule)
    first = fit_weights(denoise, states_of(known, denoise, starts, grid), grid)
    kept = grid.clone(), first.clone()

    def of(nodes, weights):
        e = errors(from_weights(nodes, weights), denoise, starts, ends, nodes)
        return float(e.log().mean() if scale == 1 else e.square().mean().log() / 2)

    alone = of(grid, fit_weights_to_ends(denoise, starts, ends, grid, first, 2, scale, 30))
    given = (schedule, denoise, starts, ends, grid, first, 2, scale, 6)
    once, twice = (fit_alternating(*given, turns) for turns in (1, 2))
    assert torch.equal(grid, kept[0]) and torch.equal(first, kept[1])
    for nodes, weights in (once, twice):
        assert nodes[[0, -1]].equal(grid[[0, -1]]) and bool((nodes.diff() < 0).all())
        assert weights.shape == first.shape
        assert not torch.equal(nodes, grid)
    assert of(*once) < alone - 0.5
    assert of(*twice) < of(*once)
    more = fit_alternating(schedule, denoise, starts, ends, *once, 2, scale, 6, 1)
    assert torch.equal(more[0], twice[0]) and torch.equal(more[1], twice[1])


def test_a_scale_in_medians():
    found, ends = torch.tensor([[1.0, 1.0], [3.0, 3.0], [0.0, 8.0]]), torch.zeros(3, 2)
    apart = distances(found, ends)
    assert apart.tolist() == pytest.approx([1, 3, math.sqrt(32)])
    assert in_medians(0.5, apart) == pytest.approx(1.5)
    assert in_medians(math.inf, apart) == math.inf
    assert in_medians(0.5, 0 * apart) == in_medians(math.inf, 0 * apart) == math.inf


def test_walks_that_end_right_already_stay():
    """The median error is 0 and no unit: all errors count alike, and there is none."""
    schedule, denoise, starts, _, grid, first = problem(4)
    ends = final(from_weights(grid, first), denoise, starts, grid)
    assert torch.equal(fit_weights_to_ends(denoise, starts, ends, grid, first, scale=1.0), first)
    nodes, weights = fit_alternating(schedule, denoise, starts, ends, grid, first, scale=1.0)
    assert torch.equal(nodes, grid) and torch.equal(weights, first)


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are its subject
def test_illegal_requests():
    schedule, denoise, starts, ends, grid, weights = problem(4)

    def never(x, t):
        raise AssertionError("no work is done before arguments are looked at")

    def turned(**given):
        return fit_alternating(schedule, denoise, starts, ends, grid, weights, **given)

    for call, message in (
        (
            lambda: fit_weights_to_ends(denoise, starts, ends[:2], grid, weights),
            "ends: wanted shape",
        ),
        (
            lambda: fit_weights_to_ends(denoise, starts, ends, grid, weights, 0),
            "order: wanted a whole",
        ),
        (
            lambda: fit_weights_to_ends(denoise, starts, ends, grid, weights, scale=-1),
            "scale: wanted",
        ),
        (
            lambda: fit_weights_to_ends(denoise, starts, ends, grid, weights, rounds=0),
            "rounds: wanted",
        ),
        (
            lambda: fit_weights_to_ends(denoise, starts, ends, grid, weights[1:]),
            "weights: wanted shape",
        ),
        (lambda: turned(turns=0), "turns: wanted a whole number of at least 1"),
        (lambda: turned(scale=0.0), "scale: wanted a number above 0"),
        (lambda: turned(rounds=0), "rounds: wanted a whole number"),
        (
            lambda: fit_alternating(schedule, never, starts, ends[:1], grid, weights),
            "ends: wanted shape",
        ),
        (
            lambda: fit_alternating(schedule, never, starts, ends, grid, weights, 0),
            "order: wanted a whole number",
        ),
        (lambda: rescaled_weights(schedule, weights[1:], grid, grid), "weights: wanted shape"),
        (lambda: rescaled_weights(schedule, weights, grid, grid[1:]), "other: wanted shape"),
        (
            lambda: rescaled_weights(schedule, weights, grid, grid.flip(0)),
            "other: wanted a non-empty",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()
