"""What a step is trained on: every caption is its own image's, and nothing is kept for judging.

The images are read by the rule-based image reader, which shares no code with the captions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_math.schedule import Discrete
from sd.config import SHAPES_CONFIG
from sd.networks.text_encoder import TextEncoder
from sd.networks.vae import VAE, Latent
from sd.shapes.caption import parse
from sd.shapes.data import FRESH, example
from sd.shapes.reader import agrees, describe_image
from sd.text.tokenizer import Tokenizer
from sd.train import clip, evaluation, source, unet, vae
from sd.train.contrastive_pairs import contrastive_pairs
from sd.train.source import Shapes
from tests.support.chance import Mean, rare, shifted
from tests.support.distribution import line
from tests.support.network_stand_ins import Drawing
from tests.support.tiny_training import CONFIG

COUNT = 100


class Heard(Tokenizer):
    """Keeps what is said; its tokens are places in that."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def encode(self, prompts: Sequence[str], truncate: bool = False) -> Tensor:
        self.said = list(prompts)
        return torch.arange(len(prompts))


class Plain(TextEncoder):
    """Gives back the tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def batches(
    latent: Callable[[int], Latent], steps: int = 3, **settings: Any
) -> list[tuple[Tensor, list[str]]]:
    """Latents and captions of the first steps of the U-Net's training."""
    heard, found = Heard(), []

    def take(module: nn.Module, batch: Callable[[int], Any], *_: Any) -> dict[str, Tensor]:
        for step in range(steps):
            x0, order = batch(step)
            found.append((x0, [heard.said[i] for i in order]))
        return {}

    training = unet.UNetTraining(latents=COUNT, batch_size=64, cpu=True, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "encode", lambda *_, **__: latent(COUNT))
        patch.setattr(unet, "fit", take)
        networks = VAE(CONFIG.vae), Plain(CONFIG.text)
        unet.train_unet(training, CONFIG, *networks, heard, Discrete.scaled_linear(1000))
    return found


def numbered(count: int) -> Latent:
    """Latents that are the image's number, without spread."""
    number = torch.arange(float(count)).reshape(-1, 1, 1, 1)
    return Latent(number, torch.zeros_like(number))


def test_a_latents_caption_says_what_its_own_picture_shows() -> None:
    for x0, said in batches(numbered, drop=0.0):
        for number, text in zip(x0.flatten().int().tolist(), said, strict=True):
            asked = parse(text)
            assert asked is not None
            assert agrees(describe_image(example(0, number).image), asked), (number, text)


def test_all_or_no_captions_are_dropped_at_the_ends() -> None:
    assert {text for _, said in batches(numbered, drop=1.0) for text in said} == {""}
    assert all(text for _, said in batches(numbered, drop=0.0) for text in said)


def test_images_of_two_things_alone_or_none_at_the_ends() -> None:
    for two in (0.0, 1.0):
        for x0, _ in batches(numbered, two=two):
            things = {len(example(0, i).scene.things) for i in x0.flatten().int().tolist()}
            assert things == {1 + int(two)}


def spread(mean: float, variance: float, seed: int) -> Tensor:
    """Latents that are drawn where all have one mean and one variance."""

    def latent(count: int) -> Latent:
        shape = (count, 4, 8, 8)
        return Latent(torch.full(shape, mean), torch.full(shape, variance))

    return torch.cat([x0 for x0, _ in batches(latent, seed=seed)])


def test_a_latent_is_its_mean_and_its_standard_deviation_times_a_draw() -> None:
    """mean + sqrt(variance) z, with one z whatever they are."""
    z = spread(0.0, 1.0, 3)
    assert 0.5 < float(z.std()) < 2.0
    torch.testing.assert_close(spread(3.0, 0.25, 3), 3.0 + 0.5 * z, rtol=0, atol=1e-6)


@pytest.mark.chance(4e-9, "a quarter of the variance, or a mean of 0.1")
def test_the_draw_of_a_latent_is_standard_normal() -> None:
    z, law = spread(0.0, 1.0, shifted(0)).double().flatten(), line()
    first, second = Mean(law, len(z), 1e-9), Mean(law.of(torch.square), len(z), 1e-9)
    assert first.holds(z.mean()) and second.holds(z.square().mean())
    assert rare(second.misses(law.of(lambda z: 0.25 * z.square())))
    assert rare(first.misses(law.of(lambda z: z + 0.1)))


def test_encoded_latents_are_those_of_the_images_in_order() -> None:
    """The last batch is a short one."""

    class Corner(VAE):
        def encode(self, x: Tensor) -> Latent:
            return Latent(x[:, :1, :1, :1], x.mean(dim=(1, 2, 3), keepdim=True))

    found = unet.encode(Corner(CONFIG.vae), Shapes(5, 7), torch.device("cpu"), batch=3)
    for index in range(7):
        image = torch.from_numpy(example(5, index).image).float() / 127.5 - 1
        assert float(found.mean[index]) == pytest.approx(float(image[0, 0, 0]), abs=1e-6)
        assert float(found.variance[index]) == pytest.approx(float(image.mean()), abs=1e-5)


def test_a_pairs_caption_says_what_its_own_picture_shows() -> None:
    """Of independent examples and of near twins, a caption of which may be true of another."""
    for step in range(3):
        found = contrastive_pairs(0, step, 32, 0.5)
        for image, text in zip(found.images[:16], found.captions[:16], strict=True):
            asked = parse(text)
            assert asked is not None and agrees(describe_image(image), asked), text
        said = [parse(text) for text in found.captions]
        shown = [describe_image(image) for image in found.images]
        wrong = sum(
            asked is None or not agrees(one, asked) for one, asked in zip(shown, said, strict=True)
        )
        assert wrong <= 2  # an altered thing may leave the image, where the reader is not sure
        assert found.true.diagonal().all()


@contextmanager
def seeds() -> Iterator[set[int]]:
    """The first number of every seed that numpy's generators get."""
    found: set[int] = set()
    default_rng = np.random.default_rng

    def noted(seed: Any = None) -> np.random.Generator:
        found.add(int(np.atleast_1d(seed)[0]))
        return default_rng(seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "default_rng", noted)
        yield found


def test_nothing_is_judged_on_what_was_trained_on() -> None:
    """Training draws from data sets below `FRESH` (its seeds end there), judging from the others.

    Data sets of two numbers share no example: the number is the first word of each seed, and all
    are below 2^32.
    """
    last, batch = FRESH - 1, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "fit", lambda _, drawn, *__: batch.append(drawn) or {})
        vae.train_vae(vae.VAETraining(batch_size=2, seed=last), CONFIG.vae)
    with seeds() as trained_on:
        for step in (0, 50_000):
            clip.batches(Tokenizer.embedded(), partial(Shapes(last).pairs, size=8))(step)
            batch[0](step)
    with seeds() as judged_on, torch.no_grad():
        evaluation.reconstruction(VAE(CONFIG.vae).eval(), 2)
        evaluation.accuracy(Drawing(True, True), 2)
    assert trained_on == {last}
    assert judged_on and min(judged_on) >= FRESH
    assert max(judged_on) < 2**32


def test_the_autoencoders_figures_are_of_fresh_images() -> None:
    evaluate, judged = [], []

    def psnr(network: nn.Module, images: Tensor) -> Tensor:
        judged.append(images)
        return torch.ones(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "psnr", psnr)
        patch.setattr(vae, "fit", lambda *given: evaluate.append(given[4]) or {})
        vae.train_vae(vae.VAETraining(), CONFIG.vae)
        evaluate[0](VAE(CONFIG.vae))
    fresh = torch.stack([torch.from_numpy(example(FRESH, i).image) for i in range(256)])
    assert torch.equal(judged[0], fresh.permute(0, 3, 1, 2))


def test_clips_figures_are_on_none_of_its_batches(tmp_path: Path) -> None:
    """Seen at the batches: those judged are of the data set `FRESH`."""
    asked: list[tuple[int, int]] = []
    draw = contrastive_pairs

    def noted(seed: int, step: int, size: int, alike: float, own: slice) -> Any:
        asked.append((seed, step))
        return draw(seed, step, 8, alike)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "contrastive_pairs", noted)
        patch.setattr(clip, "fit", lambda module, *_: module.state_dict())
        patch.setattr(clip, "context", lambda *_: {})
        clip.train_clip(clip.CLIPTraining(seed=3, out=tmp_path, cpu=True), SHAPES_CONFIG.text, 2)
    assert {seed for seed, _ in asked} == {FRESH}
    assert len(set(asked)) == 2
