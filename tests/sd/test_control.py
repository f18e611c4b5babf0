"""Whole runs with ControlNets beside diffusers' pipelines, and the steps in which they act."""

import json
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sd.checkpoint import load_controlnet
from sd.config import ControlNetConfig
from sd.control import Control, Residuals
from sd.control_map import of_scene
from sd.networks.controlnet import ControlNet
from sd.pipeline import TextToImage
from sd.shapes.data import FRESH, described
from sd.shapes.placement import NEAR, placement_errors
from sd.shapes.semantic import class_map
from sd.weights import read_metadata
from tests.support import control_run
from tests.support.control_run import Given, apart, hint
from tests.support.controlnets import peer_controlnet
from tests.support.measuring import Measured
from tests.support.small_models import V1, peers

SIDE = 32
CONFIG = ControlNetConfig(V1.unet, hint_channels=(6, 10))  # the small VAE halves a side once
EDGES, OTHER = Given(11, hint(SIDE, 1)), Given(12, hint(SIDE, 2), 0.6)
TOLERANCE = 1e-4  # of the largest latent: float32's rounding, which guidance multiplies by 7.5


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return control_run.small(tmp_path_factory.mktemp("model"), V1)


def run(pipeline: TextToImage, *given: Given, **call: Any) -> Tensor:
    return control_run.ours(pipeline, list(map(ours, given)), SIDE, **call)


def ours(given: Given) -> Control:
    net = ControlNet(CONFIG).eval().requires_grad_(False)
    net.load_state_dict(peer_controlnet(CONFIG, given.seed).state_dict())
    return Control(net, given.image, given.scale, given.start, given.end)


def theirs(pipeline: TextToImage, *given: Given, **call: Any) -> Tensor:
    nets: list[nn.Module] = [peer_controlnet(CONFIG, one.seed) for one in given]
    made = peers(V1)
    return control_run.theirs(pipeline, made["unet"], made["vae"], nets, given, SIDE, **call)


SLOW = ("weaker", "early", "two", "late")
"""Each of what these show is in the others too."""

RUNS = {
    "one": (EDGES,),
    "weaker": (OTHER,),
    "early": (Given(11, EDGES.image, 1.0, 0.0, 0.5),),
    "late": (Given(11, EDGES.image, 1.0, 0.3, 1.0),),
    "two": (EDGES, OTHER),
    "two by turns": (Given(11, EDGES.image, 1.0, 0.0, 0.6), Given(12, OTHER.image, 0.7, 0.25)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in RUNS]
)
def test_a_run_is_diffusers(name: str, pipeline: TextToImage) -> None:
    found, wanted = run(pipeline, *RUNS[name]), theirs(pipeline, *RUNS[name])
    assert apart(found, wanted) < TOLERANCE
    whole = [replace(one, start=0.0, end=1.0) for one in RUNS[name]]
    other = whole if whole != list(RUNS[name]) else [replace(one, scale=0.9) for one in whole]
    assert apart(run(pipeline, *other), wanted) > 10 * TOLERANCE


def test_a_run_without_guidance_is_diffusers(pipeline: TextToImage) -> None:
    found = run(pipeline, EDGES, guidance_scale=1.0)
    assert apart(found, theirs(pipeline, EDGES, guidance_scale=1.0)) < TOLERANCE


def test_an_image_does_not_depend_on_its_batch(pipeline: TextToImage) -> None:
    call = {"steps": 3, "height": SIDE, "width": SIDE, "progress": False, "controls": [ours(EDGES)]}
    alone = pipeline("word1", seed=1, **call)[0]
    together = pipeline(["word2", "word1"], seed=[0, 1], **call)[1]
    off = np.abs(np.asarray(alone, dtype=int) - np.asarray(together, dtype=int))
    assert off.max() <= 1


@pytest.mark.parametrize("steps", [1, 4, 7, 20])
@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 0.5), (0.3, 1), (0.25, 0.75), (0.9, 1)])
def test_the_steps_of_a_share_are_diffusers(steps: int, start: float, end: float) -> None:
    """The line of StableDiffusionControlNetPipeline that computes `controlnet_keep`."""
    keep = [1.0 - float(i / steps < start or (i + 1) / steps > end) for i in range(steps)]
    control = Control(ours(EDGES).network, EDGES.image, 0.7, start, end)
    assert control.weights(steps) == [0.7 * one for one in keep]


def test_an_evaluation_counts_to_the_step_that_holds_it(pipeline: TextToImage) -> None:
    """At a node to the step that starts there; between two nodes to the step around it."""
    schedule, times = pipeline.schedule, torch.tensor([1000.0, 700.5, 300.0, 0.0]).double()
    control = Control(ours(EDGES).network, EDGES.image, 1.0, 0.3, 0.7)  # the second step of three
    residuals = Residuals([control], schedule, times, torch.float32)
    x, context = torch.ones(1, 4, 16, 16), torch.ones(1, 5, 64)

    def acts(t: float) -> bool:
        return residuals(x, torch.tensor([t - 1]), context) is not None

    seen = {t: acts(t) for t in (1000.0, 701.0, 700.5, 500.0, 300.5, 300.0, 1.0)}
    assert seen == {
        1000.0: False,
        701.0: False,
        700.5: True,
        500.0: True,
        300.5: True,
        300.0: False,
        1.0: False,
    }
    rows = residuals(
        x.expand(2, -1, -1, -1), torch.tensor([999.0, 499.0]), context.expand(2, -1, -1)
    )
    assert rows is not None and not rows[0][0].any() and rows[0][1].any()


def test_what_does_not_fit_is_refused(pipeline: TextToImage) -> None:
    call: dict[str, Any] = {"height": SIDE, "width": SIDE, "steps": 2, "progress": False}
    small = Control(ours(EDGES).network, hint(16, 1))
    with pytest.raises(ValueError, match=r"control.image: wanted 32 x 32 pixels.* got 16 x 16"):
        pipeline("word1", controls=[small], **call)
    half = replace(pipeline, dtype=torch.bfloat16)
    with pytest.raises(
        ValueError, match=r"controls: wanted .*bfloat16 on cpu, as the pipeline's, got .*float32"
    ):
        half("word1", controls=[ours(EDGES)], **call)
    wide = ControlNetConfig(V1.unet, hint_channels=(4, 4, 4))
    with pytest.raises(ValueError, match=r"control: wanted a map downsampled by 2.* got by 4"):
        wide.require_fit(V1)
    other = replace(CONFIG, encoder=replace(V1.unet, context_width=768))
    with pytest.raises(
        ValueError, match=r"control: wanted context_width 64.* got context_width 768"
    ):
        other.require_fit(V1)
    with pytest.raises(ValueError, match=r"Control.start, end: wanted 0 <= start < end <= 1"):
        Control(small.network, small.image, 1.0, 0.5, 0.5)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"Control.scale: wanted a finite number above 0"):
            Control(small.network, small.image, scale)
    idle = Control(ours(EDGES).network, EDGES.image, 1.0, 0.4, 0.6)
    with pytest.warns(UserWarning, match="controls 1 of 1: no effect, since no step lies between"):
        pipeline("word1", controls=[idle], **call)


def test_a_file_in_the_pipeline(pipeline: TextToImage, tmp_path: Path) -> None:
    peer_controlnet(CONFIG, EDGES.seed).save_pretrained(tmp_path)
    control = Control(load_controlnet(tmp_path), EDGES.image)
    found = control_run.ours(pipeline, [control], SIDE)
    assert torch.equal(found, run(pipeline, EDGES))


@pytest.mark.claim("C27", "sd.control.Control")
def test_c27_things_are_where_the_map_has_them(measured: Measured) -> None:
    """The embedded ControlNet, on fresh scenes; without it they are elsewhere."""
    pipeline, net = TextToImage.load("shapes", device="cpu"), load_controlnet("shapes")
    errors: dict[bool, list[float]] = {True: [], False: []}
    for index in (1, 2, 3):
        scene, prompt = described(FRESH + 3, index)
        control = Control(net, of_scene(scene))
        for on in errors:
            (image,) = pipeline(prompt, steps=10, controls=[control] * on, progress=False)
            errors[on] += placement_errors(np.asarray(image), class_map(scene))
    assert max(errors[False]) > 2 * NEAR
    measured(max(errors[True]), NEAR, "pixels of 64 between a thing and its place in the map")


def test_the_embedded_controlnet_is_small_and_says_how_it_was_made() -> None:
    with as_file(files("sd") / "assets" / "shapes" / "control.safetensors") as path:
        assert path.stat().st_size <= 6e6
        words = read_metadata(path)
    assert words["licence"] == "MIT" and words["command"].startswith("python -m sd.train --keep ")
    assert {"judged", "in_place", "with_map", "without_map"} == json.loads(words["figures"]).keys()
    model = TextToImage.load("shapes", device="cpu").config
    load_controlnet("shapes").settings.require_fit(model)
