"""diffusers folders that are incomplete, of another family or at odds with themselves: one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sd.checkpoint import load
from tests.support import small_models
from tests.support.small_models import V1

WEIGHTS = "diffusion_pytorch_model.safetensors"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good folder; its files are linked into each test's own."""
    return small_models.write_folder(tmp_path_factory.mktemp("whole"), V1)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    for path in whole.rglob("*"):
        if path.is_file():
            there = tmp_path / "model" / path.relative_to(whole)
            there.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                there.symlink_to(path)
            else:
                there.write_bytes(path.read_bytes())
    return tmp_path / "model"


def says(file: str, **words: Any) -> Change:
    """Other values in a JSON file."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **words}))

    return change


def text(file: str, content: str) -> Change:
    return lambda folder: (folder / file).write_text(content)


def without(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def index(weight_map: Any) -> Change:
    """Shards in place of the U-Net's file."""

    def change(folder: Path) -> None:
        (folder / "unet" / WEIGHTS).rename(folder / "unet" / "shard.safetensors")
        path = folder / "unet" / f"{WEIGHTS}.index.json"
        path.write_text(json.dumps({"weight_map": weight_map}))

    return change


def only_fp16(folder: Path) -> None:
    path = folder / "vae" / WEIGHTS
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))


def two_encoders(folder: Path) -> None:
    says(
        "model_index.json",
        _class_name="StableDiffusionXLPipeline",
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
    )(folder)


def depth(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    tensors = load_file(path)
    path.unlink()
    save_file({**tensors, "conv_in.weight": torch.zeros(32, 5, 3, 3)}, path)


NOT_ONE = "not a text-to-image one of Stable Diffusion v1 or v2"
UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
BAD: dict[str, tuple[Change, str]] = {
    "SDXL": (
        two_encoders,
        "model_index.json: a StableDiffusionXLPipeline folder with text_encoder_2 "
        f"(CLIPTextModelWithProjection), {NOT_ONE}",
    ),
    "SD3": (
        says("model_index.json", transformer=["diffusers", "SD3Transformer2DModel"]),
        "model_index.json: a StableDiffusionPipeline folder with transformer "
        f"(SD3Transformer2DModel), {NOT_ONE}",
    ),
    "another VAE": (
        says("model_index.json", vae=["diffusers", "AutoencoderTiny"]),
        f"model_index.json: a StableDiffusionPipeline folder with vae (AutoencoderTiny), {NOT_ONE}",
    ),
    "depth": (
        depth, f"unet/{WEIGHTS}: a depth-to-image checkpoint (5 input channels), {NOT_ONE}"
    ),
    "no JSON": (
        text(UNET, "{"),
        "unet/config.json: not valid JSON (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1))",
    ),
    "no object": (text(VAE, "[]"), "vae/config.json: not a JSON object"),
    "a function": (
        says(UNET, act_fn="gelu"),
        "unet/config.json: act_fn is 'gelu'; supported is 'silu' or 'swish'",
    ),
    "classes": (
        says(UNET, num_class_embeds=1000),
        "unet/config.json: num_class_embeds is 1000, the tensors say None",
    ),
    "time": (
        says(UNET, freq_shift=1), "unet/config.json: freq_shift is 1; supported is 0"
    ),
    "odd heads": (
        says(UNET, attention_head_dim=[1, 2, 8]),
        "unet/config.json: attention_head_dim is [1, 2, 8]; supported is one number of heads, or "
        "heads of one width, at every level",
    ),
    "no heads": (
        says(UNET, attention_head_dim="8"),
        "unet/config.json: attention_head_dim is '8', not of type int or list",
    ),
    "heads that do not divide": (
        says(UNET, attention_head_dim=5),
        f"unet/{WEIGHTS}: configuration of its U-Net: UNetConfig.heads: wanted a divisor "
        "of 32 (the width of a level with attention), got 5",
    ),
    "other widths": (
        says(UNET, block_out_channels=[32, 64, 64]),
        "unet/config.json: block_out_channels is [32, 64, 64], the tensors say [32, 32, 64]",
    ),
    "shift": (
        says(VAE, shift_factor=0.1),
        "vae/config.json: shift_factor is 0.1; supported is None or 0 or 0.0",
    ),
    "activation": (
        says(TEXT, hidden_act="relu"),
        "text_encoder/config.json: hidden_act is 'relu'; supported is 'quick_gelu' or 'gelu'",
    ),
    "vocabulary": (
        says(TEXT, vocab_size=49408),
        "text_encoder/config.json: vocab_size is 49408, the tensors say 50",
    ),
    "prediction": (
        says(SCHEDULER, prediction_type="flow"),
        f"{SCHEDULER}: prediction_type is 'flow'; supported is 'epsilon' or 'v_prediction' or "
        "'sample'",
    ),
    "betas": (
        says(SCHEDULER, beta_end=0.02),
        f"{SCHEDULER}: beta_end is 0.02; supported for scaled_linear is 0.012",
    ),
    "no weights": (
        without(f"vae/{WEIGHTS}"), "vae: no weights without a variant; there: none"
    ),
    "a variant alone": (
        only_fp16,
        "vae: no weights without a variant; there: diffusion_pytorch_model.fp16.safetensors; give "
        "--variant ... (variant=... in Python)",
    ),
    "no map": (index({}), f"unet/{WEIGHTS}.index.json: no index: it has no weight_map"),
    "outside": (
        index({"conv_in.weight": "../../secret.safetensors"}),
        f"unet/{WEIGHTS}.index.json: conv_in.weight is in '../../secret.safetensors', which is no "
        "file's name beside the index",
    ),
    "not where it should be": (
        index({"conv_gone.weight": "shard.safetensors"}),
        f"unet/{WEIGHTS}.index.json: conv_gone.weight is not in shard.safetensors",
    ),
    "not in the index": (
        index({"conv_in.weight": "shard.safetensors"}),
        f"unet/{WEIGHTS}.index.json: conv_in.bias of shard.safetensors is not in the index",
    ),
}  # fmt: skip
GONE = ("unet/config.json", "vae/config.json", SCHEDULER)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_has_its_line(name: str, folder: Path) -> None:
    change, line = BAD[name]
    change(folder)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        load(folder)
    assert str(caught.value) == f"checkpoint {folder}/{line}"


@pytest.mark.parametrize("name", GONE)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^checkpoint {folder}/{name} is missing$"):
        load(folder)


def test_a_missing_component_is_named_or_completed(folder: Path, whole: Path) -> None:
    for path in (folder / "vae").iterdir():
        path.unlink()
    (folder / "vae").rmdir()
    line = f"checkpoint {folder}: of a model only its text encoder, U-Net; without VAE: give --vae"
    with pytest.raises(ValueError, match=line):
        load(folder)
    small_models.same(load(folder, complete=whole), V1)
    small_models.same(load(folder, vae=whole / "vae"), V1)
    small_models.same(load(folder, vae=whole), V1)


def test_a_folder_of_anything_else_is_named(tmp_path: Path) -> None:
    line = "a folder with neither model_index.json nor config.json$"
    with pytest.raises(ValueError, match=line):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    line = "config.json: of ControlNetModel, none of UNet2DConditionModel, AutoencoderKL, CLIPText"
    with pytest.raises(ValueError, match=line):
        load(tmp_path)


def test_averages_are_not_in_a_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"it has no moving averages \(model_ema"):
        load(folder, ema=True)


def test_a_variant_that_is_not_there_is_named(folder: Path) -> None:
    line = f"unet: no weights of variant 'fp16'; there: {WEIGHTS}$"
    (folder / "text_encoder" / "model.safetensors").rename(
        folder / "text_encoder" / "model.fp16.safetensors"
    )
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(ValueError, match=line):
        load(folder, variant="fp16")


def test_another_vae_need_not_have_the_variant(folder: Path, whole: Path, tmp_path: Path) -> None:
    """It is taken where it is, even if it is damaged; a file or folder without it will do."""
    small_models.write_folder(tmp_path / "half", V1, variant="fp16", dtype=torch.float16)
    half, alone = tmp_path / "half", tmp_path / "vae.safetensors"
    save_file(small_models.single(V1, "vae"), alone)
    name, plain = "decoder.conv_in.weight", small_models.truth(V1)["vae"]
    for vae in (whole / "vae", whole, alone):
        found = load(half, variant="fp16", vae=vae)
        assert torch.equal(found.vae.state_dict()[name], plain[name])
        small_models.same(replace(found, vae=load(half, variant="fp16").vae), V1, torch.float16)
    fresh = folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    save_file({key: value.half() for key, value in plain.items()}, fresh)
    found = load(half, variant="fp16", vae=folder / "vae")
    assert torch.equal(found.vae.state_dict()[name], plain[name].half().float())
    fresh.write_bytes(fresh.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{fresh.name}: cut short"):
        load(half, variant="fp16", vae=folder / "vae")
    for path in (fresh, folder / "vae" / WEIGHTS):
        path.unlink()
    line = "vae: no weights of variant 'fp16' or without a variant; there: none$"
    with pytest.raises(ValueError, match=line):
        load(half, variant="fp16", vae=folder / "vae")
    with pytest.raises(ValueError, match=r"vae\.safetensors: variant is 'fp16', which only a diff"):
        load(alone, variant="fp16", complete=half)


def test_a_config_overrides_what_the_folder_says(folder: Path) -> None:
    says(SCHEDULER, beta_end=0.02)(folder)
    assert load(folder, config=V1).config == V1


def test_heads_of_one_width_and_the_upcast_are_understood(folder: Path) -> None:
    says(UNET, attention_head_dim=[4, 4, 8], upcast_attention=True)(folder)
    found = load(folder).config.unet
    assert (found.heads, found.head_width) == (0, 8)
