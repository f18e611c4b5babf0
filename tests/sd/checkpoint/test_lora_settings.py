"""Ranks and alphas that stand beside a LoRA's tensors: what can't be followed is named."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from sd.checkpoint import lora
from tests.support.lora import LINEAR, peft, unchanged

CONFIGS: dict[str, tuple[object, str]] = {
    "a list": ([], "not a JSON object"),
    "no alpha": ({"r": 3}, "adapter_config.json beside it says no alpha"),
    "another kind": (
        {"peft_type": "OFT"},
        "adapter_config.json says peft_type = 'OFT'; LORA, LOHA, LOKR are supported",
    ),
    "another rank": (
        {"lora_alpha": 8, "r": 4}, f"{LINEAR} is of rank 3; adapter_config.json says 4"
    ),
    "alpha is a word": (
        {"lora_alpha": "8"},
        "adapter_config.json says lora_alpha = '8', no finite number other than 0",
    ),
    "alpha is 0": (
        {"lora_alpha": 0}, "adapter_config.json says lora_alpha = 0, no finite number other than 0"
    ),
    "alpha is no number": (
        {"lora_alpha": float("nan")},
        "adapter_config.json says lora_alpha = nan, no finite number other than 0",
    ),
    "alpha is endless": (
        {"lora_alpha": float("inf")},
        "adapter_config.json says lora_alpha = inf, no finite number other than 0",
    ),
    "a huge integer": ({"lora_alpha": 10**400}, "not valid JSON (an integer of 401 digits)"),
    "biases": (
        {"lora_alpha": 8, "bias": "all"},
        "adapter_config.json says bias = 'all', which is not supported",
    ),
    "whole modules": (
        {"lora_alpha": 8, "modules_to_save": ["conv_in"]},
        "adapter_config.json says modules_to_save = ['conv_in'], which is not supported",
    ),
    "base weights that were changed": (
        {"lora_alpha": 8, "init_lora_weights": "pissa"},
        "adapter_config.json says init_lora_weights = 'pissa', which is not supported",
    ),
    "DoRA without magnitudes": (
        {"lora_alpha": 8, "use_dora": True}, f"unet.{LINEAR} has 0 magnitudes of DoRA"
    ),
    "a switch that is none": (
        {"lora_alpha": 8, "use_rslora": 1},
        "adapter_config.json says use_rslora = 1, not true or false",
    ),
    "an expression": (
        {"lora_alpha": 8, "alpha_pattern": {"(a+)+$": 4}},
        "adapter_config.json has '(a+)+$' in alpha_pattern: only names are read, no expressions",
    ),
    "a pattern of words": (
        {"lora_alpha": 8, "rank_pattern": {"to_q": "x"}},
        "adapter_config.json says rank_pattern = 'x', no finite number other than 0",
    ),
    "a pattern that is none": (
        {"lora_alpha": 8, "rank_pattern": 5},
        "adapter_config.json says rank_pattern = 5, not numbers by name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_of_peft_that_can_not_be_followed_are_named(
    name: str, model: SimpleNamespace, tmp_path: Path
) -> None:
    config, line = CONFIGS[name]
    path, beside = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    save_file(peft(torch.ones(3, 32), torch.ones(32, 3)), path)
    beside.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="checkpoint") as caught:
        lora.merge(model, [(path, 1.0)])
    assert str(caught.value).partition(": ")[2] == line
    unchanged(model)


def test_metadata_that_is_damaged_or_contradicts_a_tensor_is_named(
    model: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    tensors = peft(torch.ones(3, 32), torch.ones(32, 3))
    alpha = {f"unet.{LINEAR}.alpha": torch.tensor(8.0)}
    for text, more, line in (
        ("[" * 100_000, {}, "its lora_adapter_metadata is not valid JSON"),
        ("[]", {}, "its lora_adapter_metadata is not a JSON object"),
        (
            '{"unet.lora_alpha": 6}',
            alpha,
            r"\.alpha is 8, which contradicts lora_adapter_metadata",
        ),
    ):
        save_file({**tensors, **more}, path, {"lora_adapter_metadata": text})
        with pytest.raises(ValueError, match=line):
            lora.merge(model, [(path, 1.0)])
    save_file({**tensors, **alpha}, path, {"lora_adapter_metadata": '{"unet.lora_alpha": 8}'})
    lora.merge(model, [(path, 1.0)])
