"""LoRA files that do not fit a model: all that is wrong is named, and nothing is changed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import lora
from tests.support.lora import CONV, DEFAULT, LINEAR, PEFT, flat, peft, two, unchanged


def kohya(name: str, **ends: Tensor) -> dict[str, Tensor]:
    """Names of kohya's trainer; two underscores stand for a dot."""
    return {f"lora_unet_{flat(name)}.{end.replace('__', '.')}": v for end, v in ends.items()}


def low(**more: Tensor) -> dict[str, Tensor]:
    """A good update of one layer, and what else there is of it."""
    pair = {"lora_down__weight": torch.ones(3, 32), "lora_up__weight": torch.ones(32, 3)}
    return kohya(LINEAR, **{**pair, **more})


STEM = f"lora_unet_{flat(LINEAR)}"
ONLY = "supported are LoRA, LoHa, LoKr, DoRA"
ONES = torch.ones
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
    "no tensors": ({}, "checkpoint {}: no LoRA: it holds no update of any weight"),
    "only a counter": (
        {"global_step": ONES(1)}, "checkpoint {}: no LoRA: it holds no update of any weight"
    ),
    "LoRA and norms": (
        low() | kohya("conv_norm_out", w_norm=ONES(32), b_norm=ONES(32)),
        f"checkpoint {{}} has norm; {ONLY}: 2 norm\n"
        "  norm        lora_unet_conv_norm_out.b_norm\n"
        "  norm        lora_unet_conv_norm_out.w_norm",
    ),
    "an alpha of what is not supported": (
        kohya(LINEAR, diff=ONES(32, 32), alpha=ONES(())),
        f"checkpoint {{}} has full difference; {ONLY}: 1 full difference\n"
        f"  full difference  {STEM}.diff",
    ),
    "two names of one factor": (
        {**peft(ONES(3, 32), ONES(32, 3)), f"unet.{LINEAR}{DEFAULT[0]}": ONES(3, 32)},
        "checkpoint {} is no LoRA of this model: 1 twice\n"
        f"  twice       unet.{LINEAR}{PEFT[0]}",
    ),
    "two names of one layer": (
        low() | peft(ONES(3, 32), ONES(32, 3)),
        f"checkpoint {{}} is no LoRA of this model: 1 twice\n  twice       unet.{LINEAR}",
    ),
    "a factor of LoHa is missing": (
        kohya(LINEAR, hada_w1_a=ONES(32, 3), hada_w1_b=ONES(3, 32), hada_w2_a=ONES(32, 3)),
        "checkpoint {} is no LoRA of this model: 3 unpaired\n"
        f"  unpaired    {STEM}.hada_w1_a\n"
        f"  unpaired    {STEM}.hada_w1_b\n"
        f"  unpaired    {STEM}.hada_w2_a",
    ),
    "a core of LoHa is missing": (
        kohya(CONV, **{f"hada_w{k}_{s}": ONES(3, 32) for k in (1, 2) for s in "ab"},
              hada_t1=ONES(3, 3, 3, 3)),
        "checkpoint {} is no LoRA of this model: 5 unpaired\n" + "\n".join(
            f"  unpaired    lora_unet_{flat(CONV)}.{end}"
            for end in ("hada_t1", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        ),
    ),
    "rank 0": (
        kohya(LINEAR, lora_down__weight=ONES(0, 32), lora_up__weight=ONES(32, 0)),
        f"checkpoint {{}}: {STEM} has down (0, 32) and up (32, 0), for a weight (32, 32)",
    ),
    "as many numbers in another order": (
        kohya(LINEAR, lora_down__weight=ONES(3, 64), lora_up__weight=ONES(16, 3)),
        f"checkpoint {{}}: {STEM} has down (3, 64) and up (16, 3), for a weight (32, 32)",
    ),
    "a kernel of another shape": (
        kohya(CONV, lora_down__weight=ONES(3, 32, 1, 9), lora_up__weight=ONES(32, 3, 1, 1)),
        f"checkpoint {{}}: lora_unet_{flat(CONV)} has down (3, 32, 1, 9) and up (32, 3, 1, 1), "
        "for a weight (32, 32, 3, 3)",
    ),
    "a factor of one axis": (
        kohya(LINEAR, lora_down__weight=ONES(32), lora_up__weight=ONES(32, 1)),
        f"checkpoint {{}}: {STEM} has down (32,) and up (32, 1), for a weight (32, 32)",
    ),
    "Kronecker": (
        kohya(LINEAR, lokr_w1=ONES(4, 4), lokr_w2=ONES(8, 9)),
        f"checkpoint {{}}: {STEM} has lokr_w1 (4, 4) and lokr_w2 (8, 9), for a weight (32, 32)",
    ),
    "integers": (
        low(lora_up__weight=ONES(32, 3).int()),
        f"checkpoint {{}}: {STEM}.lora_up.weight is of torch.int32, no floating-point numbers",
    ),
    "a magnitude of another shape": (
        low(dora_scale=ONES(33, 1)), f"checkpoint {{}}: {STEM}.dora_scale is (33, 1), for a weight "
        "(32, 32)",
    ),
    "alpha is no number": (
        low(alpha=torch.tensor(torch.nan)), f"checkpoint {{}}: {STEM}.alpha is no finite number"
    ),
    "alpha is two": (low(alpha=ONES(2)), f"checkpoint {{}}: {STEM}.alpha is no finite number"),
    "alpha is none": (low(alpha=ONES(0)), f"checkpoint {{}}: {STEM}.alpha is no finite number"),
    "alpha is 0": (
        low(alpha=torch.tensor(0.0)),
        f"checkpoint {{}}: {STEM}.alpha is 0, which some read as no update and some as the rank",
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


OTHERS = {
    "oft_blocks": (4, 8, 8), "oft_diag": (4, 8, 8), "boft_R": (2, 4, 8, 8), "a1.weight": (3, 32),
    "ia3_l": (32, 1), "on_input": (), "diff_b": (32,), "lambda_layer": (1, 3), "hra_u": (32, 3),
    "vera_lambda_d": (3,), "lora_E": (3, 1), "lora_embedding_A": (3, 32), "miss_block": (3, 32),
    "lora_B.bias": (32,), "modules_to_save.weight": (32, 32), "fourierft_spectrum": (9,),
    "trainable_tokens_delta": (1, 32), "bias": (32,), "set_weight": (32, 32),
}  # fmt: skip
NAMES = (
    "OFT", "OFT", "BOFT", "GLoRA", "(IA)^3", "(IA)^3", "full difference", "T-LoRA", "HRA", "VeRA",
    "AdaLoRA", "LoRA of an embedding", "MiSS", "bias", "whole weight", "FourierFT",
    "trained token", "bias", "whole weight",
)  # fmt: skip


@pytest.mark.parametrize(("end", "kind"), list(zip(OTHERS, NAMES, strict=True)))
def test_a_kind_that_is_not_supported_is_named(
    end: str, kind: str, model: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    for more in ({}, low()):
        save_file({f"base_model.model.{LINEAR}.{end}": torch.ones(OTHERS[end]), **more}, path)
        with pytest.raises(ValueError, match="checkpoint") as caught:
            lora.merge(model, [(path, 1.0)])
        first = str(caught.value).splitlines()[0]
        assert first == f"checkpoint {path} has {kind}; {ONLY}: 1 {kind}"
    unchanged(model)


def test_four_axes_of_blocks_are_those_of_boft(model: SimpleNamespace, tmp_path: Path) -> None:
    save_file(kohya(LINEAR, oft_blocks=torch.ones(2, 4, 8, 8)), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="has BOFT; supported"):
        lora.merge(model, [(tmp_path / "a.safetensors", 1.0)])


def test_what_has_no_effect_is_warned_of(model: SimpleNamespace, tmp_path: Path) -> None:
    """All zeros, a strength of 0, an alpha that nothing tells, a setting that nothing reads."""
    path = tmp_path / "lora.safetensors"
    save_file(low(lora_up__weight=torch.zeros(32, 3)), path)
    with pytest.warns(UserWarning, match=f"{path} changes no weight at its strength"):
        lora.merge(model, [(path, 1.0)])
    save_file(low(), path)
    with pytest.warns(UserWarning, match=f"{path} changes no weight at its strength"):
        lora.merge(model, [(path, 0.0)])
    unchanged(model)
    tensors = peft(torch.ones(3, 32), torch.ones(32, 3))
    save_file({f"base_model.model.{name}": value for name, value in tensors.items()}, path)
    with pytest.warns(UserWarning, match=r"no adapter_config\.json beside it"):
        lora.merge(model, [(path, 1.0)]).unmerge()
    config = {"lora_alpha": 3, "fan_in_fan_out": True, "of_tomorrow": 1, "target_modules": ["a"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.warns(UserWarning, match="says fan_in_fan_out, of_tomorrow, which has no effect"):
        lora.merge(model, [(path, 1.0)])


def test_a_checkpoint_of_a_training_has_counters(model: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "lora.ckpt"
    good = low()
    beside = {"global_step": 500, "epoch": 3, "optimizer_states": [{"lr": 1e-4}]}
    for whole in (
        {"state_dict": good, **beside},
        {**good, "global_step": 500, "epoch": torch.tensor(3)},
    ):
        torch.save(whole, path)
        merged = lora.merge(model, [(path, 1.0)])
        assert merged.weights.keys() == {("unet", f"{LINEAR}.weight")}
        merged.unmerge()
    torch.save({"state_dict": good, "network_alphas": {"a": 8}}, path)
    with pytest.warns(UserWarning, match="network_alphas beside the state_dict: not read"):
        lora.merge(model, [(path, 1.0)]).unmerge()
    for whole, name in (
        ({**good, f"{STEM}.alpha": 8.0}, f"{STEM}.alpha"),
        ({5: good}, "5"),
    ):
        torch.save(whole, path)
        with pytest.raises(ValueError, match=f"1 unknown\n  unknown     {name}"):
            lora.merge(model, [(path, 1.0)])
    unchanged(model)
