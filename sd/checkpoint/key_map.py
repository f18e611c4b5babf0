"""The map from our tensor names (of diffusers and transformers) to those of original files.

A rule is (our prefix, original prefix, names inside). `{i}` is the level and `{j}` the block in our
name; `_fields` computes the other fields. The third part renames what follows the prefix. A name
without a rule is the same in both.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

__all__ = ["LAYOUTS", "FileKey", "Skeleton", "ema_key", "file_key"]

KEPT: dict[str, str] = {}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
OPENCLIP_LAYER = {  # no dot follows a name that ends in _: q, k and v are packed in one tensor
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.q_proj": "attn.in_proj_",
    "self_attn.k_proj": "attn.in_proj_",
    "self_attn.v_proj": "attn.in_proj_",
    "self_attn.out_proj": "attn.out_proj",
}
Rule = tuple[str, str, Mapping[str, str]]
UNET: tuple[Rule, ...] = (
    ("time_embedding.linear_1", "time_embed.0", KEPT),
    ("time_embedding.linear_2", "time_embed.2", KEPT),
    ("class_embedding", "label_emb", KEPT),
    ("conv_in", "input_blocks.0.0", KEPT),
    ("conv_norm_out", "out.0", KEPT),
    ("conv_out", "out.2", KEPT),
    ("down_blocks.{i}.resnets.{j}", "input_blocks.{down}.0", RESNET),
    ("down_blocks.{i}.attentions.{j}", "input_blocks.{down}.1", KEPT),
    ("down_blocks.{i}.downsamplers.0.conv", "input_blocks.{down}.0.op", KEPT),
    ("mid_block.resnets.{j}", "middle_block.{twice}", RESNET),
    ("mid_block.attentions.{j}", "middle_block.1", KEPT),
    ("up_blocks.{i}.resnets.{j}", "output_blocks.{up}.0", RESNET),
    ("up_blocks.{i}.attentions.{j}", "output_blocks.{up}.1", KEPT),
    ("up_blocks.{i}.upsamplers.0.conv", "output_blocks.{up}.{behind}.conv", KEPT),
)
CONTROLNET: tuple[Rule, ...] = (
    *UNET,
    ("controlnet_cond_embedding.conv_in", "input_hint_block.0", KEPT),
    ("controlnet_cond_embedding.blocks.{j}", "input_hint_block.{even}", KEPT),
    ("controlnet_cond_embedding.conv_out", "input_hint_block.14", KEPT),  # after six blocks
    ("controlnet_down_blocks.{j}", "zero_convs.{j}.0", KEPT),
    ("controlnet_mid_block", "middle_block_out.0", KEPT),
)
VAE: tuple[Rule, ...] = (
    ("encoder.conv_norm_out", "encoder.norm_out", KEPT),
    ("decoder.conv_norm_out", "decoder.norm_out", KEPT),
    ("encoder.down_blocks.{i}.resnets.{j}", "encoder.down.{i}.block.{j}", VAE_RESNET),
    ("encoder.down_blocks.{i}.downsamplers.0", "encoder.down.{i}.downsample", KEPT),
    ("encoder.mid_block.resnets.{j}", "encoder.mid.block_{next}", VAE_RESNET),
    ("encoder.mid_block.attentions.{j}", "encoder.mid.attn_{next}", VAE_ATTENTION),
    ("decoder.up_blocks.{i}.resnets.{j}", "decoder.up.{mirrored}.block.{j}", VAE_RESNET),
    ("decoder.up_blocks.{i}.upsamplers.0", "decoder.up.{mirrored}.upsample", KEPT),
    ("decoder.mid_block.resnets.{j}", "decoder.mid.block_{next}", VAE_RESNET),
    ("decoder.mid_block.attentions.{j}", "decoder.mid.attn_{next}", VAE_ATTENTION),
)
OLD_VAE: tuple[Rule, ...] = (
    ("encoder.mid_block.attentions.0", "encoder.mid_block.attentions.0", OLD_ATTENTION),
    ("decoder.mid_block.attentions.0", "decoder.mid_block.attentions.0", OLD_ATTENTION),
)
OPENCLIP: tuple[Rule, ...] = (
    ("embeddings.token_embedding", "token_embedding", KEPT),
    ("embeddings.position_embedding.weight", "positional_embedding", KEPT),
    ("encoder.layers.{i}", "transformer.resblocks.{i}", OPENCLIP_LAYER),
    ("final_layer_norm", "ln_final", KEPT),
)
LAYOUTS: dict[tuple[str, str], tuple[Rule, ...]] = {
    ("unet", "original"): UNET,
    ("vae", "original"): VAE,
    ("text_encoder", "openclip"): OPENCLIP,
    ("controlnet", "original"): CONTROLNET,
    ("unet", "diffusers"): (),
    ("controlnet", "diffusers"): (),
    ("vae", "diffusers"): (),
    ("vae", "old diffusers"): OLD_VAE,
    ("text_encoder", "transformers"): (),
}
THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


@dataclass(frozen=True)
class Skeleton:
    """The counts in a network's original names.

    layers: blocks of a downward level; levels: their number; attention: whether each attends.
    """

    layers: int = 0
    levels: int = 0
    attention: tuple[bool, ...] = ()


@dataclass(frozen=True)
class FileKey:
    """The place of our tensor in a file: its name and, in a packed one, which third of it."""

    name: str
    third: int | None = None


def file_key(kind: str, layout: str, name: str, skeleton: Skeleton) -> FileKey:
    """The place of our tensor (or module) `name` in a file of that layout, without its prefix.

    Args:
        kind: one of `sd.checkpoint.component.CALLED`.
        layout: a layout in `LAYOUTS` for the kind.
        name: the name in the state dict of our module.
        skeleton: the counts of the network.
    """
    for ours, theirs, inside in LAYOUTS[kind, layout]:
        found = _pattern(ours).fullmatch(name)
        if found is None:
            continue
        fields = _fields(found.groupdict(), skeleton)
        head, rest = theirs.format(**fields), found["rest"] or ""
        module, dot, leaf = rest.rpartition(".")
        if rest in inside:  # the name of a module, which has no leaf
            module, dot, leaf = rest, "", ""
        renamed = inside.get(module, module)
        joined = renamed + ("" if renamed.endswith("_") else dot) + leaf
        third = THIRDS.get(module.rpartition(".")[2]) if renamed.endswith("_") else None
        return FileKey(f"{head}.{joined}" if joined else head, third)
    return FileKey(name)


def ema_key(name: str) -> str:
    """The name of a U-Net tensor's moving average: `LitEma` removes the dots."""
    return "model_ema." + f"diffusion_model.{name}".replace(".", "")


@cache
def _pattern(ours: str) -> re.Pattern[str]:
    counted = re.escape(ours).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)")
    return re.compile(counted + r"(?:\.(?P<rest>.*))?")


def _fields(found: Mapping[str, str | None], skeleton: Skeleton) -> dict[str, int]:
    """The numbers in an original name; resampling comes after the last block of a level."""
    i, j = int(found.get("i") or 0), int(found.get("j") or 0)
    if found.get("j") is None:
        j = skeleton.layers
    mirrored = skeleton.levels - 1 - i
    attends = bool(skeleton.attention) and skeleton.attention[mirrored]
    start = i * (skeleton.layers + 1)
    return {
        "i": i,
        "j": j,
        "down": 1 + start + j,
        "up": start + j,
        "behind": 2 if attends else 1,
        "twice": 2 * j,
        "even": 2 * (j + 1),
        "next": j + 1,
        "mirrored": mirrored,
    }
