"""The evaluation's distances in closed form; a planted copy is found; a folder's run."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from experiments.evaluate import Config, TrainedModel
from experiments.evaluate.measure import features, frechet_distance, kernel_distance, nearest
from experiments.evaluate.run import Captioned, captioned, run
from experiments.evaluate.training import trained_side
from sd.pipeline import TextToImage
from sd.shapes.data import FRESH, example
from sd.train.folder import read_folder
from tests.support.captioned import captioned as folder_of

D = 3


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_fid_is_its_closed_form_for_a_shift_and_a_scale() -> None:
    """|m|^2, and (s - 1)^2 tr C."""
    x = normal(50, 0)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(x, x + shift) == pytest.approx(5.25, rel=1e-9)
    scaled = frechet_distance(x - x.mean(0), 3 * (x - x.mean(0)))
    assert scaled == pytest.approx(4.0 * float(torch.cov(x.T).trace()), rel=1e-9)


def test_kid_is_the_sum_over_pairs_of_different_samples() -> None:
    x, y = normal(6, 0), normal(8, 1) + 0.5

    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        terms = [
            (float(u @ v) / D + 1) ** 3
            for i, u in enumerate(a) for j, v in enumerate(b) if not (same and i == j)
        ]  # fmt: skip
        return sum(terms) / len(terms)

    wanted = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    value, error = kernel_distance(x, y)
    assert value == pytest.approx(wanted, rel=1e-10) and 0 < error < math.inf


def test_the_error_of_kid_is_its_deviation() -> None:
    """Over independent samples of two distributions that differ; 30 of them know it to 13%."""
    found = [kernel_distance(normal(200, 2 * i), normal(200, 2 * i + 1) + 0.7) for i in range(30)]
    values, errors = torch.tensor(found).T
    assert 0.7 < float(errors.mean() / values.std()) < 1.45


def test_kid_tells_a_shift_from_none() -> None:
    same, error = kernel_distance(normal(400, 0), normal(400, 1))
    shifted, _ = kernel_distance(normal(400, 0), normal(400, 1) + 0.5)
    assert abs(same) < 5 * error < shifted


def test_a_copy_is_the_nearest_image_at_distance_zero() -> None:
    rng = np.random.default_rng(0)
    others = torch.from_numpy(rng.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8))
    changed = others[3:4].clone()
    changed[0, 0, 0, 0] ^= 64
    distance, index = nearest(torch.cat([others[2:3], changed]), others)
    assert index.tolist() == [2, 3] and float(distance[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(distance[1]) == pytest.approx(64 / math.sqrt(48), rel=1e-6)


def test_features_are_cells_of_the_mean_latent() -> None:
    class Doubled:
        """Stands for a VAE that halves the side."""

        def encode(self, x: Tensor) -> object:
            return type("Latent", (), {"mean": 2.0 * x[:, :1, ::2, ::2]})

    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    images[1, :, :4, :4] = 255
    found = features(Doubled(), images, batch=2)
    assert found.shape == (3, 16) and found.dtype == torch.float64
    assert found[1, 0] == 2.0 and (found[0] == -2.0).all() and (found[1, 1:] == -2.0).all()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"dtype": "bfloat16"}, "dtype: wanted its default here"),
        ({"engine": "compile"}, "engine: wanted its default here"),
        ({"low_memory": True}, "low.memory: wanted its default here"),
        ({"weights": Path("mine")}, "data: wanted the folder that the model was trained on"),
    ],
)
def test_what_can_not_be_evaluated_is_refused(model: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Config(model=TrainedModel(**model))


def test_the_share_is_that_of_the_training(tmp_path: Path) -> None:
    """Another share would call trained images held out; another folder is said."""
    data = folder_of(tmp_path / "data", {f"{i}.png": [f"n {i}"] for i in range(20)})
    model = tmp_path / "model"
    model.mkdir()

    def known(fingerprint: str, share: float) -> dict[str, Captioned]:
        words = {"settings": json.dumps({"data": f"{fingerprint} 0.25 True"})}
        save_file({"x": torch.zeros(1)}, model / "unet.safetensors", words)
        config = Config(data=data, held_out=share, model=TrainedModel(weights=model))
        return captioned(config, 8)

    own = read_folder(data, 8).fingerprint
    with pytest.raises(ValueError, match=r"held.out: wanted 0\.25, that of the training"):
        known(own, 0.5)
    assert len(known(own, 0.25)["all"].images) == 30  # mirrored ones too
    with pytest.warns(UserWarning, match="--data: not the folder that the model was trained on"):
        known("another", 0.25)


def lora(path: Path, data: str, side: int = 8) -> str:
    """A LoRA file with the settings of a training."""
    settings = {"data": data, "model": json.dumps({"image_size": side})}
    save_file({"x": torch.zeros(1)}, path, {"settings": json.dumps(settings)})
    return str(path)


def test_the_share_is_that_of_a_loras_training(tmp_path: Path) -> None:
    """Also where another program's LoRA, which says nothing, stands beside it."""
    data = folder_of(tmp_path / "data", {f"{i}.png": [f"n {i}"] for i in range(20)})
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"settings": "rank 4"})
    other = str(tmp_path / "other.safetensors")
    own = lora(tmp_path / "own.safetensors", f"{read_folder(data, 8).fingerprint} 0.25 True")

    def known(share: float, *loras: str) -> dict[str, Captioned]:
        model = TrainedModel(weights=tmp_path / "none", lora=loras)
        return captioned(Config(data=data, held_out=share, model=model), 8)

    with pytest.raises(
        ValueError, match=r"^--held-out: wanted 0\.25, .*own\.safetensors, got 0\.5"
    ):
        known(0.5, other, f"{own}:0.5")
    assert len(known(0.25, own)["all"].images) == 30  # mirrored ones too
    assert len(known(0.5, other)["all"].images) == 10
    elsewhere = lora(tmp_path / "far.safetensors", "another 0.25 False")
    with pytest.warns(UserWarning, match=r"--data: not the folder that the LoRA .*far\.safe"):
        known(0.5, elsewhere)


def test_the_size_is_that_of_a_loras_training(tmp_path: Path) -> None:
    """At another size other images would be held out."""
    one, two = (lora(tmp_path / f"{side}.safetensors", "x 0.1 False", side) for side in (16, 24))

    def side(*loras: str) -> int:
        return trained_side(Config(data=tmp_path, model=TrainedModel(lora=loras)), 64)

    assert (side(), side(one), side(one, f"{one}:2")) == (64, 16, 16)
    with pytest.raises(ValueError, match=r"^--lora: wanted .* at one size, got 16 and 24"):
        side(one, two)


class DrawnError(Exception):
    """Stops an evaluation where it would sample."""


@pytest.mark.filterwarnings("ignore:--data. ")
def test_the_images_and_the_loss_are_of_the_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caption's marks are text: its tokens are those of the training in every call."""
    captions = [f"a large (red) circle [{colour}] BREAK" for colour in ("blue", "green")]
    data = folder_of(tmp_path, {f"{i}.png": [captions[i % 2]] for i in range(8)}, side=64)
    model = TextToImage.load("shapes", device="cpu")
    encode, seen = model.text_encoder.forward, set()

    def counted(tokens: Tensor) -> Tensor:
        seen.update(map(tuple, tokens.tolist()))
        return encode(tokens)

    def draw(pipeline: TextToImage, prompts: list[str], *_: object, **call: Any) -> None:
        pipeline.encode_prompts(prompts, call["long_prompt"])
        raise DrawnError

    monkeypatch.setattr(model.text_encoder, "forward", counted)
    monkeypatch.setattr("experiments.evaluate.run.draw", draw)
    with pytest.raises(DrawnError):
        run(Config(data=data, held_out=0.5, count=4), model)
    assert seen == {tuple(row) for row in model.tokenizer.encode(captions).tolist()}


def test_an_inpainting_model_is_refused() -> None:
    model = TextToImage.load("shapes", device="cpu")
    unet = replace(model.config.unet, in_channels=9)
    model = replace(model, config=replace(model.config, unet=unet))
    with pytest.raises(ValueError, match=r"^--model: wanted a text-to-image model, not one for"):
        run(Config(count=4), model)


def test_the_sides_of_a_folder_are_those_of_its_training(tmp_path: Path) -> None:
    data = folder_of(tmp_path, {f"{i}.png": [f"n {i}"] for i in range(20)})
    known = captioned(Config(data=data, held_out=0.25, count=4), 8)
    assert {name: len(one.images) for name, one in known.items()} == {
        "held-out": 4, "training": 4, "all": 15,
    }  # fmt: skip
    held, trained = set(known["held-out"].captions), set(known["all"].captions)
    assert not held & trained and set(known["training"].captions) < trained
    with pytest.raises(ValueError, match=r"^held_out: wanted 4 or more images on both"):
        captioned(Config(data=data, held_out=0.1), 8)


def test_without_a_folder_the_images_are_captioned_shapes() -> None:
    known = captioned(Config(count=4), 64)
    first = torch.from_numpy(example(FRESH, 950_000).image).permute(2, 0, 1)
    assert torch.equal(known["held-out"].images[0], first)
    assert known["training"].captions[1] == example(0, 1).caption
