"""`assert_inversion` passes DDIM's steps up and down and names levels of the wrong end."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math.prediction import KINDS
from diffusion_math.schedule import Schedule
from diffusion_math.testing.assertions.inversion import assert_inversion
from diffusion_math.testing.mistakes.diagnosis import MistakeError

FLOATS = [torch.float32, torch.float64]
COUNT = 40
ABAR = (1 - torch.linspace(1e-3, 0.25, COUNT, dtype=torch.float64)).cumprod(0)
Network = Callable[[Tensor, Any], Tensor]


def levels(t: int) -> tuple[Tensor, Tensor]:
    return ABAR[t].sqrt(), (1 - ABAR[t]).sqrt()


def ddim(
    told: int = 0, taken: int = 0, signal: int = 1, noise: int = 1, kind: str = "eps"
) -> Callable[..., Tensor]:
    """DDIM's step between two times; each level is that of the step's start, 0, or end, 1."""

    def step(network: Network, x: Tensor, start: int, end: int) -> Tensor:
        times = start, end
        ends = [levels(start), levels(end)]
        y = network(x, torch.full((len(x),), times[told]))
        (alpha, sigma), (a, b) = ends[taken], KINDS[kind](*ends[taken])
        size = alpha * b - sigma * a
        x0, eps = (b * x - sigma * y) / size, (alpha * y - a * x) / size
        return (ends[signal][0] * x0 + ends[noise][1] * eps).to(x)

    return step


def ours(schedule: Schedule) -> Callable[..., Tensor]:
    def step(network: Network, x: Tensor, start: float, end: float) -> Tensor:
        x0 = network(x, start)
        eps = dm.prediction.eps_from_x0(schedule, x, x0, start)
        (alpha, sigma) = schedule(end)
        return (alpha * x0 + sigma * eps).to(x)

    return step


def heun(network: Network, x: Tensor, start: int, end: int) -> Tensor:
    """Order 2, in x / alpha by sigma / alpha."""
    (a, s), (b, r) = levels(start), levels(end)
    h = r / b - s / a
    first = network(x, start)
    euler = b * (x / a + h * first)
    return (b * (x / a + h * (first + network(euler.to(x), end)) / 2)).to(x)


def named(up: Any, down: Any, **claims: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        assert_inversion(up, down, levels, range(COUNT), **claims)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_right_inversions_pass(kind: str, dtype: torch.dtype) -> None:
    step = ddim(kind=kind)
    assert_inversion(step, step, levels, range(COUNT), predicts=kind, dtype=dtype)


@pytest.mark.parametrize("schedule", [dm.VPCosine(), dm.VE(), dm.RectifiedFlow()])
def test_our_steps_pass(schedule: Schedule) -> None:
    grid = schedule.time(torch.linspace(4, -4, 25, dtype=torch.float64)).tolist()
    step = ours(schedule)
    assert_inversion(step, step, schedule, grid, predicts="x0")


def test_a_second_order_step_passes_at_its_order() -> None:
    assert_inversion(heun, heun, levels, range(COUNT), order=2)
    with pytest.raises(AssertionError, match="wanted order 2 on a mixture, got"):
        assert_inversion(ddim(), heun, levels, range(COUNT), order=2)


MISTAKES = {
    "the network is told the time of the step's end": (1, 0, 1, 1),
    "it goes the other way: from the step's end to its start": (1, 1, 0, 0),
    "it goes the other way, though the network is told the start": (0, 1, 0, 0),
    "the signal keeps the level of the step's start": (0, 0, 0, 1),
    "the noise keeps the level of the step's start": (0, 0, 1, 0),
    "nothing changes: the step starts and ends at one level": (0, 0, 0, 0),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_each_known_mistake_is_named(name: str, dtype: torch.dtype) -> None:
    wrong, right = ddim(*MISTAKES[name]), ddim()
    assert named(wrong, right, dtype=dtype) == [name]
    assert named(right, wrong, dtype=dtype) == [name]


def late(network: Network, x: Tensor, start: int, end: int) -> Tensor:
    """The step that should have been made before, as a scheduler that mistakes the time makes."""
    before = min(max(2 * start - end, 0), COUNT - 1)
    (a, s), (b, r) = levels(before), levels(start)
    eps = network(x, start)
    return (b * (x - s * eps) / a + r * eps).to(x)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_late_step_is_named(dtype: torch.dtype) -> None:
    name = "the step is one late: it ends at the level where x is"
    assert named(late, ddim(), dtype=dtype) == [name]
    assert named(ddim(), late, dtype=dtype) == [name]


def test_the_subject_is_named() -> None:
    with pytest.raises(MistakeError, match=r"^step, down: wrong"):
        assert_inversion(ddim(), ddim(1), levels, range(COUNT))


def test_one_percent_is_an_error_in_float32() -> None:
    def wrong(network: Network, x: Tensor, start: int, end: int) -> Tensor:
        (a, s), (b, r) = levels(start), levels(end)
        eps = network(x, start)
        return (b * (x - s * eps) / a + 1.01 * r * eps).to(x)

    assert named(wrong, ddim(), dtype=torch.float32) == []


def test_what_tells_another_time_or_raises_is_one_line() -> None:
    def wrong(network: Network, x: Tensor, start: int, end: int) -> Tensor:
        return network(x, start + 1000)

    with pytest.raises(
        AssertionError, match="wrong: raised ValueError: the network's time: wanted"
    ):
        assert_inversion(wrong, ddim(), levels, range(COUNT))


def test_bad_arguments_are_value_errors() -> None:
    for bad in ({"predicts": "z"}, {"order": 0}, {"times": [1, 2]}):
        given = {"times": range(COUNT), **bad}
        with pytest.raises(ValueError, match=r"^\w+: wanted .*, got "):
            assert_inversion(ddim(), ddim(), levels, **given)  # type: ignore[arg-type]
