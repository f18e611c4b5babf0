"""LoRA files that do not fit a model: all that is wrong is named, and nothing is changed."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import lora
from tests.sd.checkpoint.test_lora import LINEAR, PEFT, flat, two, unchanged


def peft(down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {f"unet.{LINEAR}{PEFT[0]}": down, f"unet.{LINEAR}{PEFT[1]}": up}


BAD: dict[str, tuple[dict[str, Tensor], str]] = {
    "unknown": (
        {"lora_unet_nowhere.lora_down.weight": torch.zeros(1), "unet.a.hada_w1_a": torch.zeros(1)},
        "checkpoint {} is no LoRA of this model: 2 unknown\n"
        "  unknown     lora_unet_nowhere.lora_down.weight\n"
        "  unknown     unet.a.hada_w1_a",
    ),
    "SDXL": (
        {"lora_te2_text_model_a.lora_down.weight": torch.zeros(1)},
        "checkpoint {} is no LoRA of this model: an SDXL LoRA; 1 unknown\n"
        "  unknown     lora_te2_text_model_a.lora_down.weight",
    ),
    "unpaired": (
        {f"lora_unet_{flat(LINEAR)}.lora_down.weight": torch.zeros(3, 32)},
        "checkpoint {} is no LoRA of this model: 1 unpaired\n"
        f"  unpaired    lora_unet_{flat(LINEAR)}.lora_down.weight",
    ),
    "misshapen": (
        peft(torch.zeros(3, 33), torch.zeros(32, 3)),
        f"checkpoint {{}}: unet.{LINEAR} has down (3, 33) and up (32, 3), for a weight (32, 32)",
    ),
    "ranks": (
        peft(torch.zeros(3, 32), torch.zeros(32, 4)),
        f"checkpoint {{}}: unet.{LINEAR} has down (3, 32) and up (32, 4), for a weight (32, 32)",
    ),
    "not finite": (
        peft(torch.full((3, 32), 3e38), torch.full((32, 3), 3e38)),
        f"checkpoint {{}}: unet.{LINEAR}.weight is not finite after merging",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named_and_nothing_changed(
    name: str, model: SimpleNamespace, tmp_path: Path
) -> None:
    tensors, line = BAD[name]
    save_file(tensors, tmp_path / "bad.safetensors")
    good = two(model, tmp_path)
    with pytest.raises(ValueError, match="checkpoint") as caught:
        lora.merge(model, [*good, (tmp_path / "bad.safetensors", 1.0)])
    assert str(caught.value) == line.format(tmp_path / "bad.safetensors")
    unchanged(model)


def test_bad_arguments_are_named(model: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loras: wanted at least one"):
        lora.merge(model, [])
    with pytest.raises(ValueError, match="loras: wanted a finite strength for"):
        lora.merge(model, [(tmp_path / "a", float("nan"))])
    with pytest.raises(FileNotFoundError, match="is missing"):
        lora.merge(model, [(tmp_path / "a", 1.0)])
