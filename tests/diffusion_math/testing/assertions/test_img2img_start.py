"""`assert_img2img_start`: the noised image and the first time belong together."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_math.schedule import VE, Discrete, Schedule, VPCosine
from diffusion_math.testing.assertions.img2img_start import KNOWN, assert_img2img_start
from diffusion_math.testing.draws import drawn
from diffusion_math.testing.mistakes.diagnosis import MistakeError

SCHEDULE = Discrete.scaled_linear(50)
TIMES = range(1, 51)
STRENGTHS = [0.1, 0.2, 0.4, 0.5, 0.8, 1.0]


def at(schedule: Schedule, t: float, x0: Tensor, noise: Tensor) -> Tensor:
    alpha, sigma = (each.to(x0.dtype) for each in schedule(t))
    return alpha * x0 + sigma * noise


def start(x0: Tensor, strength: float, noise: Tensor) -> tuple[Tensor, int]:
    t = round(50 * strength)
    return at(SCHEDULE, t, x0, noise), t


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_right_start_passes(dtype: torch.dtype) -> None:
    assert_img2img_start(start, SCHEDULE, TIMES, STRENGTHS, dtype=dtype)
    told = lambda x0, k, z: (start(x0, k, z)[0], torch.tensor([start(x0, k, z)[1]]))  # noqa: E731
    assert_img2img_start(
        told, SCHEDULE, TIMES, STRENGTHS, first_time=lambda s: round(50 * s), dtype=dtype
    )


@pytest.mark.parametrize("schedule", [VE(), VPCosine()])
def test_a_start_that_skips_steps_of_a_grid_passes(schedule: Schedule) -> None:
    grid = [0.9, 0.5, 0.25, 0.1, 0.01]
    assert_img2img_start(
        lambda x0, skip, noise: (at(schedule, grid[skip], x0, noise), grid[skip]),
        schedule,
        grid[::-1],
        range(5),
        first_time=lambda skip: grid[skip],
    )


def test_a_start_that_draws_its_noise_passes() -> None:
    def own(x0: Tensor, strength: float) -> tuple[Tensor, int]:
        return start(x0, strength, torch.randn_like(x0))

    assert_img2img_start(drawn(own), SCHEDULE, TIMES, STRENGTHS)


PLANTED: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "x0 is not scaled by alpha: x0 + sigma noise": lambda a, s, x, z: x + s * z,
    "x0 and noise are not scaled: x0 + noise": lambda a, s, x, z: x + z,
    "no noise is added: x0 alone": lambda a, s, x, z: x,
    "noise alone: x0 is not used": lambda a, s, x, z: z,
    "the coefficient of noise is sigma^2, the variance": lambda a, s, x, z: a * x + s**2 * z,
    "the coefficient of x0 is (its right value)^2": lambda a, s, x, z: a**2 * x + s * z,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_start_is_named(name: str) -> None:
    def wrong(x0: Tensor, strength: float, noise: Tensor) -> tuple[Tensor, int]:
        t = round(50 * strength)
        return PLANTED[name](*SCHEDULE(t), x0, noise), t

    with pytest.raises(MistakeError) as caught:
        assert_img2img_start(wrong, SCHEDULE, TIMES, STRENGTHS)
    assert [one.name for one in caught.value.mistakes] == [name]


@pytest.mark.parametrize(
    ("by", "name"),
    [
        (1, "every coefficient is its right value of index t + 1"),
        (-1, "the noise is that of the time after the one that the first call is told"),
    ],
)
def test_noise_of_a_neighbouring_time_is_named(by: int, name: str) -> None:
    """CompVis' image-to-image noised for t + 1 (pull request 533 of its repository)."""

    def wrong(x0: Tensor, strength: float, noise: Tensor) -> tuple[Tensor, int]:
        t = round(40 * strength)
        return at(SCHEDULE, t + by, x0, noise), t

    with pytest.raises(MistakeError) as caught:
        assert_img2img_start(wrong, SCHEDULE, TIMES, STRENGTHS)
    assert [one.name for one in caught.value.mistakes] == [name]


def test_each_known_mistake_is_planted() -> None:
    assert {one.name for one in KNOWN} <= {
        *PLANTED,
        "the noise is that of the time after the one that the first call is told",
    }


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        (lambda x0, k, z: x0, {}, "start: wanted 2 results, got Tensor"),
        (lambda x0, k, z: (x0, 0), {}, "start at 0.1: the first call is told 0, which is none of"),
        (lambda x0, k, z: (x0, None), {}, "start at 0.1: wanted a time, got None"),
        (lambda x0, k, z: (x0[:, :2], 1), {}, "start at 0.1: wanted a result of shape"),
        (lambda x0, k, z: 1 / 0, {}, "start: raised ZeroDivisionError"),
        (start, {"first_time": lambda s: 9}, "start at 0.1: the first call is told 5, wanted 9"),
    ],
)
def test_what_is_no_start_is_one_line(
    start: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=f"^{message}"):
        assert_img2img_start(start, SCHEDULE, TIMES, STRENGTHS, **options)


def test_no_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="settings: wanted at least one setting"):
        assert_img2img_start(start, SCHEDULE, TIMES, [])
