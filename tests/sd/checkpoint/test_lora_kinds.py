"""LoRA, LoHa, LoKr and DoRA against their formulas, written out here entry by entry, and peft."""

import itertools
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import lora
from tests.support.lora import (
    CONV,
    LINEAR,
    MLP,
    POINT,
    flat,
    unchanged,
)
from tests.support.tensors import (
    normal,
)

peft = pytest.importorskip("peft")
LAYERS = {"linear": LINEAR, "conv 1 x 1": POINT, "conv 3 x 3": CONV}
R = 3


def outer_sum(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """sum_k left[:, k] right[k], a rank-one matrix at a time."""
    return sum(np.outer(left[:, k], right[k]) for k in range(left.shape[1]))


def tucker(core: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """sum_ij core[i, j] left[i, p] right[j, q], a term at a time."""
    found = np.zeros((left.shape[1], right.shape[1], *core.shape[2:]))
    for i, j in itertools.product(*map(range, core.shape[:2])):
        found += np.multiply.outer(np.outer(left[i], right[j]), core[i, j])
    return found


def kronecker(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """D[i b + k, j d + l] = first[i, j] second[k, l], by its definition."""
    (a, c), (b, _) = first.shape, second.shape[:2]
    second = second.reshape(b, shape[1] // c, *shape[2:])
    found = np.empty(shape)
    for i, j in itertools.product(range(a), range(c)):
        d = second.shape[1]
        found[i * b : (i + 1) * b, j * d : (j + 1) * d] = first[i, j] * second
    return found


Tensors = dict[str, Tensor]
Made = tuple[Tensors, np.ndarray]
"""Factors by the ends of their names, and D."""


def numbers(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in tensors.items()}


def drawn(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    return {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def loha(shape: tuple[int, ...]) -> Made:
    out, rest = shape[0], int(np.prod(shape[1:]))
    sides = {f"hada_w{k}_{s}": (out, R) if s == "a" else (R, rest) for k in (1, 2) for s in "ab"}
    made = drawn(sides)
    f = numbers(made)
    product = outer_sum(f["hada_w1_a"], f["hada_w1_b"]) * outer_sum(f["hada_w2_a"], f["hada_w2_b"])
    return made, product.reshape(shape)


def loha_tucker(shape: tuple[int, ...]) -> Made:
    sides = {f"hada_w{k}_{s}": (R, shape[s == "b"]) for k in (1, 2) for s in "ab"}
    made = drawn({**sides, "hada_t1": (R, R, *shape[2:]), "hada_t2": (R, R, *shape[2:])})
    f = numbers(made)
    first, second = (tucker(f[f"hada_t{k}"], f[f"hada_w{k}_a"], f[f"hada_w{k}_b"]) for k in (1, 2))
    return made, first * second


def lokr(first: bool, second: str) -> Callable[[tuple[int, ...]], Made]:
    """LoKr with W_1 whole or not, and W_2 "whole", "split" or "tucker"; W_1 is 4 x 2."""

    def make(shape: tuple[int, ...]) -> Made:
        b, d, kernel = shape[0] // 4, shape[1] // 2, shape[2:]
        shapes: dict[str, tuple[int, ...]] = (
            {"lokr_w1": (4, 2)} if first else {"lokr_w1_a": (4, R), "lokr_w1_b": (R, 2)}
        )
        shapes |= {
            "whole": {"lokr_w2": (b, d, *kernel)},
            "split": {"lokr_w2_a": (b, R), "lokr_w2_b": (R, d * int(np.prod(kernel)))},
            "tucker": {"lokr_w2_a": (R, b), "lokr_w2_b": (R, d), "lokr_t2": (R, R, *kernel)},
        }[second]
        made = drawn(shapes)
        f = numbers(made)
        w1 = f["lokr_w1"] if first else outer_sum(f["lokr_w1_a"], f["lokr_w1_b"])
        if second == "whole":
            w2 = f["lokr_w2"]
        elif second == "split":
            w2 = outer_sum(f["lokr_w2_a"], f["lokr_w2_b"])
        else:
            w2 = tucker(f["lokr_t2"], f["lokr_w2_a"], f["lokr_w2_b"])
        return made, kronecker(w1, w2, shape)

    return make


def plain(shape: tuple[int, ...]) -> Made:
    made = drawn({"lora_down.weight": (R, *shape[1:]), "lora_up.weight": (shape[0], R)})
    f = numbers(made)
    rows = f["lora_down.weight"].reshape(R, -1)
    return made, outer_sum(f["lora_up.weight"], rows).reshape(shape)


def plain_tucker(shape: tuple[int, ...]) -> Made:
    made = drawn(
        {
            "lora_down.weight": (R, shape[1], 1, 1),
            "lora_up.weight": (shape[0], R, 1, 1),
            "lora_mid.weight": (R, R, *shape[2:]),
        }
    )
    f = numbers(made)
    up, down = f["lora_up.weight"][..., 0, 0].T, f["lora_down.weight"][..., 0, 0]
    return made, tucker(f["lora_mid.weight"], up, down)


MAKERS: dict[str, Callable[[tuple[int, ...]], Made]] = {
    "LoRA": plain,
    "LoRA, Tucker": plain_tucker,
    "LoHa": loha,
    "LoHa, Tucker": loha_tucker,
    **{
        f"LoKr, {('split', 'whole')[first]} and {second}": lokr(first, second)
        for first in (True, False)
        for second in ("whole", "split", "tucker")
    },
}
CASES = [
    (layer, kind)
    for layer, kind in itertools.product(LAYERS, MAKERS)
    if layer == "conv 3 x 3" or "ucker" not in kind
]


def column_norms(weight: np.ndarray, axis: int) -> np.ndarray:
    """The norm of each output (axis 0) or input (axis 1), one at a time."""
    norms = [np.sqrt((weight.take(i, axis) ** 2).sum()) for i in range(weight.shape[axis])]
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.array(norms).reshape(shape)


@pytest.mark.parametrize("decomposed", [None, "outputs", "inputs"])
@pytest.mark.parametrize(("layer", "kind"), CASES)
def test_merges_as_the_formula_says(
    layer: str, kind: str, decomposed: str | None, model: SimpleNamespace, tmp_path: Path
) -> None:
    name, strength, alpha = LAYERS[layer], 0.6, 1.5
    weight = model.unet.get_submodule(name).weight
    old = weight.double().numpy().copy()
    made, product = MAKERS[kind](tuple(weight.shape))
    stem = f"lora_unet_{flat(name)}"
    tensors = {f"{stem}.{end}": value for end, value in made.items()}
    tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    scale = 1.0 if kind == "LoKr, whole and whole" else alpha / R
    wanted = old + strength * scale * product
    if decomposed is not None:
        axis = ("outputs", "inputs").index(decomposed)
        whole = old + scale * product
        norms = column_norms(whole, axis)
        m = normal(*norms.shape, seed=9).abs() + 0.5
        tensors[f"{stem}.dora_scale"] = m
        wanted = old + strength * (m.double().numpy() * whole / norms - old)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "lora.safetensors")
    merged = lora.merge(model, [(tmp_path / "lora.safetensors", strength)])
    # float32: sums of at most nine products of a few normal numbers
    np.testing.assert_allclose(weight.double().numpy(), wanted, rtol=1e-5, atol=3e-5)
    assert abs(wanted - old).max() > 0.1
    merged.unmerge()
    unchanged(model)


def lora_config(**options: object) -> object:
    return peft.LoraConfig(r=R, target_modules=list(LAYERS.values()), **options)


def hada_config(**options: object) -> object:
    return peft.LoHaConfig(r=R, target_modules=list(LAYERS.values()), **options)


def kron_config(**options: object) -> object:
    return peft.LoKrConfig(r=R, target_modules=list(LAYERS.values()), **options)


PEFT = {
    "LoRA": lambda: lora_config(lora_alpha=24),
    "rsLoRA": lambda: lora_config(lora_alpha=24, use_rslora=True),
    "patterns": lambda: lora_config(
        lora_alpha=24,
        alpha_pattern={"attn1.to_q": 2, "conv1": 5},
        rank_pattern={"mid_block.attentions.0.proj_in": 7},
    ),
    "DoRA": lambda: lora_config(lora_alpha=24, use_dora=True),
    "LoHa": lambda: hada_config(alpha=2),
    "LoHa, Tucker": lambda: hada_config(alpha=2, use_effective_conv2d=True),
    "LoKr": lambda: kron_config(alpha=6),
    "LoKr, split": lambda: kron_config(alpha=6, decompose_both=True, decompose_factor=8),
    "LoKr, Tucker": lambda: kron_config(alpha=6, use_effective_conv2d=True),
}


@pytest.mark.parametrize("name", PEFT)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_what_peft_saves_merges_as_peft_merges_it(
    name: str, model: SimpleNamespace, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    theirs = peft.get_peft_model(deepcopy(model.unet), PEFT[name]())
    with torch.no_grad():
        for key, value in theirs.named_parameters():
            if "lora_" in key or "hada_" in key or "lokr_" in key:
                value.add_(torch.rand_like(value))
    theirs.save_pretrained(tmp_path)
    wanted = theirs.merge_and_unload().state_dict()
    lora.merge(model, [(tmp_path / "adapter_model.safetensors", 1.0)])
    changed = [f"{layer}.weight" for layer in LAYERS.values()]
    before = model.unet.state_dict()
    for key in changed:
        torch.testing.assert_close(before[key], wanted[key], rtol=1e-4, atol=1e-4)


def test_peft_on_the_text_encoder(model: SimpleNamespace, tmp_path: Path) -> None:
    stem = f"base_model.model.text_model.{MLP}"
    weight = model.text_encoder.get_submodule(MLP).weight
    before = weight.double().clone()
    pair = {"lora_A": normal(R, weight.shape[1]), "lora_B": normal(weight.shape[0], R, seed=1)}
    save_file({f"{stem}.{k}.weight": v for k, v in pair.items()}, tmp_path / "a.safetensors")
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 1}
    config["alpha_pattern"] = {f"text_model.{MLP}".replace(".", r"\."): 12}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    lora.merge(model, [(tmp_path / "a.safetensors", 1.0)])
    wanted = before + 4 * pair["lora_B"].double() @ pair["lora_A"].double()
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-6, atol=1e-5)
