"""Every common kind of checkpoint loads to the same bits: one small model in each of them."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sd.checkpoint import load
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.weights import blank
from tests.support import small_models
from tests.support.checkpoint_writers import (
    Variant,
    cast,
    component,
    few_betas,
    file,
    flat_vae_attention,
    halved,
    left_over,
    old_names,
    only,
    pipeline,
    position_ids,
    prefixed,
    rename,
    sharded,
    terse,
    two_files,
    whole_openclip,
    with_ema,
    with_other_ema,
    without_text_model,
)
from tests.support.small_models import V1, V2

V2_V = replace(V2, prediction="v_prediction", image_size=768)
YAML = "model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n"
V_YAML = YAML + '    parameterization: "v"  # predicts v\n    linear_start: 0.00085\n'
COUNT = {
    "vae": len(blank(VAE, V1.vae).state_dict()),
    "unet": len(blank(UNet, V1.unet).state_dict()),
}
SIZE_V1 = replace(V1, image_size=128)  # a sample size of 64, and a VAE that halves once
SIZE_V2 = replace(V2, image_size=256)
SPEC = {"modelspec.prediction_type": "v"}
ARCHITECTURE = {"modelspec.architecture": "stable-diffusion-v2-768-v"}
EPS = {"prediction": "epsilon"}  # silences the warning that nothing says so
VAE_FILE = "diffusion_pytorch_model.safetensors"
EPOCHS = {"epoch": 3, "optimizer_states": [{"state": {0: torch.zeros(3)}}]}


def trained(folder: Path) -> dict[str, Any]:
    """As pytorch-lightning keeps it, where nothing but plain values is beside the weights."""
    torch.save({"state_dict": small_models.single(V1), **EPOCHS}, folder / "last.ckpt")
    return {"path": folder / "last.ckpt"}


VARIANTS = {
    "v1": Variant(file(V1), V1),
    "v1 named .ckpt": Variant(file(V1, name="model.ckpt"), V1, unread=(1, "beside")),
    "v1 without state_dict": Variant(file(V1, name="model.ckpt", wrapped=False), V1),
    "v1 with optimizer": Variant(trained, V1, unread=(2, "beside the state_dict")),
    "v1 fp16": Variant(file(V1, cast(torch.float16)), V1, torch.float16),
    "v1 bf16": Variant(file(V1, cast(torch.bfloat16)), V1, torch.bfloat16),
    "v1 fp16 .ckpt": Variant(
        file(V1, cast(torch.float16), name="half.ckpt", wrapped=False), V1, torch.float16
    ),
    "v1 fp8": Variant(file(V1, cast(torch.float8_e4m3fn)), V1, torch.float8_e4m3fn),
    "v1 fp64": Variant(file(V1, cast(torch.float64)), V1),
    "v1 without text_model.": Variant(file(V1, without_text_model), V1),
    "v1 with position_ids": Variant(file(V1, position_ids), V1, unread=(1, "0, 1, 2")),
    "v1 with averages": Variant(
        file(V1, with_other_ema), V1, unread=(COUNT["unet"], "--ema (ema=True in Python)")
    ),
    "v1 read from averages": Variant(
        file(V1, with_ema, ema=True), V1, unread=(COUNT["unet"] + 2, "")
    ),
    "v1 averages .ckpt": Variant(
        file(V1, with_ema, name="ema.ckpt", wrapped=False, ema=True),
        V1,
        unread=(COUNT["unet"] + 2, ""),
    ),
    "v1 with the training's rest": Variant(
        file(V1, left_over), V1, unread=(16, "the noise schedule, which is computed")
    ),
    "v1 under another schedule": Variant(
        file(V1, few_betas), replace(V1, schedule="linear", steps=50), unread=(1, "schedule")
    ),
    "v1 with a linear VAE attention": Variant(file(V1, flat_vae_attention), V1),
    "v1 of an unknown ending": Variant(file(V1, name="model.pt", wrapped=False), V1),
    "v2": Variant(file(V2, **EPS), V2),
    "v2 with all of OpenCLIP": Variant(
        file(V2, whole_openclip, **EPS), V2, unread=(14, "the layer behind the one that is read")
    ),
    "v2 .ckpt": Variant(file(V2, whole_openclip, name="v2.ckpt", **EPS), V2, unread=(15, "")),
    "v2 predicts v, by argument": Variant(file(V2, prediction="v_prediction"), V2_V),
    "v2 predicts v, by .yaml": Variant(file(V2, beside=V_YAML), V2_V),
    "v2 predicts eps, by .yaml": Variant(file(V2, beside=YAML), V2),
    "v2 predicts v, by modelspec": Variant(file(V2, metadata=SPEC), V2_V),
    "v2 predicts v, by architecture": Variant(file(V2, metadata=ARCHITECTURE), V2_V),
    "v2 by a config": Variant(file(V2, config=replace(V2_V, guidance_scale=3.0)),
                              replace(V2_V, guidance_scale=3.0)),
    "U-Net and full": Variant(
        two_files(file(V1, only("unet")), file(V1, halved("unet"), name="b.ckpt"), "complete"),
        V1,
        unread=(COUNT["unet"] + 1, ""),
    ),
    "bare U-Net and folder": Variant(
        two_files(file(V1, only("unet", bare=True)), pipeline(V1), "complete"),
        V1,
        unread=(COUNT["unet"] + 3, ""),
    ),
    "without VAE": Variant(
        two_files(file(V1, only("unet", "text_encoder")), file(V1, only("vae")), "complete"), V1
    ),
    "another VAE, original": Variant(
        two_files(file(V1, halved("vae")), file(V1, only("vae")), "vae"),
        V1,
        unread=(COUNT["vae"], "a VAE that is not used"),
    ),
    "another VAE, bare": Variant(
        two_files(file(V1, halved("vae")), file(V1, only("vae", bare=True)), "vae"),
        V1,
        unread=(COUNT["vae"], ""),
    ),
    "another VAE, diffusers' file": Variant(
        two_files(file(V1, halved("vae")), component(V1, "vae", VAE_FILE), "vae"),
        V1,
        unread=(COUNT["vae"], ""),
    ),
    "another VAE, diffusers' folder": Variant(
        two_files(file(V1, halved("vae")), component(V1, "vae"), "vae"),
        V1,
        unread=(COUNT["vae"], ""),
    ),
    "folder": Variant(pipeline(V1), SIZE_V1, unread=(3, "not read")),
    "folder v2": Variant(pipeline(V2_V), replace(SIZE_V2, prediction="v_prediction"),
                         unread=(3, "not read")),
    "folder fp16": Variant(
        pipeline(V1, variant="fp16", dtype=torch.float16), SIZE_V1, torch.float16, (3, "")
    ),
    "folder of .bin": Variant(pipeline(V2, safe_serialization=False), SIZE_V2, unread=(3, "")),
    "folder in shards": Variant(pipeline(V1, sharded), SIZE_V1, unread=(3, "")),
    "folder with text_model.": Variant(pipeline(V1, prefixed), SIZE_V1, unread=(4, "")),
    "folder with an old VAE": Variant(
        pipeline(V1, rename("vae", old_names)), SIZE_V1, unread=(3, "")
    ),
    "folder of 2022": Variant(pipeline(V1, terse), SIZE_V1, unread=(3, "")),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_loads(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    arguments = variant.write(tmp_path)
    before = torch.get_rng_state()
    loaded = load(**arguments)
    assert torch.equal(before, torch.get_rng_state())
    small_models.same(loaded, variant.config, variant.dtype)
    assert loaded.config == variant.config
    for kind in small_models.KINDS:
        network = getattr(loaded, kind)
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
    account = loaded.account
    count, word = variant.unread
    assert len(account.unread) == count
    assert any(word in line.use for line in account.unread) or not count
    names = [(line.file, line.name) for line in (*account.used, *account.unread)]
    assert len(set(names)) == len(names)


def test_an_account_has_every_name_of_the_file(tmp_path: Path) -> None:
    arguments = VARIANTS["v1 with the training's rest"].write(tmp_path)
    account = load(**arguments).account
    found = {line.name for line in (*account.used, *account.unread)}
    assert found == load_file(arguments["path"]).keys()
    assert str(account) == (
        f"{arguments['path']}: 36 to the text encoder\n"
        f"{arguments['path']}: {COUNT['vae']} to the VAE\n"
        f"{arguments['path']}: {COUNT['unet']} to the U-Net\n"
        f"{arguments['path']}: 14 unread: the noise schedule, which is computed\n"
        f"{arguments['path']}: 2 unread: the training's loss\n"
        "family: Stable Diffusion v1, context 64 wide\n"
        "prediction: epsilon, as nothing says otherwise"
    )


def test_v2_that_says_nothing_is_taken_for_epsilon_with_a_warning(tmp_path: Path) -> None:
    path = file(V2)(tmp_path)["path"]
    with pytest.warns(UserWarning, match="nothing says what") as caught:
        loaded = load(path)
    assert loaded.config == V2
    assert [str(each.message) for each in caught] == [
        f"checkpoint {path}: nothing says what its U-Net predicts; taken for epsilon, as of v2.x "
        "at 512 pixels. The models at 768 pixels predict v: give --prediction v_prediction "
        "(prediction='v_prediction' in Python), or put a .yaml with the line parameterization: "
        '"v" beside the file'
    ]


def test_v1_needs_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(file(V1)(tmp_path)["path"])
    assert caught == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_networks_are_of_the_type_that_is_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    loaded = load(file(V1)(tmp_path)["path"], dtype=dtype)
    for kind, wanted in small_models.truth(V1).items():
        for name, value in getattr(loaded, kind).state_dict().items():
            assert value.dtype == dtype
            assert torch.equal(value, wanted[name].to(dtype)), name


def test_the_file_may_go_once_it_is_loaded(tmp_path: Path) -> None:
    path = file(V1)(tmp_path)["path"]
    loaded = load(path)
    (tmp_path / "other").write_bytes(b"\0" * path.stat().st_size)
    (tmp_path / "other").replace(path)  # the mapping keeps the file that it was made of
    small_models.same(loaded, V1)
    path.unlink()
    small_models.same(loaded, V1)
