"""Networks that take turns in memory: the same pictures, one network's weights at a time."""

import gc
import sys
import weakref
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from sd import checkpoint
from sd.checkpoint import lora
from sd.checkpoint.component import Component
from sd.digest import model_digest
from sd.engine import with_engine
from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level
from tests.support import small_models
from tests.support.small_models import V1

PARTS = ("text_encoder", "vae.encoder", "unet", "vae.decoder")
WORDS = [f"word{i}" for i in range(47)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as a folder in float32, as a file of each kind, and its vocabulary."""
    place = tmp_path_factory.mktemp("turns")
    model = small_models.networks(V1)
    checkpoint.save_folder(place / "folder", model)
    checkpoint.save_single(place / "model.safetensors", model)
    checkpoint.save_single(place / "model.ckpt", model)
    (place / "folder" / "tokenizer").mkdir()
    word_level(WORDS).save(str(place / "folder" / "tokenizer" / "tokenizer.json"))
    return place


def load(place: Path, name: str = "folder", low: bool = True, **more: Any) -> TextToImage:
    if name not in ("folder", "shapes"):
        more["tokenizer"] = place / "folder" / "tokenizer"
    path = name if name == "shapes" else place / name
    return TextToImage.load(path, device="cpu", low_memory=low, **more)


def drawn(pipeline: TextToImage, **call: Any) -> np.ndarray:
    """A picture that every network has a part in."""
    photo = Image.new("RGB", (64, 64), (90, 160, 30))
    prompt = "word1 word7" if "word1" in pipeline.tokenizer.words else "a red ring"
    size = {"width": 32, "height": 32, "progress": False}
    (found,) = pipeline(prompt, image=photo, steps=2, strength=0.7, **size, **call)
    return np.asarray(found)


def part(pipeline: TextToImage, name: str) -> nn.Module:
    found: nn.Module = pipeline
    for one in name.split("."):
        found = getattr(found, one)
    return found


def filled(pipeline: TextToImage) -> list[str]:
    """The parts that have weights, all of them."""
    found = []
    for name in PARTS:
        kinds = {weight.device.type for weight in part(pipeline, name).parameters()}
        assert len(kinds) == 1
        found += [name] if kinds != {"meta"} else []
    return found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("folder", torch.float32),
        ("model.safetensors", torch.bfloat16),
        ("model.ckpt", torch.float32),
        ("shapes", torch.float32),
    ],
)
def test_the_same_pictures_bit_for_bit(name: str, dtype: torch.dtype, place: Path) -> None:
    """Twice, so that every network has a second turn; mapped, converted and our own files."""
    wanted, thrifty = load(place, name, low=False, dtype=dtype), load(place, name, dtype=dtype)
    assert filled(wanted) == [*PARTS] and filled(thrifty) == []
    for seed in (1, 2):
        assert np.array_equal(drawn(thrifty, seed=seed), drawn(wanted, seed=seed))
    assert not np.array_equal(drawn(thrifty, seed=1), drawn(thrifty, seed=2))
    other = load(place, name, dtype=torch.float16)
    assert model_digest(thrifty) == model_digest(wanted)
    assert (
        model_digest(other) != model_digest(wanted) or name == "shapes"
    )  # which is float16 in its file


def test_one_has_weights_while_it_works(place: Path) -> None:
    pipeline = load(place)
    seen: list[tuple[str, list[str]]] = []

    def looking(name: str) -> Callable[..., None]:
        return lambda module, given: seen.append((name, filled(pipeline)))

    first = {
        "text_encoder": "text_encoder.final_layer_norm",
        "vae.encoder": "vae.quant_conv",
        "unet": "unet.conv_in",
        "vae.decoder": "vae.decoder",
    }
    for name, module in first.items():
        part(pipeline, module).register_forward_pre_hook(looking(name))
    drawn(pipeline)
    works = [(name, [name]) for name in ("text_encoder", "vae.encoder", "unet", "vae.decoder")]
    assert [one for one, _ in groupby(seen)] == works
    assert filled(pipeline) == ["vae.decoder"]
    assert pipeline.offload is not None
    pipeline.offload.release()
    assert filled(pipeline) == []


def test_each_weight_goes_to_the_device_once_a_turn(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moves to a device that is not there, in their order."""
    pipeline, read, there = load(place), Component.read, torch.device("cuda")
    moved: list[tuple[str, str]] = []

    def moving(
        self: Component, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        assert device == there
        moved.append((self.kind, name))
        return read(self, name, shape, dtype, torch.device("cpu"))

    monkeypatch.setattr(Component, "read", moving)
    assert pipeline.offload is not None
    pipeline.offload.device = there
    drawn(pipeline)
    vae = [name for name, _ in pipeline.vae.named_parameters()]
    own = {name: [n for n, _ in part(pipeline, name).named_parameters()] for name in PARTS}
    assert moved == [
        *(("text_encoder", name) for name in own["text_encoder"]),
        *(("vae", name) for name in vae if name.startswith(("encoder", "quant"))),
        *(("unet", name) for name in own["unet"]),
        *(("vae", name) for name in vae if name.startswith(("decoder", "post_quant"))),
    ]
    moved.clear()
    pipeline.decode(torch.zeros(1, 4, 8, 8))  # it is the decoder's turn still
    assert moved == []


def test_weights_that_were_converted_are_freed(place: Path) -> None:
    pipeline = load(place, dtype=torch.bfloat16)
    held: list[weakref.ref[Tensor]] = []
    module = pipeline.unet.conv_in
    module.register_forward_pre_hook(lambda *_: held.append(weakref.ref(module.weight)))
    drawn(pipeline)
    gc.collect()
    assert held and all(ref() is None for ref in held)


def resident(path: Path) -> int:
    """Bytes of a file that this process has in memory."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_pages_of_the_file_are_given_back(ending: str, place: Path) -> None:
    """Those of other networks that lie beside the decoder's may be read with them, 2 MiB a time."""
    path = place / f"model.{ending}"
    thrifty = load(place, path.name)
    unet = sum(4 * weight.numel() for weight in thrifty.unet.parameters())
    assert resident(path) == 0
    during: list[int] = []
    drawn(thrifty, watch=lambda state: during.append(resident(path)))
    assert during[-1] > 0.9 * unet
    assert 0 < resident(path) < 0.7 * unet
    model_digest(thrifty)
    assert resident(path) < 0.7 * unet
    assert thrifty.offload is not None
    thrifty.offload.release()
    assert resident(path) == 0
    whole = load(place, path.name, low=False)
    drawn(whole)
    assert resident(path) > 0.9 * unet


def test_a_lora_stays(place: Path, tmp_path: Path) -> None:
    """And is taken out again; the weights it touches are kept, and no others."""
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    stem = f"lora_unet_{layer.replace('.', '_')}"
    width = V1.unet.channels[1]
    generator = torch.Generator().manual_seed(1)
    factors = {
        f"{stem}.lora_down.weight": torch.randn(3, width, generator=generator),
        f"{stem}.lora_up.weight": torch.randn(width, 3, generator=generator),
    }
    save_file(factors, tmp_path / "style.safetensors")
    plain, whole, thrifty = load(place), load(place, low=False), load(place)
    before = drawn(thrifty)
    loras = [(tmp_path / "style.safetensors", 1.0)]
    merged = [lora.merge(one, loras) for one in (whole, thrifty)]
    wanted = drawn(whole)
    assert np.array_equal(drawn(thrifty), wanted) and not np.array_equal(wanted, before)
    assert model_digest(thrifty) == model_digest(whole) != model_digest(plain)
    for one in merged:
        one.unmerge()
    assert np.array_equal(drawn(thrifty), before) and np.array_equal(drawn(whole), before)
    assert model_digest(thrifty) == model_digest(plain)


def test_faults_are_found_before_the_first_turn(place: Path, tmp_path: Path) -> None:
    tensors = small_models.single(V1)
    tensors["model.diffusion_model.out.2.bias"][1] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    words = place / "folder" / "tokenizer"
    with pytest.raises(ValueError, match=r"out\.2\.bias is not finite in float32"):
        TextToImage.load(
            tmp_path / "model.safetensors", device="cpu", tokenizer=words, low_memory=True
        )


def test_a_turn_that_fails_can_be_taken_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, wanted, read = load(place), drawn(load(place)), Component.read

    def failing(self: Component, name: str, *given: Any) -> Tensor:
        if name.startswith("up_blocks"):
            raise MemoryError
        return read(self, name, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Component, "read", failing)
        with pytest.raises(MemoryError):
            drawn(pipeline)
    assert np.array_equal(drawn(pipeline), wanted)


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_file_may_go(ending: str, place: Path, tmp_path: Path) -> None:
    """What is mapped is held; another file of its name is not taken for it."""
    words = place / "folder" / "tokenizer"
    path = tmp_path / f"model.{ending}"
    path.write_bytes((place / path.name).read_bytes())
    pipeline = TextToImage.load(path, device="cpu", tokenizer=words, low_memory=True)
    wanted = drawn(pipeline)
    path.unlink()
    assert np.array_equal(drawn(pipeline), wanted)
    path.write_bytes(b"another")
    assert np.array_equal(drawn(pipeline), wanted)


def test_refusals(place: Path, tmp_path: Path) -> None:
    pipeline = load(place)
    for engine in ("compile", "openvino"):
        words = f"engine: wanted eager with low_memory, got '{engine}'"
        with pytest.raises(ValueError, match=words):
            with_engine(pipeline, engine)
    saves: list[Callable[[Path, Any], None]] = [checkpoint.save_folder, checkpoint.save_single]
    for save in saves:
        with pytest.raises(ValueError, match="model: wanted one loaded without low_memory"):
            save(tmp_path / "model.safetensors", pipeline)
    assert list(tmp_path.iterdir()) == []
