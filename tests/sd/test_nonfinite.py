"""A number that is not finite stops the run, and the message says where it arose."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sd import checkpoint, weights
from sd.config import TextConfig, UNetConfig, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.nonfinite import require_finite, vae_dtype
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer, word_level
from tests.support.pixel_pipeline import Nothing, model, photo

FACTOR = 2e5
"""The decoder's first feature map is this many times as large as drawn; float16 ends at 65504."""


class Failing(Nothing):
    """Answers with `value` at the given call, counted from 1."""

    def __init__(self, call: int, value: float) -> None:
        super().__init__()
        self.call, self.value, self.calls = call, value, 0

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        self.calls += 1
        answer = super().forward(x, t, context)
        if self.calls == self.call:
            answer[..., -1, -1] = self.value
        return answer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("solver", "call"), [("dpmpp_2m", 2), ("ddpm", 2), ("heun", 4)])
def test_the_step_of_a_walk_is_named(solver: str, call: int, value: float) -> None:
    """Heun's second step has the third and the fourth answer."""
    unet = Failing(call, value)
    words = "float16 U-Net, step 2 of 4 (t = 750): not finite; try dtype bfloat16 or float32"
    with pytest.raises(FloatingPointError) as caught:
        model(unet, torch.float16)("red", steps=4, solver=solver, progress=False)
    assert str(caught.value) == words
    assert unet.calls == call  # not one step further


def returns(value: float, like: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def network(x: Tensor) -> Tensor:
        answer = like(x).clone()
        answer[..., -1] = value
        return answer

    return network


def test_the_other_networks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = model(Nothing(), torch.float32)
    monkeypatch.setattr(pipeline.vae, "decode", returns(math.nan, lambda z: z))
    with pytest.raises(FloatingPointError, match=r"^float32 VAE decoder: not finite; try a lower"):
        pipeline("red", steps=1, progress=False)
    encode = pipeline.vae.encode
    monkeypatch.setattr(
        pipeline.vae, "encode", lambda x: encode(x)._replace(mean=torch.full_like(x, math.inf))
    )
    with pytest.raises(FloatingPointError, match=r"^float32 VAE encoder: not finite"):
        pipeline("red", image=photo(1), steps=1, progress=False)
    text = returns(math.nan, lambda tokens: tokens[..., None].float())
    monkeypatch.setattr(pipeline.text_encoder, "forward", text)
    with pytest.raises(FloatingPointError, match=r"^float32 text encoder: not finite"):
        pipeline("red", steps=1, progress=False)


def test_what_is_finite_passes_untouched() -> None:
    largest = torch.tensor([torch.finfo(torch.float16).max], dtype=torch.float16)
    assert require_finite(largest, "x") is largest
    assert require_finite(torch.empty(0, 3), "x").shape == (0, 3)
    with pytest.raises(FloatingPointError, match=r"^bfloat16 x: not finite; try a lower guidance"):
        require_finite(torch.tensor(math.nan), "x", torch.bfloat16)


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose VAE has weights that float16 holds, and activations that it doesn't."""
    folder = tmp_path_factory.mktemp("loud")
    parts: dict[str, tuple[type[nn.Module], TextConfig | VAEConfig | UNetConfig]] = {
        "text_encoder": (TextEncoder, TextConfig(29, 8, 1, 2, 24, 16)),
        "vae": (VAE, VAEConfig(channels=(8, 8), layers_per_block=1, groups=2)),
        "unet": (UNet, UNetConfig(4, 4, (8,), 1, 2, 8, (True,), 4)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = {name: network(config) for name, (network, config) in parts.items()}
    with torch.no_grad():
        for half in (made["vae"].encoder, made["vae"].decoder):
            half.conv_in.weight.mul_(FACTOR)
    for name, network in made.items():
        weights.save_network(folder / f"{name}.safetensors", network, parts[name][1])
    word_level(Tokenizer.embedded().words).save(str(folder / "tokenizer.json"))
    return folder


def test_the_vae_has_room_beside_float16(loud: Path) -> None:
    pipeline = TextToImage.load(loud, device="cpu", dtype=torch.float16)
    assert pipeline.vae_dtype == torch.float32
    dtypes = {
        name: {one.dtype for one in getattr(pipeline, name).parameters()}
        for name in ("text_encoder", "vae", "unet")
    }
    assert dtypes == {
        "text_encoder": {torch.float16}, "vae": {torch.float32}, "unet": {torch.float16}
    }  # fmt: skip
    call = {"steps": 2, "width": 16, "height": 16, "progress": False}
    (drawn,) = pipeline("red", **call)
    (wanted,) = TextToImage.load(loud, device="cpu")("red", **call)
    off = np.asarray(drawn, dtype=float) - np.asarray(wanted, dtype=float)
    assert np.abs(off).max() <= 2  # the latents' rounding in float16
    assert np.asarray(wanted).std() > 10  # a picture, not a plain colour
    (redrawn,) = pipeline("red", image=drawn, **call)
    assert np.asarray(redrawn).std() > 10

    narrow = replace(pipeline, vae=pipeline.vae.half())
    object.__setattr__(narrow.vae, "decode", lambda z: VAE.decode(narrow.vae, z.half()))
    with pytest.raises(FloatingPointError, match=r"^float16 VAE decoder: not finite; try dtype bf"):
        narrow("red", **call)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_other_dtypes_are_the_vaes_own(dtype: torch.dtype, loud: Path) -> None:
    pipeline = TextToImage.load(loud, device="cpu", dtype=dtype)
    assert pipeline.vae_dtype == vae_dtype(dtype) == dtype
    assert {one.dtype for one in pipeline.vae.parameters()} == {dtype}


def test_a_checkpoints_vae_is_read_in_its_own_dtype(tmp_path: Path) -> None:
    """Read so, not widened afterwards: every bit of the file is there."""
    models = pytest.importorskip("tests.support.small_models")
    file = tmp_path / "model.safetensors"
    checkpoint.save_single(file, models.networks(models.V1))
    word_level([f"word{i}" for i in range(47)]).save(str(tmp_path / "tokenizer.json"))
    pipeline = TextToImage.load(
        file, device="cpu", dtype=torch.float16, tokenizer=tmp_path / "tokenizer.json"
    )
    wanted = models.truth(models.V1)["vae"]
    for name, found in pipeline.vae.state_dict().items():
        assert torch.equal(found, wanted[name]), name
    assert next(pipeline.unet.parameters()).dtype == torch.float16
