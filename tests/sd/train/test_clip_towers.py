"""The two towers of CLIP, their figures, and what its training is given, by hand."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sd.config import to_json
from sd.shapes.data import FRESH, example, fingerprint
from sd.text.tokenizer import Tokenizer
from sd.train import clip
from sd.train.contrastive_pairs import contrastive_pairs
from sd.train.shard import WHOLE, Shard
from tests.support.chance import seeded
from tests.support.tiny_training import CONFIG

IMAGES = torch.from_numpy(np.stack([example(0, i).image for i in range(3)]))


def residual(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    """x + conv(silu(norm(x)))."""
    y = F.group_norm(x, 8, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])
    return x + F.conv2d(F.silu(y), w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], padding=1)


@torch.no_grad()
def test_the_image_tower_is_the_network_it_is_said_to_be() -> None:
    """64 -> 16 -> 8 -> 4 pixels a side, with one, two and one residual steps; then two layers."""
    tower, generator = clip.ImageTower(5), seeded(0)
    w = dict(tower.named_parameters())
    for parameter in w.values():
        parameter.normal_(0.5, 0.1, generator=generator)
    kernels = {k: tuple(v.shape) for k, v in w.items() if v.ndim == 4 and "conv" not in k}
    assert list(kernels.values()) == [(48, 3, 4, 4), (96, 48, 3, 3), (128, 96, 3, 3)]
    first, second, third = (k.removesuffix(".weight") for k in kernels)
    x = IMAGES.permute(0, 3, 1, 2) / 127.5 - 1.0
    x = F.silu(F.conv2d(x, w[f"{first}.weight"], w[f"{first}.bias"], stride=4))
    x = F.conv2d(x, w[f"{second}.weight"], w[f"{second}.bias"], stride=2, padding=1)
    x = residual(residual(x, w, "features.3"), w, "features.4")
    x = F.conv2d(x, w[f"{third}.weight"], w[f"{third}.bias"], stride=2, padding=1)
    x = residual(x, w, "features.6")
    x = F.silu(F.group_norm(x, 8, w["features.7.weight"], w["features.7.bias"]))
    assert x.shape == (3, 128, 4, 4)
    x = F.linear(x.flatten(1), w["head.0.weight"], w["head.0.bias"])
    x = F.gelu(F.layer_norm(x, (512,), w["head.1.weight"], w["head.1.bias"]))
    wanted = F.linear(x, w["head.3.weight"], w["head.3.bias"])
    torch.testing.assert_close(tower(IMAGES), wanted, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_similarities_are_cosines_over_the_temperature() -> None:
    """At first the temperature is 0.07; both vectors have 128 numbers (figure 3)."""
    module = clip.CLIP(CONFIG.text)
    tokens = torch.randint(0, 27, (3, 24), generator=seeded(0))
    tokens[:, -1] = 28
    words = module.text.pooled(tokens).double() @ module.text_projection.weight.double().T
    seen = module.image(IMAGES).double()
    assert words.shape == seen.shape == (3, 128)
    logits = module(IMAGES, tokens)
    for i, image in enumerate(seen):
        for j, text in enumerate(words):
            cosine = float(image @ text) / math.sqrt(float(image @ image) * float(text @ text))
            assert float(logits[i, j]) == pytest.approx(cosine / 0.07, rel=1e-4, abs=1e-5)


def test_the_loss_is_where_the_similarities_are() -> None:
    """Its tensors are made on their device, whatever the default."""
    logits, true = torch.eye(2) * 2.0, torch.eye(2).bool()
    with torch.device("meta"):
        loss, matched = clip.info_nce(logits, true)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-6)
    assert float(matched) == 1.0


class Similar(nn.Module):
    """Gives the similarities that stand where the images stand; its weights are elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, device="meta"))
        self.modes: list[bool] = []

    def forward(self, images: Tensor, tokens: Tensor, shard: Shard) -> Tensor:
        self.modes.append(self.training)
        return images


class Moved:
    """Stands for a tensor of a batch: notes where it is sent."""

    def __init__(self, value: Tensor, places: list[Any]) -> None:
        self.value, self.places = value, places

    def to(self, place: Any) -> Tensor:
        self.places.append(place)
        return self.value


def test_figures_are_means_over_the_batches_on_the_modules_device() -> None:
    """Two pairs: similarities (0 or 2 on the diagonal) give log 2 and log(1 + e^-2)."""
    asked: list[int] = []
    places: list[Any] = []
    module = Similar()

    def batch(step: int) -> Any:
        asked.append(step)
        logits = torch.eye(2) * (2.0 if step % 2 == 0 else 0.0)
        return [Moved(x, places) for x in (logits, torch.zeros(2), torch.eye(2).bool())]

    found = clip.matching(module, batch)
    assert asked == list(range(8))
    assert set(places) == {torch.device("meta")} and len(places) == 3 * 8
    assert module.modes == [False] * 8 and module.training
    wanted = (math.log(2.0) + math.log1p(math.exp(-2.0))) / 2
    # Of two equal similarities the first counts as the larger: one of two is matched.
    assert found == pytest.approx({"loss": wanted, "matched": (1.0 + 0.5) / 2}, rel=1e-6)


def test_what_changes_the_text_encoder_is_in_its_checkpoint() -> None:
    """The configuration, and digests of the data: of 64 examples, and of 8 groups of near twins.

    Runs resume across versions of the program, so these are a format.
    """
    pairs = contrastive_pairs(0, 0, 32, 1.0)
    found = hashlib.sha256(pairs.images.tobytes())
    found.update("\n".join(pairs.captions).encode())
    data = f"{fingerprint()} {found.hexdigest()[:16]}"
    assert clip.context(CONFIG.text) == {"config": to_json(CONFIG.text), "data": data}


def test_clip_is_trained_and_judged_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged on 8 batches of 256 fresh pairs: independent images, and groups of near twins."""
    made: list[tuple[Any, ...]] = []
    judged: list[tuple[Any, ...]] = []

    def batches(tokenizer: Tokenizer, pairs: Any) -> Any:
        assert tokenizer.encode(["a red ring"]).shape == (1, CONFIG.text.context_length)
        more = pairs.keywords
        made.append((pairs.func.__self__.seed, more["size"], more.get("alike", 0.5)))
        return made[-1]

    def matching(module: nn.Module, batch: Any, count: int) -> dict[str, float]:
        judged.append((module, batch, count))
        return {"loss": float(len(judged)), "matched": 0.5}

    fitted: list[tuple[Any, ...]] = []

    def fit(module: nn.Module, *rest: Any) -> dict[str, Tensor]:
        fitted.append((module, *rest))
        return module.state_dict()

    for name, stand_in in (("batches", batches), ("matching", matching), ("fit", fit)):
        monkeypatch.setattr(clip, name, stand_in)
    monkeypatch.setattr(clip, "context", lambda config, source: {"of": config})
    training = clip.CLIPTraining(seed=7, batch_size=12, out=tmp_path, cpu=True)
    state, figures = clip.train_clip(training, CONFIG.text)
    assert figures == {
        "fresh_loss": 1.0, "fresh_matched": 0.5, "fresh_alike_loss": 2.0, "fresh_alike_matched": 0.5
    }  # fmt: skip
    module, batch, loss, settings, evaluate, context = fitted[0]
    assert (batch, settings) == ((7, 12, 0.5), training)
    assert (loss.func, loss.keywords) == (clip.loss, {"shard": WHOLE})
    assert context == {"of": CONFIG.text}
    assert judged == [(module, (FRESH, 256, 0.0), 8), (module, (FRESH, 256, 1.0), 8)]
    judge: Callable[[nn.Module], dict[str, float]] = evaluate
    assert judge(module)["fresh_alike_loss"] == 4.0
    assert state.keys() == module.text.state_dict().keys()
