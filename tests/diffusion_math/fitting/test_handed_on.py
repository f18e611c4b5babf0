"""What fits hand on: the numbers of rounds and orders that are theirs where none are given."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_math.fitting import grids, weights, weights_by_ends
from diffusion_math.grid import trailing
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.one_step import euler
from tests.support.mixtures import TWO, normal, seeded, states_of

SCHEDULE = VPLinear()
DENOISE = TWO.denoiser(SCHEDULE)
GRID = trailing(SCHEDULE, 5)
STARTS = normal(seeded(1), 3, 4)
STATES = states_of(euler(SCHEDULE), DENOISE, STARTS, GRID)
PATH = weights.FinePath(GRID, STATES)
ENDS = normal(seeded(2), 3, 4)
ROWS = torch.full((5, 6), 0.1, dtype=torch.float64).tril(1)

Call = dict[str, Any]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Any], list[Call]]:
    """Put a stand-in that answers one thing in a function's place; the arguments of its calls."""

    def replace(module: Any, name: str, answer: Any) -> list[Call]:
        calls: list[Call] = []
        signature = inspect.signature(getattr(module, name))

        def stand_in(*args: Any, **more: Any) -> Any:
            calls.append(signature.bind(*args, **more).arguments)
            return answer

        monkeypatch.setattr(module, name, stand_in)
        return calls

    return replace


def test_a_grid_s_rounds_and_nudge(handed: Any) -> None:
    """`fit_grid` takes 30 rounds; `fit_grid_of` 30 too, and differences by NUDGE."""
    solved = handed(grids, "robust_least_squares", (torch.zeros(4, dtype=torch.float64), math.inf))
    grids.fit_grid_of(lambda grid: ENDS, SCHEDULE, ENDS, GRID)
    assert solved[0]["rounds"] == 30 and solved[0].get("nudge", grids.NUDGE) == grids.NUDGE
    called = handed(grids, "fit_grid_of", GRID)
    grids.fit_grid(euler(SCHEDULE), SCHEDULE, DENOISE, STARTS, ENDS, GRID)
    assert called[0]["rounds"] == 30 and called[0]["modes"] is None


def test_a_grid_with_weights_is_fitted_to_the_path_s_end(handed: Any) -> None:
    """With the modes that were asked for, 30 rounds, and differences by STRIDE."""
    called = handed(weights, "fit_grid_of", GRID)
    weights.fit_weights_and_grid(SCHEDULE, DENOISE, PATH, GRID, modes=2)
    assert called[0]["ends"] is STATES[-1]
    assert (called[0]["modes"], called[0]["rounds"], called[0]["nudge"]) == (2, 30, weights.STRIDE)


def test_weights_of_ends_are_of_three_predictions_in_twelve_rounds(handed: Any) -> None:
    """A row's own state and its three latest predictions are free, or fewer at the start."""
    free = sum(1 + min(i + 1, 3) for i in range(5))
    first = torch.zeros(free, dtype=torch.float64)
    solved = handed(weights_by_ends, "robust_least_squares", (first, 0.0))
    weights_by_ends.fit_weights_to_ends(DENOISE, STARTS, ENDS, GRID, ROWS)
    assert solved[0]["rounds"] == 12 and len(solved[0]["first"]) == free


def test_two_turns_of_twelve_rounds(handed: Any) -> None:
    """And with what is asked for, weights have the same scale and rounds as nodes."""
    moved = handed(weights_by_ends, "_moved_nodes", GRID)
    fitted = handed(weights_by_ends, "fit_weights_to_ends", ROWS)

    def asked(**more: Any) -> tuple[Tensor, Tensor]:
        return weights_by_ends.fit_alternating(SCHEDULE, DENOISE, STARTS, ENDS, GRID, ROWS, **more)

    asked()
    assert len(moved) == len(fitted) == 2
    assert {one["rounds"] for one in (*moved, *fitted)} == {12}
    assert {one["order"] for one in fitted} == {3}
    asked(order=2, scale=0.5, rounds=7, turns=1)
    assert (moved[2]["scale"], moved[2]["rounds"]) == (0.5, 7)
    assert [fitted[2][name] for name in ("order", "scale", "rounds")] == [2, 0.5, 7]
