"""LoRA files of the small models: layers, names of their factors, and files of two kinds."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint.key_map import file_key
from sd.checkpoint.saver import config_skeleton
from tests.support import small_models
from tests.support.small_models import V1
from tests.support.tensors import normal

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0"
POINT = "mid_block.attentions.0.proj_in"  # a 1 x 1 convolution in v1.x
CONV = "down_blocks.1.resnets.1.conv1"
TEXT = "encoder.layers.1.self_attn.q_proj"
MLP = "encoder.layers.0.mlp.fc1"
RANK = 3


def factors(weight: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """down and up for a weight, as convolutions where it is one."""
    ones = (1,) * (weight.ndim - 2)
    return {
        "down": normal(RANK, *weight.shape[1:], seed=seed),
        "up": normal(weight.shape[0], RANK, *ones, seed=seed + 1),
    }


def flat(name: str) -> str:
    return name.replace(".", "_")


def ldm(name: str) -> str:
    return file_key("unet", "original", f"{name}.weight", config_skeleton("unet", V1)).name[
        : -len(".weight")
    ]


def processor(name: str) -> str:
    return name.replace("attn1.to_q", "attn1.processor.to_q_lora").replace(
        "attn2.to_out.0", "attn2.processor.to_out_lora"
    )


Spelling = Callable[[str], tuple[str, str]]
"""A module's name to the names of its two factors in a file."""
KOHYA = ".lora_down.weight", ".lora_up.weight"
PEFT = ".lora_A.weight", ".lora_B.weight"
DIFFUSERS = ".lora.down.weight", ".lora.up.weight"
BARE = ".down.weight", ".up.weight"
LAYER = ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"
DEFAULT = ".lora_A.default.weight", ".lora_B.default.weight"


def spelled(stem: Callable[[str], str], ends: tuple[str, str]) -> Spelling:
    return lambda name: (stem(name) + ends[0], stem(name) + ends[1])


SPELLINGS: dict[str, tuple[str, tuple[str, ...], Spelling]] = {
    "kohya": (
        "unet", (LINEAR, OUT, POINT, CONV), spelled(lambda n: f"lora_unet_{flat(n)}", KOHYA)
    ),
    "kohya, original blocks": (
        "unet", (LINEAR, OUT, POINT, CONV), spelled(lambda n: f"lora_unet_{flat(ldm(n))}", KOHYA)
    ),
    "diffusers": ("unet", (LINEAR, OUT, POINT, CONV), spelled("unet.{}".format, DIFFUSERS)),
    "diffusers, processors": (
        "unet", (LINEAR, OUT), spelled(lambda n: f"unet.{processor(n)}", BARE)
    ),
    "diffusers, U-Net alone": ("unet", (LINEAR, OUT), spelled(processor, BARE)),
    "peft": ("unet", (LINEAR, OUT, POINT, CONV), spelled("unet.{}".format, PEFT)),
    "peft, wrapped": (
        "unet", (LINEAR, CONV), spelled("base_model.model.{}".format, DEFAULT)
    ),
    "kohya, text": (
        "text_encoder", (TEXT, MLP), spelled(lambda n: f"lora_te_text_model_{flat(n)}", KOHYA)
    ),
    "kohya, text, numbered": (
        "text_encoder", (TEXT, MLP), spelled(lambda n: f"lora_te1_text_model_{flat(n)}", KOHYA)
    ),
    "diffusers, text": (
        "text_encoder", (TEXT, MLP), spelled("text_encoder.text_model.{}".format, LAYER)
    ),
    "diffusers, text, old": (
        "text_encoder",
        (TEXT,),
        spelled(lambda n: f"text_encoder.text_model.{n.replace('q_proj', 'to_q_lora')}", BARE),
    ),
    "peft, text": ("text_encoder", (TEXT, MLP), spelled("text_encoder.{}".format, PEFT)),
}  # fmt: skip


def write(
    path: Path, model: SimpleNamespace, kind: str, names: tuple[str, ...], spell: Spelling
) -> dict[str, dict[str, Tensor]]:
    """A LoRA file of those modules; the factors, by module."""
    parts = {}
    tensors: dict[str, Tensor] = {}
    for i, name in enumerate(names):
        weight = getattr(model, kind).get_submodule(name).weight
        parts[name] = factors(weight, 2 * i)
        down, up = spell(name)
        tensors |= {down: parts[name]["down"], up: parts[name]["up"]}
        if down.endswith("lora_down.weight"):
            tensors[down.removesuffix("lora_down.weight") + "alpha"] = torch.tensor(6.0)
    save_file(tensors, path)
    return parts


def peft(down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {f"unet.{LINEAR}{PEFT[0]}": down, f"unet.{LINEAR}{PEFT[1]}": up}


def unchanged(model: SimpleNamespace) -> None:
    for kind, wanted in small_models.truth(V1).items():
        for name, value in getattr(model, kind).state_dict().items():
            assert torch.equal(value, wanted[name]), (kind, name)


def two(model: SimpleNamespace, folder: Path) -> list[tuple[Path, float]]:
    for i, key in enumerate(("kohya", "peft")):
        kind, names, spell = SPELLINGS[key]
        write(folder / f"{i}.safetensors", model, kind, names[i:], spell)
    return [(folder / "0.safetensors", 0.5), (folder / "1.safetensors", -1.25)]
