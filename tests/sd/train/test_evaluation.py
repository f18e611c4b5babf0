"""The figures: which prompts they are of, which images; and the loss and scale behind them."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_math.schedule import Discrete
from sd.control_map import of_scene
from sd.networks.controlnet import ControlNet
from sd.networks.vae import VAE, Latent
from sd.pipeline import TextToImage
from sd.shapes.accuracy import fresh_prompts
from sd.shapes.caption import parse
from sd.shapes.data import FRESH, described, example
from sd.shapes.render import render
from sd.shapes.scene import HELD_OUT
from sd.train import clip, evaluation, unet
from sd.train.control import control_config
from tests.support.network_stand_ins import COUNT, Drawing, Knowing
from tests.support.tiny_training import CONFIG


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("guided", [None, False, True])
def test_accuracy_is_that_of_the_prompts_it_is_named_for(
    seen: bool, held_out: bool, guided: bool | None
) -> None:
    """Seen and held-out pairs, with and without guidance: each figure is 1 or 0 by itself."""
    model = Drawing(seen, held_out, guided)
    found = evaluation.accuracy(model, COUNT)
    assert found.pop("judged") == COUNT
    assert found == {
        f"{pairs}_{name}": float(right and guided in (None, cfg))
        for pairs, right in (("seen", seen), ("held_out", held_out))
        for name, cfg in (("guided", True), ("unguided", False))
    }
    assert model.seeds == 4 * list(range(COUNT))


def test_prompts_are_seen_or_held_out_as_they_are_called() -> None:
    for held in (False, True):
        for prompt in fresh_prompts(0, 50, held):
            asked = parse(prompt)
            assert asked is not None
            named = {(thing.color, thing.shape) for thing in asked.things}
            assert bool(named & HELD_OUT) == held


class Copying(VAE):
    """Stands for the VAE: gives back every image, or a grey one after the first few."""

    def __init__(self, right: int) -> None:
        super().__init__(CONFIG.vae)
        self.right = right

    def encode(self, x: torch.Tensor) -> Latent:
        return Latent(x, torch.zeros_like(x))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z[: self.right], torch.zeros_like(z[self.right :])])


@pytest.mark.parametrize("right", [0, 2, 3])
def test_reconstructions_are_read_beside_their_own_images(right: int) -> None:
    found = evaluation.reconstruction(Copying(right), 3)
    assert found["read_rightly"] == pytest.approx(right / 3)
    assert (found["psnr_db"] > 160) == (right == 3)
    assert found["judged"] == 3


def test_every_image_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 120 fresh images in blocks of fifty, each beside its own description."""
    seen: list[tuple[object, object]] = []

    def images(seed: int, indices: range) -> torch.Tensor:
        numbers = torch.tensor(list(indices), dtype=torch.uint8).reshape(-1, 1, 1, 1)
        return numbers.expand(-1, 3, 1, 1)

    def agrees(read: int, wanted: int) -> bool:
        seen.append((read, wanted))
        return read % 3 == 0

    monkeypatch.setattr(evaluation, "images", images)
    monkeypatch.setattr(evaluation, "psnr", lambda _, image: image[:, 0, 0, 0].float())
    monkeypatch.setattr(evaluation, "example", lambda seed, i: SimpleNamespace(scene=i))
    monkeypatch.setattr(evaluation, "describe", lambda scene: scene)
    monkeypatch.setattr(evaluation, "describe_image", lambda image: int(image[0, 0, 0]))
    monkeypatch.setattr(evaluation, "agrees", agrees)
    found = evaluation.reconstruction(Copying(120), 120)
    assert seen == [(i, i) for i in range(120)]
    assert found == {"judged": 120, "psnr_db": 119 / 2, "read_rightly": pytest.approx(1 / 3)}


def test_images_are_drawn_without_a_bar() -> None:
    shown = []

    class Shown(Drawing):
        def __call__(self, some: Sequence[str], *given: Any, progress: bool, **named: Any) -> Any:
            shown.append(progress)
            return super().__call__(some, *given, progress=progress, **named)

    evaluation.accuracy(Shown(True, True), 1)
    assert shown == 4 * [False]


def test_the_temperature_of_clip_is_at_most_a_hundred() -> None:
    """Similarities are cosines times exp(log_scale), the factor no more than 100 (figure 3)."""
    torch.manual_seed(0)
    module = clip.CLIP(CONFIG.text)
    images = torch.from_numpy(np.stack([example(0, i).image for i in range(4)]))
    tokens = torch.randint(0, 27, (4, 24))
    tokens[:, -1] = 28
    logits = []
    with torch.no_grad():
        for scale in (1.0, 50.0, 100.0, 1e4):
            module.log_scale.fill_(float(np.log(scale)))
            logits.append(module(images, tokens))
    one, fifty, hundred, more = logits
    torch.testing.assert_close(fifty, 50 * one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hundred, 100 * one, rtol=1e-4, atol=1e-5)
    assert torch.equal(more.abs().clamp(max=100), more.abs())
    torch.testing.assert_close(more, hundred, rtol=1e-4, atol=1e-4)
    assert float(one.abs().max()) > 1e-3


@pytest.mark.parametrize("shape", [(8, 1, 1, 1), (8, 4, 2, 3), (1, 4, 8, 8)])
def test_the_u_nets_loss_is_a_mean_over_all_numbers(shape: tuple[int, ...]) -> None:
    """An error of 0.3 in every number of x_0 is a loss of 0.09, whatever the shape."""
    x0 = torch.zeros(shape)
    loss = unet.unet_loss(Discrete.scaled_linear(1000), "sample")
    context, generator = torch.zeros(len(x0), 1, 1), torch.Generator().manual_seed(0)
    found = loss(Knowing("sample", x0, error=0.3), (x0, context), generator)
    assert float(found["loss"]) == pytest.approx(0.09, rel=1e-5)


class Obeying(TextToImage):
    """Stands for the model: with a map it draws every n-th scene a little off, without none."""

    config = CONFIG

    def __init__(self, wrong: int, off: float) -> None:
        self.wrong, self.off = wrong, off

    def __call__(self, some: Any, seed: Any, progress: bool, controls: Any = ()) -> Any:
        if not controls:
            return [np.zeros((64, 64, 3), np.uint8) for _ in some]
        scene, words = described(FRESH, seed)
        assert words == some and controls[0].image == of_scene(scene)
        if seed % self.wrong == 0:
            moved = tuple(
                replace(one, x=one.x * self.off, y=one.y * self.off) for one in scene.things
            )
            scene = replace(scene, things=moved)
        return [render(scene)]


def test_with_a_map_places_and_prompts_are_judged() -> None:
    """Scenes drawn nearer to the centre still show their prompts, but not in the places."""
    network = ControlNet(control_config(CONFIG))
    counts = [len(described(FRESH, index)[0].things) for index in range(12)]
    found = evaluation.controlled(Obeying(100, 1.0), network, 12)
    assert found == {"judged": 12, "in_place": 1.0, "with_map": 1.0, "without_map": 0.0}
    found = evaluation.controlled(Obeying(3, 0.6), network, 12)
    assert found["in_place"] == pytest.approx(1 - sum(counts[::3]) / sum(counts))
