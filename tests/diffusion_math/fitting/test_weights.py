"""Fitted solvers: every linear solver is one, least squares by its own definition, exact cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.grids import errors
from diffusion_math.fitting.weights import FinePath, fit_weights, fit_weights_and_grid
from diffusion_math.grid import karras, trailing, uniform_log_snr
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.solvers.linear import from_weights
from diffusion_math.solvers.registry import SOLVERS
from tests.support.mixtures import TWO, mixture, normal, seeded, states_of

SCHEDULES = [VPLinear(), Discrete.scaled_linear(), VE(), VPCosine()]
LINEAR = [
    "ddim",
    "euler",
    "dpmpp_2m",
    "dpm_solver_2m",
    "unipc",
]  # one call in their first steps too


def fine(schedule, denoise, starts, steps=120, start=None, end=0.0):
    """The flow by a third-order walk of many steps."""
    grid = uniform_log_snr(schedule, steps, start, end)
    return FinePath(grid, states_of(SOLVERS["dpmpp_3m"](schedule), denoise, starts, grid))


def test_a_walk_by_its_formula():
    """Rows of given numbers, the recursion written out; what is right of the row is not read."""
    grid = torch.tensor([3.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    weights = normal(seeded(1), 3, 4).tril(1)
    starts, asked = normal(seeded(2), 5, 2, 3), []

    def denoise(x, t):
        asked.append(float(t))
        return torch.sin(x) * t

    x, seen = starts, []
    for i in range(3):
        seen.append(torch.sin(x) * grid[i])
        x = weights[i, 0] * x + sum(weights[i, 1 + j] * seen[j] for j in range(i + 1))
    found = final(from_weights(grid, weights), denoise, starts, grid)
    torch.testing.assert_close(found, x, rtol=1e-13, atol=1e-13)
    assert asked == [3.0, 2.0, 0.5]


@settings(max_examples=40)
@given(
    name=st.sampled_from(LINEAR),
    schedule=st.sampled_from(SCHEDULES),
    steps=st.integers(2, 7),
    maker=st.sampled_from([trailing, uniform_log_snr, karras]),
)
def test_every_linear_solver_is_one(name, schedule, steps, maker):
    """Fitted to a solver's own walk, the weights are that solver: from other starts too."""
    data, step = mixture("diagonal", (6,), 3, seed=steps), SOLVERS[name](schedule)
    denoise, grid = data.denoiser(schedule), maker(schedule, steps)
    scale = float(schedule(grid[0])[1])
    starts, others = scale * normal(seeded(3), 40, 6), scale * normal(seeded(4), 40, 6)
    weights = fit_weights(denoise, states_of(step, denoise, starts, grid), grid)
    found = states_of(from_weights(grid, weights), denoise, others, grid)
    for mine, its in zip(found, states_of(step, denoise, others, grid), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6 * (1 + float(its.abs().max())))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("schedule", [VPLinear(), RectifiedFlow()], ids=lambda s: type(s).__name__)
def test_n_steps_are_exact_for_n_plus_one_variances(schedule, steps):
    """(weights.8), and for one variance more they are not."""
    grid = uniform_log_snr(schedule, steps + 1, 0.9, 0.01)[[*range(steps), -1]]
    many = torch.tensor([1.0, 0.02, 0.3, 3.0, 0.1, 0.6], dtype=torch.float64)
    for extra, exact in ((1, True), (2, False)):
        data = GaussianMixture(
            torch.zeros(1), torch.zeros(1, steps + extra), many[None, : steps + extra]
        )
        denoise = data.denoiser(schedule)
        starts, others = normal(seeded(5), 30, steps + extra), normal(seeded(6), 30, steps + extra)

        def flow(x, data=data):
            return [
                x if t == grid[0] else data.probability_flow(schedule, x, float(grid[0]), float(t))
                for t in grid
            ]

        weights = fit_weights(denoise, flow(starts), grid)
        apart = errors(from_weights(grid, weights), denoise, others, flow(others)[-1], grid)
        known = errors(SOLVERS["ddim"](schedule), denoise, others, flow(others)[-1], grid)
        assert (float(apart.max()) < 1e-8) is exact
        if not exact:
            assert 1e-7 < float(apart.median()) < float(known.median())


def problem(batch=60, steps=4, seed=7):
    schedule = VPLinear()
    denoise, starts = TWO.denoiser(schedule), normal(seeded(seed), batch, 4)
    grid = karras(schedule, steps)
    path = fine(schedule, denoise, starts)
    return schedule, denoise, starts, path, grid


@pytest.mark.usefixtures("unchecked")
def test_each_row_is_least_squares_of_what_was_seen():
    schedule, denoise, starts, path, grid = problem()
    states = path.on(schedule, grid)
    weights = fit_weights(denoise, states, grid)
    assert weights.shape == (4, 5) and weights.triu(2).count_nonzero() == 0
    x, seen = starts, []
    for i in range(4):
        seen.append(denoise(x, grid[i]))
        basis = np.stack([part.flatten().numpy() for part in (x, *seen)], axis=1)
        row = np.linalg.lstsq(basis, states[i + 1].flatten().numpy(), rcond=None)[0]
        np.testing.assert_allclose(weights[i, : i + 2].numpy(), row, rtol=1e-6, atol=1e-8)
        x = torch.from_numpy(basis @ row).reshape(x.shape)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_finite_scale_is_the_least_cauchy_loss(scale):
    """The first row of a grid, by a general minimiser of the loss as it is defined."""
    schedule, denoise, starts, path, grid = problem(steps=3)
    states = path.on(schedule, grid)
    basis = torch.stack([starts, denoise(starts, grid[0])])

    def squares(row):
        return (torch.einsum("k,kbd->bd", row, basis) - states[1]).square().mean(1)

    plain = fit_weights(denoise, states, grid)[0, :2]
    c2 = scale**2 * float(squares(plain).median())

    def loss(row):
        return float(c2 * (squares(torch.as_tensor(row)) / c2).log1p().mean() / c2)

    exact = minimize(loss, plain.numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 0})
    found = fit_weights(denoise, states, grid, scale)[0, :2]
    np.testing.assert_allclose(found.numpy(), exact.x, atol=2e-4)
    assert loss(found.numpy()) < loss(plain.numpy())
    assert float((found - plain).abs().max()) > 1e-3


@pytest.mark.usefixtures("unchecked")
def test_a_start_gone_wrong_moves_the_plain_fit_alone():
    schedule, denoise, _, path, grid = problem()
    states = [state.clone() for state in path.on(schedule, grid)]
    right = {scale: fit_weights(denoise, states, grid, scale) for scale in (math.inf, 1.0)}
    for state in states[1:]:
        state[0] += 30
    moved = {
        scale: float((fit_weights(denoise, states, grid, scale) - one)[0].abs().max())
        for scale, one in right.items()
    }
    assert moved[1.0] < 0.02 < 0.2 < moved[math.inf]


@pytest.mark.usefixtures("unchecked")
def test_nearer_than_every_solver_it_contains():
    """From starts it was not fitted on, at equal calls and on the same grid."""
    schedule, denoise, _, path, _ = problem(batch=200)
    others = normal(seeded(8), 200, 4)
    ends = fine(schedule, denoise, others).states[-1]
    for steps in (3, 5, 8):
        grid = karras(schedule, steps)
        weights = fit_weights(denoise, path.on(schedule, grid), grid, 1.0)
        mine = errors(from_weights(grid, weights), denoise, others, ends, grid)
        for name in LINEAR:
            its = errors(SOLVERS[name](schedule), denoise, others, ends, grid)
            assert mine.log().mean() < its.log().mean() - 0.2, (steps, name)


def test_directions_below_rounding_are_left_out():
    """A denoiser that answers one thing: the predictions are one column, shared evenly."""
    grid = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        starts, constant = normal(seeded(9), 20, 3).to(dtype), normal(seeded(10), 20, 3).to(dtype)
        states = [starts, starts / 2 + constant, starts / 8 + constant]
        weights = fit_weights(lambda x, t, constant=constant: constant, states, grid)
        assert weights.dtype == torch.float64
        assert weights[1, 1] == pytest.approx(float(weights[1, 2]), abs=1e-5)
        assert weights[0].tolist() == pytest.approx([0.5, 1.0, 0.0], abs=1e-5)
        assert weights[1].tolist() == pytest.approx([0.25, 0.375, 0.375], abs=1e-5)


def test_what_fits_exactly_is_reweighted_by_nothing():
    """A median error of 0 gives no scale."""
    grid = torch.tensor([2.0, 1.0], dtype=torch.float64)
    starts = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    weights = fit_weights(lambda x, t: torch.zeros_like(x), [starts, starts / 2], grid, 1.0)
    assert weights[0].tolist() == pytest.approx([0.5, 0.0], abs=1e-15)


@pytest.mark.usefixtures("unchecked")
def test_a_fitted_grid_ends_nearer():
    schedule, denoise, starts, path, _ = problem()
    grid = uniform_log_snr(schedule, 4)
    kept = grid.clone()
    for scale in (math.inf, 1.0):
        found = fit_weights_and_grid(schedule, denoise, path, grid, scale, rounds=6)
        assert torch.equal(grid, kept) and found[[0, -1]].equal(grid[[0, -1]])
        sizes = []
        for nodes in (grid, found):
            weights = fit_weights(denoise, path.on(schedule, nodes), nodes, scale)
            e = errors(from_weights(nodes, weights), denoise, starts, path.states[-1], nodes)
            sizes.append(float(e.log().mean() if scale == 1 else e.square().mean().log() / 2))
        assert sizes[1] < sizes[0] - 0.1


@pytest.mark.usefixtures("unchecked")
def test_the_walk_that_was_fitted_is_the_one_that_is_walked():
    """float32: the fit walks by the solver's own arithmetic, bit for bit."""
    schedule, _, starts, path, grid = problem()
    seen = []

    def denoise(x, t):
        seen.append(x)
        return TWO.denoiser(schedule)(x.double(), t).float()

    states = [state.float() for state in path.on(schedule, grid)]
    weights = fit_weights(denoise, states, grid, 1.0)
    fits = seen[:]
    *way, end = trajectory(from_weights(grid, weights), denoise, starts.float(), grid)
    assert end.x.dtype == torch.float32
    assert all(torch.equal(a, b.x) for a, b in zip(fits, way, strict=True))


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are its subject
def test_illegal_requests():
    schedule, denoise, starts, path, grid = problem(batch=3)
    states = path.on(schedule, grid)
    weights = fit_weights(denoise, states, grid)
    for call, message in (
        (
            lambda: fit_weights(denoise, states, grid.flip(0)),
            "grid: wanted a non-empty, strictly dec",
        ),
        (lambda: fit_weights(denoise, states[1:], grid), "states: wanted 5, one a node, got 4"),
        (
            lambda: fit_weights(denoise, [x[:0] for x in states], grid),
            "states: wanted 1 start or more",
        ),
        (lambda: fit_weights(denoise, [*states[1:], starts[:2]], grid), "states: wanted shape"),
        (lambda: fit_weights(denoise, states, grid, 0.0), "scale: wanted a number above 0, got 0"),
        (lambda: from_weights(grid, weights[1:]), r"weights: wanted shape \(4, 5\), got \(3, 5\)"),
        (
            lambda: from_weights(grid.flip(0), weights),
            "grid: wanted a non-empty, strictly decreasing",
        ),
        (
            lambda: final(from_weights(grid, weights), denoise, starts, trailing(schedule, 4)),
            r"grid: wanted the one that the weights were fitted on, got step 0, \(1.0, 0.75\)",
        ),
        (
            lambda: final(
                from_weights(grid, weights), denoise, starts, torch.cat([grid, grid[-1:] - 1])
            ),
            "grid: wanted the one that the weights were fitted on, got step 4",
        ),
        (
            lambda: fit_weights_and_grid(schedule, denoise, path, grid, 0.0),
            "scale: wanted a number above",
        ),
        (
            lambda: fit_weights_and_grid(schedule, denoise, path, grid, rounds=0),
            "rounds: wanted a whole",
        ),
        (lambda: path.at(schedule, grid[0] + 1), r"t: wanted a node, or in \["),
        (
            lambda: FinePath(grid[:4], states[:4]).at(RectifiedFlow(), grid[1] - 0.01),
            "times: wanted 4 nodes of finite log-SNR, got 3",
        ),
        (
            lambda: FinePath(grid, states[:-1]).on(schedule, grid),
            "states: wanted 5, one a time, got 4",
        ),
        (lambda: FinePath(grid, states[:-1]).at(schedule, grid[1]), "states: wanted 5, one a time"),
        (
            lambda: fit_weights_and_grid(
                schedule, denoise, path, torch.cat([grid[:-1], grid[-1:] + 1e-4])
            ),
            "grid: wanted the path's last time 0 as its last node, got 0.0001",
        ),
        (
            lambda: fit_weights_and_grid(schedule, denoise, path, grid[1:]),
            "grid: wanted the path's first time 1 as its first node, got 0",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def test_nothing_seen_has_no_weight():
    """States and answers of 0 tell no direction: weights of 0, not of 0 / 0."""
    grid, nothing = torch.tensor([2.0, 1.0, 0.5]).double(), torch.zeros(2, 2).double()
    weights = fit_weights(lambda x, t: x, [nothing, nothing + 1, nothing + 1], grid)
    assert weights.equal(torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize(("share", "kept"), [(9.5, False), (10.5, True)])
def test_a_direction_counts_from_ten_roundings_on(share, kept):
    """Of the states' dtype, in units of the largest: two columns at right angles, one so small."""
    small = share * torch.finfo(torch.float32).eps
    starts = torch.tensor([[1.0, 0.0]])
    grid = torch.tensor([2.0, 1.0], dtype=torch.float64)
    answer = torch.tensor([[0.0, small]])
    weights = fit_weights(lambda x, t: answer, [starts, torch.tensor([[0.5, 1.0]])], grid)
    assert weights[0].tolist() == pytest.approx([0.5, 1 / small if kept else 0], rel=1e-5)


def test_an_infinite_scale_weighs_nothing_again(monkeypatch):
    """One least squares a row: no reweighted one is solved."""

    def never(*args):
        raise AssertionError

    schedule, denoise, _, path, grid = problem(batch=5)
    monkeypatch.setattr(torch.linalg, "solve", never)
    fit_weights(denoise, path.on(schedule, grid), grid)
    with pytest.raises(AssertionError):
        fit_weights(denoise, path.on(schedule, grid), grid, 1.0)
