"""Two trajectories from one noise: the differences are those of their latents, after each step."""

import math

import pytest
import torch
from PIL import Image

from experiments.timing import device_drift
from experiments.timing.device_drift import Trajectory
from sd.pipeline import TextToImage

CALL = {"steps": 3, "width": 16, "height": 16}


def made(label: str, *states: list[float], grey: int = 0) -> Trajectory:
    times = tuple(float(t) for t in range(len(states))[::-1])
    x = tuple(torch.tensor([state], dtype=torch.float64) for state in states)
    return Trajectory(label, times, x, Image.new("RGB", (2, 2), (grey, grey, grey)))


def test_differences_after_each_step() -> None:
    one = made("b", [7.0, 7.0], [3.0, 5.0], [-1.0, 2.0], grey=9)
    other = made("a", [7.0, 7.0], [3.0, 4.0], [2.0, -2.0], grey=4)
    found = device_drift.drift(one, other)
    assert (found.label, found.reference, found.t) == ("b", "a", (1.0, 0.0))
    assert found.largest == (1.0, 4.0)
    assert found.relative == pytest.approx((1 / 5, 5 / math.sqrt(8)))
    assert found.levels == 5.0
    (row,) = device_drift.rows([found])
    assert (row.name, row.measured, row.verdict) == (
        "timing-drift-b",
        found.relative[-1],
        "measured",
    )


def test_trajectories_of_different_lengths_do_not_compare() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        device_drift.drift(made("b", [1.0]), made("a", [1.0], [2.0]))


def test_a_trajectory_is_the_pipelines_own(pipeline: TextToImage) -> None:
    first, again = (device_drift.trajectory("a", pipeline, "a red ring", **CALL) for _ in range(2))
    assert len(first.x) == len(first.t) == 4 and first.t[-1] == 0
    same = device_drift.drift(again, first)
    assert same.relative == (0.0, 0.0, 0.0) and same.levels == 0
    assert [type(part).__name__ for part in device_drift.parts([same])] == [
        "Table"
    ]  # no line to draw
    other = device_drift.drift(device_drift.trajectory("b", pipeline, "a blue star", **CALL), first)
    assert min(other.relative) > 1e-4
    # The start is the same noise whatever the prompt.
    assert torch.equal(
        device_drift.trajectory("b", pipeline, "a blue star", **CALL).x[0], first.x[0]
    )
    assert [type(part).__name__ for part in device_drift.parts([other])] == ["Figure", "Table"]
    assert device_drift.parts([]) == device_drift.rows([]) == ()
