"""One clear line for whatever can be wrong with a checkpoint, and nothing done before it."""

import io
import os
import pickle
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sd.checkpoint import load, loader
from tests.support import small_models
from tests.support.bad_checkpoints import ASKS, BAD, SOME, UNET
from tests.support.small_models import V1

WIDE = replace(V1.unet, context_width=128)


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("work was done on a bad file")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_has_its_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, line = BAD[name]
    path = tmp_path / "model.ckpt"
    write(path)
    if name != "not finite":  # which takes a reading
        monkeypatch.setattr(loader, "fill", forbidden)
        monkeypatch.setattr("sd.checkpoint.component.Component.read", forbidden)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        load(path)
    start, text = f"checkpoint {path}: ", str(caught.value)
    assert "\n" not in text
    if line is None:
        assert re.fullmatch(SOME[name], text.removeprefix(start))
    else:
        assert text == start + line


def test_all_that_does_not_fit_stands_in_one_table(tmp_path: Path) -> None:
    found = small_models.single(V1)
    del found[UNET + "out.2.bias"]
    found[UNET + "middle_block.0.in_layers.2.weight"] = torch.zeros(64, 32, 3, 3)
    found["first_stage_model.encoder.mid.attn_1.q.weight"] = torch.zeros(64, 64, 3)
    found["cond_stage_model.transformer.text_model.final_layer_norm.bias"] = torch.zeros(64).int()
    found |= {f"strange.{i:02}": torch.zeros(1) for i in range(14)}
    save_file(found, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit") as caught:
        load(tmp_path / "model.safetensors")
    shown = [f"  unexpected  strange.{i:02}" for i in range(12)]
    assert str(caught.value).splitlines() == [
        f"checkpoint {tmp_path}/model.safetensors does not fit: 1 missing, 14 unexpected, "
        "2 misshapen, 1 mistyped",
        "  missing     model.diffusion_model.out.2.bias",
        *shown,
        "  unexpected  and 2 more",
        "  misshapen   first_stage_model.encoder.mid.attn_1.q.weight is (64, 64, 3), "
        "not (64, 64, 1, 1)",
        "  misshapen   model.diffusion_model.middle_block.0.in_layers.2.weight is (64, 32, 3, 3), "
        "not (64, 64, 3, 3)",
        "  mistyped    cond_stage_model.transformer.text_model.final_layer_norm.bias is int32",
    ]


@pytest.mark.parametrize("kind", small_models.KINDS)
def test_any_missing_tensor_is_named_and_any_other_shape(kind: str, tmp_path: Path) -> None:
    """Some of each network's in turn, those among them that its numbers are read off."""
    path, whole = tmp_path / "model.safetensors", small_models.single(V1)
    names = list(small_models.single(V1, kind))
    for name in names[:: len(names) // 3]:
        save_file({n: v for n, v in whole.items() if n != name}, path)
        with pytest.raises(ValueError, match="checkpoint") as caught:
            load(path)
        assert name in str(caught.value), name
        if name.endswith(("token_embedding.weight", "position_embedding.weight")):
            continue  # nothing else counts the words and places
        torn = whole[name][:-1].clone() if len(whole[name]) > 1 else whole[name].repeat(2)
        save_file({**whole, name: torn}, path)
        with pytest.raises(ValueError, match="checkpoint") as caught:
            load(path)
        assert name in str(caught.value) or "configuration of its" in str(caught.value), name


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "in state_dict"])
def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(kind: str, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "model.ckpt"
    evil = Hostile(f"touch {proof}")
    if kind == "zip":
        torch.save({"weights": evil}, path)
    elif kind == "legacy":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save({"state_dict": {**small_models.single(V1), "evil": evil}}, path)
    with pytest.raises(ValueError, match=r"^checkpoint .*model.ckpt: ") as caught:
        load(path)
    assert not proof.exists()
    assert "\n" not in str(caught.value)
    if kind != "legacy":
        assert f"its pickle names {os.system.__module__}.system, {ASKS}" in str(caught.value)
    # The alternative: what is refused here does run where a pickle is trusted.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "legacy":
            pickle.load(io.BytesIO(path.read_bytes()))
        else:
            torch.load(path, weights_only=False)
    assert proof.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.ckpt"):
        with pytest.raises(FileNotFoundError, match=rf"^checkpoint .*/{name} is missing$"):
            load(tmp_path / name)


def test_a_zip_under_the_name_of_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    line = "a zip of torch.save under the name .safetensors; rename it to .ckpt$"
    with pytest.raises(ValueError, match=line):
        load(path)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"dtype": torch.int8}, "dtype: wanted a floating-point type of 16 bits or more"),
        ({"prediction": "noise"}, "prediction: wanted one of epsilon, v_prediction, sample"),
        ({"device": "tpu"}, "device: wanted auto or one of"),
        ({"variant": "fp16"}, "variant is 'fp16', which only a diffusers folder can have"),
        ({"ema": True}, r"it has no moving averages \(model_ema.\*\); leave out --ema"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], line: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(small_models.single(V1), path)
    with pytest.raises(ValueError, match=line):
        load(path, **arguments)


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    unet, rest = tmp_path / "unet.safetensors", tmp_path / "rest.safetensors"
    save_file(small_models.single(V1, "unet"), unet)
    wide = replace(V1, text=replace(V1.text, width=128, heads=2), unet=WIDE)
    save_file(small_models.single(wide, "text_encoder", "vae"), rest)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        load(unet, complete=rest)
    assert str(caught.value) == (
        f"checkpoint {unet}: its networks do not fit together: UNetConfig.context_width: wanted "
        "TextConfig.width = 128, got 64"
    )
    with pytest.raises(ValueError, match=rf"^checkpoint {unet}: no VAE is in it$"):
        load(rest, vae=unet)
    lacking = "of a model only its text encoder, VAE; without U-Net: give a whole model, or in Pyth"
    with pytest.raises(ValueError, match=lacking):
        load(rest)


def test_a_config_that_is_not_legal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(small_models.single(V1), path, {"model_config": '{"stpes": 3}'})
    line = "the config in its metadata is not valid: ModelConfig has no field named stpes$"
    with pytest.raises(ValueError, match=line):
        load(path)
    small = replace(V1, unet=replace(V1.unet, layers_per_block=1))
    save_file(small_models.single(V1), path)
    with pytest.raises(ValueError, match="does not fit: ") as caught:
        load(path, config=small)
    assert "unexpected" in str(caught.value).splitlines()[0]
