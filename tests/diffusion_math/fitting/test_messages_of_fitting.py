"""What bad input is told, word for word, by fits of grids and of weights."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion_math.fitting.grids import distances, grid_of_logits
from diffusion_math.fitting.shortest_path import dynamic_programming
from diffusion_math.fitting.weights import FinePath, fit_weights, fit_weights_and_grid
from diffusion_math.fitting.weights_by_ends import fit_alternating, fit_weights_to_ends
from diffusion_math.noise import required
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.solvers.linear import from_weights, grouped
from diffusion_math.solvers.step import State

FLOW = RectifiedFlow()
GRID = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
EULER = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
THREE, TWO = (torch.ones(n, 4, dtype=torch.float64) for n in (3, 2))
NONE = THREE[:0]
PATH = FinePath(torch.linspace(0.9, 0.1, 9, dtype=torch.float64), [THREE] * 9)


def never(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("no work is done before arguments are looked at")


def answer(x: Tensor, t: Tensor) -> Tensor:
    return x / 2


def stochastic(denoise: object, state: State, t: Tensor, s: Tensor, noise: object) -> State:
    return State(state.x + noise(state.x, t, s), s)  # type: ignore[operator]


def steps(count: int) -> Tensor:
    """A grid of so many equal shares of the log-SNR."""
    frame = torch.linspace(1, 0.001, count + 1, dtype=torch.float64)
    return grid_of_logits(VPLinear(), frame, torch.zeros(count - 1, dtype=torch.float64))


CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: distances(TWO, THREE), "found: wanted shape (3, 4), got shape (2, 4)"),
    (lambda: steps(10_000), "grid: wanted fewer than 10000 steps, got 10000"),
    (lambda: PATH.at(FLOW, torch.tensor(0.9375)), "t: wanted a node, or in [0.1, 0.9], got 0.9375"),
    (
        lambda: fit_weights(never, [NONE, THREE, THREE], GRID),
        "states: wanted 1 start or more, got (0, 4)",
    ),
    (
        lambda: fit_weights(never, [THREE, NONE, THREE], GRID),
        "states: wanted shape (3, 4), got shape (0, 4)",
    ),
    (
        lambda: fit_weights(never, [THREE, TWO, THREE], GRID),
        "states: wanted shape (3, 4), got shape (2, 4)",
    ),
    (
        lambda: fit_weights_and_grid(FLOW, never, PATH, PATH.times.flip(0)),
        "grid: wanted a non-empty, strictly decreasing 1-D tensor, got 0.1 then 0.2 at index 0",
    ),
    (
        lambda: fit_weights_to_ends(never, THREE, THREE, GRID, EULER, 0),
        "order: wanted a whole number of at least 1, got 0",
    ),
    (
        lambda: fit_weights_to_ends(never, THREE, THREE, GRID, EULER, scale=-1.5),
        "scale: wanted a number above 0, got -1.5",
    ),
    (
        lambda: fit_alternating(FLOW, never, THREE, THREE, GRID, EULER, scale=0.0),
        "scale: wanted a number above 0, got 0.0",
    ),
    (
        lambda: dynamic_programming(stochastic, answer, [THREE] * 3, GRID, 2),  # type: ignore[arg-type]
        "noise: wanted a noise source for a stochastic solver",
    ),
    (
        lambda: from_weights(GRID, EULER[..., None].expand(-1, -1, 4))(
            lambda x, t: x[:, :2], State(THREE, GRID[0]), GRID[0], GRID[1], required
        ),
        "zip() argument 2 is shorter than argument 1",
    ),
    (lambda: grouped([THREE, THREE[:, :2]], 4), "zip() argument 2 is shorter than argument 1"),
]


@pytest.mark.usefixtures("unchecked")  # shapes that disagree are its subject
@pytest.mark.parametrize(("call", "message"), CASES, ids=[case[1][:45] for case in CASES])
def test_the_message_says_which_argument_and_what_came(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


@pytest.mark.usefixtures("unchecked")
def test_what_is_just_legal_is_taken() -> None:
    """As many steps as fit, one number, one prediction a row."""
    assert bool((steps(9_999).diff() < 0).all())
    one = torch.ones(1, 1, dtype=torch.float64)
    weights = fit_weights(answer, [one, one / 2, one / 4], GRID)
    walked = from_weights(GRID, weights)(answer, State(one, GRID[0]), GRID[0], GRID[1], required)
    assert float(walked.x) == pytest.approx(0.5, rel=1e-12)
    found = fit_weights_to_ends(answer, THREE, THREE, GRID, EULER, 1, math.inf, 2)
    assert found[1, 1] == EULER[1, 1]  # of the two predictions, only the latest is free
