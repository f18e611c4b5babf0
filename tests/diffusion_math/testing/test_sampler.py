"""A sampler as it is declared: its grid and its states are what `Sampler` says, or it is told."""

import re
from dataclasses import replace

import pytest
import torch

from diffusion_math.noise import zeros
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.testing import Sampler, ours
from diffusion_math.testing.sampler import InvalidSamplerError
from tests.support.fake_accelerator import Elsewhere, away

SCHEDULE = VPLinear()
X = torch.ones(3, 2, dtype=torch.float64)
GRID = torch.tensor([1.0, 0.5, 0.2, 0.0], dtype=torch.float64)


def denoise(x, t):
    return torch.zeros_like(x)


def sampler(sample=lambda *_: X, grid=lambda n: GRID):
    return Sampler("mine", SCHEDULE, sample, grid)


def states(given, grid=GRID):
    return sampler(lambda *_: given).states(denoise, X, grid, zeros)


def invalid(message):
    return pytest.raises(InvalidSamplerError, match=re.escape(message) + "$")


def test_orders_are_those_from_one_to_eight():
    assert replace(sampler(), order=8).order == 8
    with pytest.raises(ValueError, match=r"order: wanted .* at least 1 and at most 8, got 9"):
        replace(sampler(), order=9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_times_are_in_float64(dtype):
    found = sampler(grid=lambda n: torch.arange(n, -1, -1).to(dtype)).times(3)
    assert found.dtype == torch.float64 and found.tolist() == [3.0, 2.0, 1.0, 0.0]


def test_times_and_states_of_an_accelerator_come_to_the_cpu():
    with Elsewhere():
        there = X.to("cuda"), GRID.to("cuda")
        assert away(there[0]) and away(there[1])
        one = sampler(lambda *_: there[0], lambda n: there[1])
        times, states = one.times(3), one.states(denoise, X, GRID, zeros)
        assert not away(times) and not away(states[0])


@pytest.mark.parametrize(
    ("grid", "got"),
    [
        ([1.0, 0.0], "a list"),
        (None, "a NoneType"),
        (torch.zeros(2, 2), "a tensor of shape (2, 2), float32"),
        (torch.zeros((), dtype=torch.float64), "a tensor of shape (), float64"),
        (torch.zeros(2, dtype=torch.complex64), "a tensor of shape (2,), complex64"),
    ],
)
def test_a_grid_is_a_row_of_times(grid, got):
    with invalid(f"mine: grid(4): wanted a 1-D tensor of times, got {got}"):
        sampler(grid=lambda n: grid).times(4)


@pytest.mark.parametrize("grid", [[1.0, 0.2, 0.5], [0.1, 0.5], [1.0], [[1.0, 0.0]]])
def test_a_grid_that_is_run_does_not_rise(grid):
    grid = torch.tensor(grid, dtype=torch.float64)
    with invalid(f"grid: wanted 2 times or more that do not rise, got {grid}"):
        states(X, grid)


def test_a_step_of_a_run_may_have_no_length():
    assert len(states([X] * 3, torch.tensor([1.0, 0.5, 0.5, 0.0]))) == 3


def test_one_tensor_is_the_last_state():
    """Whatever its first axis is: here as long as the grid has steps."""
    [found] = states(X)
    assert torch.equal(found, X)


def test_states_are_tensors():
    with invalid("mine: states: wanted tensors, got an int"):
        states(4)


@pytest.mark.parametrize(("count", "got"), [(0, "0"), (2, "2"), (4, "4 or more"), (5, "4 or more")])
def test_states_are_one_or_one_a_step(count, got):
    with invalid(f"mine: states: wanted 1 state or one for each of 3 steps, got {got}"):
        states([X] * count)


def test_states_that_do_not_end_are_told():
    def endless():
        for _ in range(4):
            yield X
        raise AssertionError("more than one state too many was asked for")

    with invalid("mine: states: wanted 1 state or one for each of 3 steps, got 4 or more"):
        states(endless())


@pytest.mark.parametrize(
    ("state", "got"),
    [
        (X[:2], "a tensor of shape (2, 2), float64"),
        (X.long(), "a tensor of shape (3, 2), int64"),
        (X.tolist(), "a list"),
    ],
)
def test_each_state_is_like_the_start(state, got):
    wanted = "floating-point tensors of x's shape (3, 2)"
    with invalid(f"mine: states: wanted {wanted}, got {got}"):
        states([X, state, X])


def test_ours_have_the_claims_of_their_table():
    found = {one.name: one for one in ours(SCHEDULE)}
    assert list(found) == list(SOLVERS)
    for name, one in found.items():
        claimed = SOLVERS[name]
        assert (one.order, one.noisy) == (claimed.order, claimed.noisy)
        assert one.exact == (name not in ("ddpm_large", "langevin_corrected"))


def test_ours_are_their_solvers_on_trailing_grids():
    """DDIM with a denoiser of 0 keeps x / sigma; where sigma is 0 it gives the denoiser's 0."""
    [ddim] = ours(SCHEDULE, ["ddim"])
    grid = ddim.times(2)
    assert grid.tolist() == [1.0, 0.5, 0.0]
    sigma = SCHEDULE(grid)[1]
    middle, last = ddim.states(denoise, X, grid, zeros)
    assert torch.allclose(middle, X * sigma[1] / sigma[0], rtol=1e-12)
    assert not last.any()


def test_an_unknown_name_of_ours_is_told():
    message = f"names: wanted names among {', '.join(SOLVERS)}, got dim$"
    with pytest.raises(ValueError, match=message):
        ours(SCHEDULE, ["dim"])


def in_place(denoise, x, grid, noise):
    """DDIM that writes each state into its x and shows that, and spoils its grid."""
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = SCHEDULE(t), SCHEDULE(s)
        x0 = denoise(x, torch.tensor(t, dtype=torch.float64))
        x.sub_(alpha_t * x0).mul_(sigma_s / sigma_t).add_(alpha_s * x0)
        grid.fill_(0.5)
        yield x


def test_a_sampler_may_change_its_arguments_and_its_states_in_place():
    """Its states are DDIM's, which keeps x / sigma for a denoiser of 0, to rounding."""
    start, grid = X.clone(), GRID.clone()
    found = sampler(in_place).states(denoise, start, grid, zeros)
    assert torch.equal(start, X) and torch.equal(grid, GRID)
    sigma = SCHEDULE(GRID)[1]
    wanted = X * (sigma[1:] / sigma[0])[:, None, None]
    assert torch.allclose(torch.stack(found), wanted, rtol=1e-14, atol=0)


@pytest.mark.usefixtures("unchecked")  # another type is what is tested
@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("noisy", "no", "True or False, got 'no'"),
        ("any_grid", None, "True or False, got None"),
        ("exact", 1, "True or False, got 1"),
        ("grouped", [], r"True or False, got \[\]"),
        ("name", None, "a str, got a NoneType"),
    ],
)
def test_a_claim_of_another_type_is_refused(name, given, wanted):
    with pytest.raises(ValueError, match=f"^{name}: wanted {wanted}$"):
        replace(sampler(), **{name: given})
