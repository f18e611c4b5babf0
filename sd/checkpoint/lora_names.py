"""The names in a LoRA file: which weight of ours each update is of."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from sd.checkpoint.account import table
from sd.checkpoint.names import place
from sd.checkpoint.saver import skeleton
from sd.checkpoint.source import Source, ill
from sd.config import ModelConfig
from sd.text_encoder import TextEncoder
from sd.unet import UNet
from sd.weights import blank

__all__ = ["Update", "updates"]

ROLES = (
    r"\.lora_(down|up|mid)\.weight",  # kohya's trainer
    r"\.lora_([AB])(?:\.default(?:_0)?)?\.weight",  # peft
    r"[._]lora\.(down|up)\.weight",  # diffusers
    r"\.lora_linear_layer\.(down|up)\.weight",
    r"\.(alpha)",
)
MEANT = {"A": "down", "B": "up"}
PEFT = "base_model.model."


@final
@dataclass(frozen=True)
class Update:
    """One weight's update in a file.

    kind, name: of our weight; stem: what its names in the file begin with; factors: "down", "up"
    and perhaps "mid" to their names; rank: r; alpha_name: of alpha, where it is a tensor, else
    scale: alpha / r.
    """

    kind: str
    name: str
    stem: str
    factors: Mapping[str, str]
    rank: int
    alpha_name: str | None = None
    scale: float = 1.0


def updates(source: Source, config: ModelConfig) -> list[Update]:
    """Every update in a file, all of whose names must be of this model.

    Raises ValueError with a table of the names that are not, or have no partner.
    """
    spelled = _spellings(config)
    grouped: dict[str, dict[str, str]] = {}
    faults: dict[str, list[str]] = {"unknown": [], "unpaired": [], "twice": []}
    for name in (*source.entries, *source.aside):
        found = _role(name)
        if found is None or found[0] not in spelled or name not in source.entries:
            faults["unknown"].append(name)
        else:
            grouped.setdefault(found[0], {})[found[1]] = name
    for roles in grouped.values():
        if not {"down", "up"} <= roles.keys():
            faults["unpaired"] += roles.values()
    seen: set[tuple[str, str]] = set()
    for stem in grouped:
        if spelled[stem] in seen:
            faults["twice"].append(stem)
        seen.add(spelled[stem])
    if any(faults.values()):
        sdxl = any(name.startswith("lora_te2_") for name in faults["unknown"])
        whose = "an SDXL LoRA; " if sdxl else ""
        raise ValueError(
            table(f"checkpoint {source.path} is no LoRA of this model: {whose}", faults)
        )
    words = _adapter(source)
    return [_update(source, stem, *spelled[stem], roles, words) for stem, roles in grouped.items()]


def _role(name: str) -> tuple[str, str] | None:
    """A name's stem and what it is to it: down, up, mid or alpha."""
    name = name.removeprefix(PEFT)
    for pattern in ROLES:
        if found := re.fullmatch(rf"(.+?){pattern}", name):
            return found[1], MEANT.get(found[2], found[2])
    return None


def _update(
    source: Source,
    stem: str,
    kind: str,
    module: str,
    roles: dict[str, str],
    words: Mapping[str, Any],
) -> Update:
    factors = {role: name for role, name in roles.items() if role != "alpha"}
    shape = source.entries[factors["down"]].shape
    rank = shape[0] if shape else 0
    alpha = words.get(f"{kind}.lora_alpha", rank)
    pattern = words.get(f"{kind}.alpha_pattern")
    if isinstance(pattern, dict):
        matches = [v for k, v in pattern.items() if re.fullmatch(rf"(.*\.)?{re.escape(k)}", module)]
        alpha = matches[0] if matches else alpha
    root = words.get(f"{kind}.use_rslora", False)
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise ill(source.path, f"lora_alpha of {stem} is {alpha!r}, no finite number")
    scale = alpha / (math.sqrt(rank) if root else rank) if rank else 0.0
    return Update(kind, f"{module}.weight", stem, factors, rank, roles.get("alpha"), scale)


def _adapter(source: Source) -> dict[str, Any]:
    """What diffusers writes of ranks and alphas into the metadata."""
    text = source.metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    try:
        words = json.loads(text)
    except ValueError as error:
        raise ill(source.path, "its lora_adapter_metadata is not legal JSON") from error
    return words if isinstance(words, dict) else {}


def _spellings(config: ModelConfig) -> dict[str, tuple[str, str]]:
    """Every stem that a file may use for a layer of ours: (kind, module)."""
    found: dict[str, tuple[str, str]] = {}
    networks: tuple[tuple[str, nn.Module], ...] = (
        ("text_encoder", blank(TextEncoder, config.text)),
        ("unet", blank(UNet, config.unet)),
    )
    for kind, network in networks:
        for name, module in network.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                spell = _unet(name, config) if kind == "unet" else _text(name)
                found.update(dict.fromkeys(spell, (kind, name)))
    return found


def _unet(name: str, config: ModelConfig) -> Iterator[str]:
    original = place("unet", "original", f"{name}.weight", skeleton("unet", config)).name
    flat = (name, original.removesuffix(".weight"))
    yield from (f"lora_unet_{spelled.replace('.', '_')}" for spelled in flat)
    processor = re.sub(r"\.(attn[12])\.to_(q|k|v|out)(\.0)?$", r".\1.processor.to_\2", name)
    for spelled in (name, processor):
        yield from (f"unet.{spelled}", spelled)


def _text(name: str) -> Iterator[str]:
    short = re.sub(r"\.self_attn\.(q|k|v|out)_proj$", r".self_attn.to_\1", name)
    for whole in (f"text_model.{name}", name):
        yield from (f"lora_{te}_{whole.replace('.', '_')}" for te in ("te", "te1"))
        yield f"text_encoder.{whole}"
    yield from (f"text_encoder.text_model.{short}", f"text_encoder.{short}", f"text_model.{name}")
