"""The pipeline's arguments: every legal one works, every bad one gets one clear line."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sd
from diffusion_math.grid import GRIDS
from diffusion_math.noise import start_noise
from diffusion_math.solvers.registry import SOLVERS
from sd import weights
from sd.config import SHAPES_CONFIG, TextConfig, UNetConfig, VAEConfig
from sd.device import available, pick, placed
from sd.files.image_tensor import from_tensor, to_tensor
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer, word_level
from tests.support.measuring import Measured
from tests.support.pixel_pipeline import EVENT, SCHEDULE, Nothing, model, photo, sampled


@pytest.mark.claim("C33", "sd.pipeline.TextToImage")
@settings(max_examples=40)
@given(
    strength=st.floats(0, 1, exclude_min=True),
    steps=st.integers(1, 50),
    solver=st.sampled_from(sorted(SOLVERS)),
    grid=st.sampled_from(sorted(GRIDS)),
)
def test_every_strength_works_with_every_number_of_steps(
    measured: Measured, strength: float, steps: int, solver: str, grid: str
) -> None:
    pipeline = model(Nothing())
    options = {"image": photo(1), "strength": strength, "steps": steps, "seed": 7}
    states = sampled(pipeline, "red", solver=solver, grid=grid, **options)
    level = round(1000 * strength)
    taken = max(1, min(level, round(strength * steps))) if level else 0
    assert len(states) == taken + 1
    assert states[-1].t == 0 and bool(states[-1].x.isfinite().all())
    t = states[0].t
    assert t == level if grid != "leading" else t <= level
    alpha = np.sqrt(np.prod(1 - SCHEDULE.betas.numpy()[: int(t)]))  # q(x_t | x_0), by its product
    latent = to_tensor([photo(1)]).double()
    z = start_noise([7], EVENT, torch.float64)
    start = alpha * latent + np.sqrt(1 - alpha**2) * z
    off = (states[0].x - start).abs().max().item()
    measured(off, 1e-12, "error of the start, q(x_t given x_0) at the strength's t: rounding")


def test_redrawn_pictures_differ_by_their_noise_alone() -> None:
    pipeline = model(Nothing())
    states = sampled(pipeline, "red", seed=[1, 2], image=photo(3), strength=0.5, steps=4)
    alpha, sigma = SCHEDULE(500)
    z = start_noise([1, 2], EVENT, torch.float64)
    latent = to_tensor([photo(3)]).double()
    torch.testing.assert_close(states[0].x, alpha * latent + sigma * z)
    assert len(pipeline("red", seed=[1, 2], image=photo(3), progress=False)) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sampling_is_in_float32_or_wider(dtype: torch.dtype) -> None:
    seen = []

    class Watched(Nothing):
        def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            seen.append((x.dtype, t.dtype))
            return super().forward(x, t, context)

    states = sampled(model(Watched(), dtype), "red", steps=3)
    wide = torch.promote_types(dtype, torch.float32)
    assert {state.x.dtype for state in states} == {wide}
    assert set(seen) == {(dtype, wide)}


def test_sizes_and_decoding() -> None:
    pipeline = model(Nothing())
    (drawn,) = pipeline("red", width=5, height=3, steps=2, progress=False)
    assert drawn.size == (5, 3)
    (redrawn,) = pipeline("red", image=photo(1, 9), width=4, height=2, progress=False)
    assert redrawn.size == (4, 2)
    states = sampled(pipeline, ["red", "blue"], steps=2)
    pictures = pipeline(["red", "blue"], steps=2, progress=False)
    decoded = from_tensor(states[-1].x)
    assert [a.tobytes() for a in pictures] == [a.tobytes() for a in decoded]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt: wanted at least one word, got ''"),
    ({"prompt": ["red", " \t"]}, "prompt: wanted at least one word"),
    ({"prompt": []}, "prompt: wanted at least one, got none"),
    ({"prompt": "red " * 23}, "has 23 tokens; this model reads at most 22"),
    ({"negative_prompt": "red " * 23}, "has 23 tokens; this model reads at most 22"),
    (
        {"prompt": "red", "long_prompt": "cut"},
        "long_prompt: wanted one of .'chunk', 'truncate', 'refuse'., got 'cut'",
    ),
    (
        {"prompt": "red", "clip_skip": 2},
        "clip_skip: wanted a whole number of at least 0 and at most 1",
    ),
    ({"steps": 0}, "steps: wanted a whole number of at least 1 and at most 1000, got 0"),
    ({"steps": 1001}, "steps: wanted a whole number of at least 1 and at most 1000, got 1001"),
    ({"guidance_scale": -0.5}, "guidance_scale: wanted a finite number of at least 0, got -0.5"),
    ({"guidance_scale": math.nan}, "guidance_scale: wanted a finite number of at least 0, got nan"),
    ({"guidance_scale": math.inf}, "guidance_scale: wanted a finite number of at least 0, got inf"),
    ({"guidance_scale": math.nan, "do_cfg": False}, "guidance_scale: wanted a finite number"),
    (
        {"guidance_interval": (2.0, 1.0)},
        r"guidance_interval: wanted two numbers, 0 <= low < high, got \(2\.0, 1\.0\)",
    ),
    ({"prompt": "caf\udce9"}, r"prompt: wanted text, in UTF-8, got 'caf\\udce9'"),
    ({"prompt": ["red", "\ud83d"]}, r"prompt: wanted text, in UTF-8, got '\\ud83d'"),
    ({"negative_prompt": "\ud83d"}, r"negative_prompt: wanted text, in UTF-8"),
    ({"prompt": "() BREAK []"}, r"prompt: wanted at least one word, got '\(\) BREAK \[\]'"),
    ({"prompt": "red BREAK blue"}, "has a BREAK, which begins a new row; this model reads one row"),
    ({"guidance_interval": (math.nan, 1.0)}, "guidance_interval: wanted two numbers"),
    ({"guidance_interval": (1.0,)}, "guidance_interval: wanted two numbers"),
    ({"guidance_interval": (-1, 1), "do_cfg": False}, "guidance_interval: wanted two numbers"),
    ({"image": photo(1), "strength": 0.0}, r"strength: wanted a number in \(0, 1\], got 0.0"),
    ({"image": photo(1), "strength": 1.01}, r"strength: wanted a number in \(0, 1\], got 1.01"),
    ({"image": photo(1), "strength": math.nan}, r"strength: wanted a number in \(0, 1\], got nan"),
    ({"strength": 0.5}, "strength: wanted an image with it, got 0.5"),
    ({"solver": "abacus"}, "solver: wanted one of ddpm, .*, ddim, .*, got 'abacus'"),
    ({"grid": "quad"}, "grid: wanted one of leading, .*, got 'quad'"),
    ({"seed": -1}, "seed: wanted a whole number of at least 0"),
    ({"seed": [3, -1]}, "seeds: wanted a whole number of at least 0"),
    ({"seed": 2**64}, "seed: wanted a whole number"),
    ({"seed": []}, "seed: wanted at least one, got 0"),
    ({"prompt": ["red", "blue"], "seed": [1, 2, 3]}, "seed: wanted 2 seeds, .*, got 3"),
    ({"height": 0}, "height: wanted a whole number of at least 1, got 0"),
    ({"width": -2}, "width: wanted a whole number of at least 1, got -2"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_arguments_are_named_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        model(Nothing())(**{"prompt": "red", "progress": False, **options})
    assert "\n" not in str(caught.value)


OF_ANOTHER_TYPE: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt: wanted text, or a sequence of texts, got NoneType"),
    ({"image": "x.png"}, "image: wanted an image of Pillow, got str"),
    ({"image": photo(1), "mask": "m.png"}, "mask: wanted an image of Pillow, got str"),
    ({"guidance_scale": "7"}, "guidance_scale: wanted a finite number of at least 0, got '7'"),
    ({"height": 32.0}, "height: wanted a whole number of at least 1, got 32.0"),
    ({"grid": [1000.0, 0.0]}, "grid: wanted a name, or a floating-point tensor, got list"),
    ({"grid": torch.tensor([9, 0])}, "grid: wanted a name, or a floating-point tensor, got Tensor"),
    ({"controls": 7}, "controls: wanted a sequence of Control, got int"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("options", "message"), OF_ANOTHER_TYPE)
def test_arguments_of_another_type_are_named_in_one_line(
    options: dict[str, Any], message: str
) -> None:
    test_bad_arguments_are_named_in_one_line(options, message)


def test_unknown_words_are_warned_of() -> None:
    pipeline = model(Nothing())
    with pytest.warns(UserWarning, match=r"does not know pink, cat; .* it knows: .*purple") as seen:
        states = sampled(pipeline, "a pink cat red circle", steps=2)
    assert len(seen) == 1
    assert torch.equal(states[-1].x, sampled(pipeline, "a red circle", steps=2)[-1].x)
    with pytest.warns(UserWarning, match="does not know ugly;"):
        pipeline("red", negative_prompt="ugly", steps=2, progress=False)


def test_times_come_in_place_of_steps() -> None:
    pipeline = model(Nothing())
    times = torch.tensor([1000.0, 400.0, 0.0], dtype=torch.float64)
    assert len(sampled(pipeline, "red", grid=times)) == 3
    assert len(sampled(pipeline, "red", grid=times, steps=2)) == 3
    with pytest.raises(ValueError, match="grid: wanted a name, with steps"):
        sampled(pipeline, "red", grid=times, steps=5)
    with pytest.raises(ValueError, match="grid: wanted a non-empty, strictly decreasing"):
        sampled(pipeline, "red", grid=times.flip(0))
    with pytest.warns(UserWarning, match=r"^grid: it ends at t = 400, so noise is left in"):
        assert len(sampled(pipeline, "red", grid=times[:2])) == 2


def test_a_side_must_be_a_multiple_of_the_vaes_halvings() -> None:
    pipeline = model(Nothing())
    coarse = TextToImage(SHAPES_CONFIG, *[getattr(pipeline, name) for name in PARTS])
    with pytest.raises(ValueError, match="width: wanted a multiple of 8, got 44"):
        coarse("red", width=44)


PARTS = ("tokenizer", "text_encoder", "vae", "unet", "device", "dtype")
SMALL = {
    "text_encoder": (TextEncoder, TextConfig(29, 8, 1, 2, 24, 16)),
    "vae": (VAE, VAEConfig(channels=(4, 4), layers_per_block=1, groups=2)),
    "unet": (UNet, UNetConfig(4, 4, (8,), 1, 2, 8, (True,), 4)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of random weights, laid out as the embedded one is."""
    for name, (network, config) in SMALL.items():
        weights.save_network(tmp_path / f"{name}.safetensors", network(config), config)
    word_level(Tokenizer.embedded().words).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_folder_becomes_a_pipeline(folder: Path) -> None:
    before = torch.get_rng_state()
    one, two = (TextToImage.load(folder, device="cpu") for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert one.config.unet == SMALL["unet"][1] and one.config.schedule == SHAPES_CONFIG.schedule
    (a,), (b,) = (pipeline("red", steps=2, width=16, height=12) for pipeline in (one, two))
    assert a.size == (16, 12) and a.tobytes() == b.tobytes()
    (c,) = one("red", image=a, strength=0.3, steps=4, progress=False)
    assert c.size == (64, 64)
    half = TextToImage.load(folder, device="cpu", dtype=torch.bfloat16)
    assert len(half(["red", "blue"], steps=1, progress=False)) == 2


def test_bad_folders_are_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="model: wanted 'shapes', 'shapes-distilled', a folder"):
        TextToImage.load(folder / "nowhere", device="cpu")
    with pytest.raises(ValueError, match=r"dtype: wanted one of torch.float32, .* got torch.int32"):
        TextToImage.load(folder, dtype=torch.int32)
    word_level(["red"]).save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer: it has 4 tokens, the text encoder 29 rows"):
        TextToImage.load(folder, device="cpu")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer .* is missing"):
        TextToImage.load(folder, device="cpu")
    (folder / "unet.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"unet.safetensors is missing"):
        TextToImage.load(folder, device="cpu")


def test_devices() -> None:
    found = available()
    assert found[-1] == "cpu"
    assert str(pick("auto")) == found[0] and str(pick("cpu")) == "cpu"
    absent = [name for name in ("cuda", "mps") if name not in found]
    for name in (*absent, "cuda:99", "cpu:", "cpu:1", "tpu", ""):
        with pytest.raises(ValueError, match=f"device: wanted auto or one of .*, got '{name}'"):
            pick(name)


def test_a_network_on_another_device_is_a_copy() -> None:
    network, cpu, meta = torch.nn.Linear(2, 2), torch.device("cpu"), torch.device("meta")
    assert placed(network, cpu) is network
    there = placed(network, meta)
    assert there.weight.device == meta and network.weight.device == cpu


def test_shapes_need_no_torch() -> None:
    code = "import sys, sd.shapes.reader; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert sd.TextToImage is TextToImage
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = sd.Nonsense
