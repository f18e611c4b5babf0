"""LoRA files of every naming, merged as the formula says and taken out again to the bit."""

import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sd.checkpoint import lora
from tests.support import small_models
from tests.support.lora import (
    CONV,
    KOHYA,
    LINEAR,
    OUT,
    PEFT,
    POINT,
    RANK,
    SPELLINGS,
    factors,
    flat,
    spelled,
    two,
    unchanged,
    write,
)
from tests.support.small_models import V1, V2
from tests.support.tensors import (
    normal,
)

utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_naming_merges_into_its_weight_and_unmerges(
    name: str, model: SimpleNamespace, tmp_path: Path
) -> None:
    kind, names, spell = SPELLINGS[name]
    parts = write(tmp_path / "lora.safetensors", model, kind, names, spell)
    if "wrapped" in name:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": RANK}))
    before = deepcopy(small_models.truth(V1))
    merged = lora.merge(model, [(tmp_path / "lora.safetensors", 0.7)])
    scale = 0.7 * (6.0 / RANK if "kohya" in name else 1.0)
    assert merged.weights.keys() == {(kind, f"{each}.weight") for each in names}
    for each, pair in parts.items():
        weight = getattr(model, kind).get_submodule(each).weight.double()
        old = before[kind][f"{each}.weight"].double()
        product = pair["up"].double().flatten(1) @ pair["down"].double().flatten(1)
        # float32 throughout: sums of three products of normal numbers
        wanted = old + scale * product.reshape(old.shape)
        torch.testing.assert_close(weight, wanted, rtol=1e-6, atol=1e-5)
        assert (wanted - old).abs().max() > 0.1
    changed = {f"{each}.weight" for each in names}
    for other in ("text_encoder", "unet"):
        for key, value in getattr(model, other).state_dict().items():
            assert torch.equal(value, before[other][key]) != (other == kind and key in changed)
    merged.unmerge()
    unchanged(model)


@pytest.mark.parametrize("mid", [False, True])
def test_a_convolution_is_the_one_of_the_chain(
    mid: bool, model: SimpleNamespace, tmp_path: Path
) -> None:
    """conv(x) + (alpha / r) up(mid(down(x))), as the network that was trained computed it."""
    layer = model.unet.get_submodule(CONV)
    width = layer.weight.shape[1]
    down = normal(RANK, width, 1, 1) if mid else normal(RANK, width, 3, 3)
    up, between = normal(len(layer.weight), RANK, 1, 1, seed=1), normal(RANK, RANK, 3, 3, seed=2)
    stem = f"lora_unet_{flat(CONV)}"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    if mid:
        tensors[f"{stem}.lora_mid.weight"] = between
    save_file({**tensors, f"{stem}.alpha": torch.tensor(1.5)}, tmp_path / "lora.safetensors")
    x = normal(2, width, 5, 6, seed=3)
    hidden = (
        F.conv2d(F.conv2d(x, down), between, padding=1) if mid else F.conv2d(x, down, padding=1)
    )
    wanted = layer(x) + 1.5 / RANK * F.conv2d(hidden, up)
    lora.merge(model, [(tmp_path / "lora.safetensors", 1.0)])
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-3)  # hundreds of products


def test_several_add_up(model: SimpleNamespace, tmp_path: Path) -> None:
    files = two(model, tmp_path)
    merged = lora.merge(model, files)
    weight = model.unet.get_submodule(OUT).weight
    first = factors(weight, 2)
    second = factors(weight, 0)
    wanted = small_models.truth(V1)["unet"][f"{OUT}.weight"].double()
    for pair, scale in ((first, 0.5 * 6 / RANK), (second, -1.25)):
        wanted = wanted + scale * pair["up"].double() @ pair["down"].double()
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-6, atol=1e-5)
    merged.unmerge()
    unchanged(model)


def test_merges_on_merges_are_undone_from_the_last(model: SimpleNamespace, tmp_path: Path) -> None:
    (one, two_) = two(model, tmp_path)
    first = lora.merge(model, [one])
    second = lora.merge(model, [two_])
    with pytest.raises(ValueError, match="has been changed since it was merged; undo later merges"):
        first.unmerge()
    second.unmerge()
    first.unmerge()
    unchanged(model)


def test_unmerging_twice_or_after_a_move_is_refused(model: SimpleNamespace, tmp_path: Path) -> None:
    merged = lora.merge(model, two(model, tmp_path))
    merged.unmerge()
    with pytest.raises(ValueError, match="unmerge: wanted updates that are still merged, got none"):
        merged.unmerge()
    merged = lora.merge(model, two(model, tmp_path))
    model.unet.half()
    with pytest.raises(ValueError, match="has been moved since it was merged"):
        merged.unmerge()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_and_restored(
    dtype: torch.dtype, model: SimpleNamespace, tmp_path: Path
) -> None:
    files = two(model, tmp_path)
    full = deepcopy(model)
    for each in (model, full):
        for network in (each.unet, each.text_encoder):
            network.to(dtype)
    full.unet.float()  # the same numbers, merged in float32
    before = {name: value.clone() for name, value in model.unet.state_dict().items()}
    merged = lora.merge(model, files)
    lora.merge(full, files)
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, full.unet.state_dict()[name].to(dtype)), name
    merged.unmerge()
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("words", "scale"),
    [
        ({}, 1.0),
        ({"unet.lora_alpha": 6}, 2.0),
        ({"unet.lora_alpha": 6, "unet.use_rslora": True}, 6 / RANK**0.5),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_q": 12}}, 4.0),
        ({"unet.alpha_pattern": {"attn2.to_q": 12}}, 1.0),
        ({"unet.lora_alpha": 6, "unet.r": 8, "unet.rank_pattern": {"to_q": RANK}}, 2.0),
        ({"text_encoder.lora_alpha": 6}, 1.0),
    ],
)
def test_alpha_may_stand_in_the_metadata(
    words: dict[str, object], scale: float, tmp_path: Path, model: SimpleNamespace
) -> None:
    weight = model.unet.get_submodule(LINEAR).weight
    pair, before = factors(weight), weight.double()
    tensors = {f"unet.{LINEAR}{PEFT[0]}": pair["down"], f"unet.{LINEAR}{PEFT[1]}": pair["up"]}
    metadata = {"lora_adapter_metadata": json.dumps(words)}
    save_file(tensors, tmp_path / "lora.safetensors", metadata)
    lora.merge(model, [(tmp_path / "lora.safetensors", 1.0)])
    product = pair["up"].double() @ pair["down"].double()
    torch.testing.assert_close(weight.double(), before + scale * product, rtol=1e-6, atol=1e-5)


def test_kohya_s_alpha_stands_in_the_metadata_where_no_tensor_has_it(
    tmp_path: Path, model: SimpleNamespace
) -> None:
    weight = model.unet.get_submodule(LINEAR).weight
    pair, before = factors(weight), weight.double()
    names = (f"lora_unet_{flat(LINEAR)}{end}" for end in KOHYA)
    tensors = dict(zip(names, (pair["down"], pair["up"]), strict=True))
    path = tmp_path / "lora.safetensors"
    for metadata, extra, scale in (
        ({"ss_network_alpha": "6.0"}, {}, 2.0),
        ({"ss_network_alpha": "None"}, {}, 1.0),
        ({"ss_network_alpha": "6.0"}, {f"lora_unet_{flat(LINEAR)}.alpha": torch.tensor(12)}, 4.0),
    ):
        save_file({**tensors, **extra}, path, metadata)
        merged = lora.merge(model, [(path, 1.0)])
        product = pair["up"].double() @ pair["down"].double()
        torch.testing.assert_close(weight.double(), before + scale * product, rtol=1e-6, atol=1e-5)
        merged.unmerge()


def test_the_names_of_kohya_are_read_as_diffusers_reads_them() -> None:
    """Every layer of the transformers, by diffusers' own conversion of kohya's names."""
    state = small_models.truth(V1)["unet"]
    names = [n.removesuffix(".weight") for n in state if ".attentions." in n and "norm" not in n]
    names = [name for name in names if not name.endswith("bias")]
    assert len(names) > 60
    for name in names:
        stem = f"lora_unet_{flat(name)}"
        tensors = {f"{stem}{end}": torch.zeros(1) for end in KOHYA}
        found, _ = utils._convert_non_diffusers_lora_to_diffusers(tensors)
        (down, _) = found
        plain = down.replace("_lora.down", "").replace(".lora.down", "").replace(".processor", "")
        wanted = name.removesuffix(".0") if ".to_out.0" in name else name
        assert plain == f"unet.{wanted}.weight", name


def test_v2_has_linear_layers_around_attention(tmp_path: Path) -> None:
    model = deepcopy(small_models.networks(V2))
    weight = model.unet.get_submodule(POINT).weight
    assert weight.ndim == 2
    spell = spelled(lambda n: f"lora_unet_{flat(n)}", KOHYA)
    write(tmp_path / "lora.safetensors", model, "unet", (POINT,), spell)
    assert lora.merge(model, [(tmp_path / "lora.safetensors", 1.0)]).weights.keys() == {
        ("unet", f"{POINT}.weight")
    }
