"""A distilled model: what it is sampled with, and what is said where that is another thing."""

import warnings
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion_math.solvers import SOLVERS, ddim
from sd.config import SHAPES_CONFIG, ModelConfig, from_json, to_json
from sd.pipeline import TextToImage
from sd.train.distillation import distilled
from tests.support.tiny_training import CONFIG, tiny_model

FEW = distilled(replace(CONFIG, image_size=16), 6, 0.7)


@pytest.fixture(scope="module")
def model() -> TextToImage:
    """A tiny one with random weights."""
    return tiny_model(FEW)


def drawn(model: TextToImage, **call: Any) -> tuple[list[float], list[str]]:
    """The times of a sampling, and its warnings."""
    times: list[float] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model("a red circle", progress=False, watch=lambda one: times.append(float(one.t)), **call)
    return times, [str(one.message) for one in said]


def test_it_makes_its_own_steps_without_guidance(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six network calls, each on one row, between the nodes that it was distilled for."""
    rows: list[int] = []
    forward = model.unet.forward
    monkeypatch.setattr(
        model.unet, "forward", lambda x, *rest: rows.append(len(x)) or forward(x, *rest)
    )
    times, said = drawn(model)
    assert times == [1000, 833, 667, 500, 333, 167, 0] and said == []
    assert rows == [1] * 6


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ({"steps": 5}, "grid, steps"),
        ({"grid": "leading"}, "grid, steps"),
        ({"solver": "dpmpp_2m"}, "solver"),
        ({"solver": wraps(SOLVERS["heun"])(lambda schedule: SOLVERS["heun"](schedule))}, "solver"),
        ({"guidance_scale": 3.0}, "guidance_scale"),
        ({"solver": "euler", "steps": 12}, "solver, grid, steps"),
    ],
)
def test_other_settings_than_its_own_are_named(
    call: dict[str, Any], named: str, model: TextToImage
) -> None:
    _, said = drawn(model, **call)
    assert len(said) == 1 and said[0].startswith(f"{named}: the model was distilled for ")
    assert "1000, 833, 667, 500, 333, 167, 0" in said[0]


NODES = torch.tensor([1000.0, 833, 667, 500, 333, 167, 0])


@pytest.mark.parametrize(
    "call", [{"solver": "ddim"}, {"solver": ddim}, {"do_cfg": False}, {"grid": NODES}]
)
def test_its_own_settings_may_be_given(call: dict[str, Any], model: TextToImage) -> None:
    times, said = drawn(model, **call)
    assert len(times) == 7 and said == []


@pytest.mark.parametrize("call", [{}, {"solver": "ddim"}])
def test_its_solver_has_its_own_eta(call: dict[str, Any], model: TextToImage) -> None:
    """Whether it is named or not; a function is taken as it is."""

    def states(**call: Any) -> list[Tensor]:
        found: list[Tensor] = []
        model("a red circle", progress=False, watch=lambda one: found.append(one.x), **call)
        return found

    wanted = states(solver=partial(ddim, eta=0.7))
    assert all(map(torch.equal, states(**call), wanted))
    assert not torch.equal(states(solver=ddim)[1], wanted[1])


@pytest.mark.parametrize(
    ("strength", "own"),
    [
        (0.5, True),
        (1.0, True),
        (2 / 3, True),
        (0.17, True),
        (0.83, True),
        (0.4, False),
        (0.8, False),
    ],
)
def test_a_strength_may_begin_at_a_node(strength: float, own: bool, model: TextToImage) -> None:
    _, said = drawn(model, image=Image.new("RGB", (16, 16), "red"), strength=strength)
    assert (said == []) == own
    if not own:
        assert said[0].startswith("grid, steps, strength: ")
        assert "strength 0.17, 0.33, 0.5, 0.67, 0.83, 1)" in said[0]


def test_an_image_without_a_strength_begins_at_a_node(model: TextToImage) -> None:
    times, said = drawn(model, image=Image.new("RGB", (16, 16), "red"))
    assert times[0] == 833 and len(times) == 6 and said == []


def test_a_plain_model_takes_any_settings(model: TextToImage) -> None:
    plain = replace(model, config=replace(CONFIG, image_size=16))
    times, said = drawn(plain, solver="euler", steps=5, grid="leading")
    assert len(times) == 6 and said == []
    assert plain.config.sampling_steps == 25


def test_the_configuration_is_checked_and_written() -> None:
    few = distilled(SHAPES_CONFIG, 4, 0.5)
    assert (few.guidance_scale, few.solver, few.eta, few.sampling_steps) == (1.0, "ddim", 0.5, 4)
    assert from_json(ModelConfig, to_json(few)) == few and few.distilled
    with pytest.raises(ValueError, match=r"ModelConfig\.eta: .* other than ddim, .*0\.5"):
        replace(few, solver="euler")
    with pytest.raises(ValueError, match=r"ModelConfig\.eta: .*1\.5"):
        replace(few, eta=1.5)
    with pytest.raises(ValueError, match=r"ModelConfig\.sampling_steps: wanted"):
        replace(few, sampling_steps=0)
