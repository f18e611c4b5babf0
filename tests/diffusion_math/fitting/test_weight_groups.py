"""Rows for each group of channels: what they are, where they are exact, what is illegal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.grids import errors
from diffusion_math.fitting.weights import FinePath, fit_weights, fit_weights_and_grid
from diffusion_math.fitting.weights_by_ends import fit_weights_to_ends
from diffusion_math.grid import karras, uniform_log_snr
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import Discrete, VPLinear
from diffusion_math.solvers.linear import from_weights
from diffusion_math.solvers.registry import SOLVERS
from tests.support.mixtures import normal, seeded

GRID = torch.tensor([3.0, 2.0, 0.5, 0.0], dtype=torch.float64)


def apart(x, t):
    """A denoiser that looks at each channel alone, each in its own way: `(batch, 4, width)`."""
    rates = torch.tensor([0.3, 1.0, -0.7, 2.0], dtype=x.dtype)[: x.shape[1], None]
    return torch.sin(rates * x) * (1 + t)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_walk_of_groups_by_its_formula(groups):
    starts = normal(seeded(2), 5, 4, 3)
    weights = torch.stack([normal(seeded(3 + g), 3, 4).tril(1) for g in range(groups)], dim=2)
    each = weights.repeat_interleave(4 // groups, dim=2)[..., None]  # (steps, columns, 4, 1)
    x, seen = starts, []
    for i in range(3):
        seen.append(apart(x, GRID[i]))
        x = each[i, 0] * x + sum(each[i, 1 + j] * seen[j] for j in range(i + 1))
    found = final(from_weights(GRID, weights), apart, starts, GRID)
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)
    single = final(
        from_weights(GRID, weights), lambda x, t: apart(x, t).float(), starts.float(), GRID
    )
    assert single.dtype == torch.float32
    if groups == 1:
        same = final(from_weights(GRID, weights[..., 0]), apart, starts, GRID)
        assert torch.equal(same, found)


@settings(max_examples=25)
@given(
    groups=st.sampled_from([2, 4]),
    scale=st.sampled_from([math.inf, 1.0, 0.3]),
    seed=st.integers(0, 2**20),
)
def test_a_group_is_fitted_as_if_it_were_alone(groups, scale, seed):
    """Where the denoiser does not mix channels, nothing of another group is seen."""
    states = [normal(seeded(seed + k), 12, 4, 3) for k in range(4)]
    together = fit_weights(apart, states, GRID, scale, groups)
    assert together.shape == (3, 4, groups)
    for g, channels in enumerate(torch.arange(4).chunk(groups)):

        def alone(x, t, channels=channels):
            whole = torch.zeros(len(x), 4, 3, dtype=x.dtype)
            whole[:, channels] = x
            return apart(whole, t)[:, channels]

        own = fit_weights(alone, [state[:, channels] for state in states], GRID, scale)
        torch.testing.assert_close(together[..., g], own, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("per", [1, 2])
def test_each_group_is_exact_for_n_plus_one_variances(steps, per):
    """(weights.9): n steps and as many different variances in each group as (weights.8) allows."""
    schedule, groups = VPLinear(), 3
    many = torch.tensor([1.0, 0.02, 0.3, 3.0, 0.1, 0.6]).double()
    variances = torch.cat([many[: steps + per] * share for share in (1, 0.7, 0.4)])
    data = GaussianMixture(torch.zeros(1), torch.zeros(1, len(variances)), variances[None])
    denoise, grid = data.denoiser(schedule), uniform_log_snr(schedule, steps + 1, 0.9, 0.01)
    grid = grid[[*range(steps), -1]]

    def flow(x):
        start = float(grid[0])
        return [
            x if t == grid[0] else data.probability_flow(schedule, x, start, float(t)) for t in grid
        ]

    starts, others = (normal(seeded(seed), 30, len(variances)) for seed in (5, 6))
    weights = fit_weights(denoise, flow(starts), grid, groups=groups)
    found = errors(from_weights(grid, weights), denoise, others, flow(others)[-1], grid)
    assert (float(found.max()) < 1e-8) is (per == 1)
    one = errors(
        from_weights(grid, fit_weights(denoise, flow(starts), grid)),
        denoise,
        others,
        flow(others)[-1],
        grid,
    )
    assert float(one.median()) > 1e-5  # a row for all is not exact


def world():
    """Channels of different spread, correlated through the modes."""
    schedule = Discrete.scaled_linear()
    means = torch.tensor([[1.0, 0.2, -0.5, 0.1], [-1.0, 0.0, 0.5, 0.3]])
    spread = torch.tensor([[0.3, 0.02, 0.1, 1.0], [0.2, 0.05, 0.2, 0.5]])
    denoise = GaussianMixture(torch.zeros(2), means, spread).denoiser(schedule)
    grid = uniform_log_snr(schedule, 120)

    def path(seed):
        starts = normal(seeded(seed), 60, 4)
        states = trajectory(SOLVERS["dpmpp_3m"](schedule), denoise, starts, grid)
        return FinePath(grid, [state.x for state in states])

    return schedule, denoise, path(1), path(2), karras(schedule, 4)


@pytest.mark.usefixtures("unchecked")
def test_groups_grids_and_ends_together():
    """Own rows end nearer than one for all, nearer still on a fitted grid, and by their ends."""
    schedule, denoise, path, other, grid = world()

    def apart_of(nodes, weights, kept=other):
        start, end = kept.states[0], kept.states[-1]
        return float(errors(from_weights(nodes, weights), denoise, start, end, nodes).log().mean())

    states = path.on(schedule, grid)
    all_alike, own = (fit_weights(denoise, states, grid, 1.0, groups) for groups in (1, 4))
    assert apart_of(grid, own) < apart_of(grid, all_alike) - 0.1
    nodes = fit_weights_and_grid(schedule, denoise, path, grid, 1.0, rounds=4, groups=4)
    moved = fit_weights(denoise, path.on(schedule, nodes), nodes, 1.0, 4)
    assert apart_of(nodes, moved, path) < apart_of(grid, own, path) - 0.1
    ends = path.states[-1]
    nearer = fit_weights_to_ends(denoise, path.states[0], ends, grid, own, 2, 1.0, 6)
    assert nearer.shape == own.shape
    assert apart_of(grid, nearer, path) < apart_of(grid, own, path) - 0.1
    changed = (nearer - own) != 0
    assert changed[3].all(dim=1).tolist() == [True, False, False, True, True]
    assert not changed[3, 1:3].any()


@pytest.mark.usefixtures("unchecked")
def test_illegal_groups():
    states = [normal(seeded(k), 6, 4, 3) for k in range(4)]
    weights, flat = torch.zeros(3, 4, 3).double(), normal(seeded(1), 6)
    for call, message in (
        (lambda: fit_weights(apart, states, GRID, groups=0), "groups: wanted a whole number"),
        (
            lambda: fit_weights(apart, states, GRID, groups=3),
            "groups: wanted a divisor of 4 channels",
        ),
        (
            lambda: fit_weights(apart, [flat] * 4, GRID, groups=2),
            "groups: wanted a divisor of 1 channe",
        ),
        (
            lambda: final(from_weights(GRID, weights), apart, states[0], GRID),
            "groups: wanted a divisor of 4 channels, got 3",
        ),
        (lambda: from_weights(GRID, weights[..., None]), r"weights: wanted shape \(3, 4\), got"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()
