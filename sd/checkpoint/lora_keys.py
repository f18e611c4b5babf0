"""The updates in a LoRA file: the weight, the kind and the scale of each."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import final

from torch import nn

from sd.checkpoint import lora_config
from sd.checkpoint.key_map import file_key
from sd.checkpoint.loading_report import fault_table
from sd.checkpoint.lora_config import LoraConfig
from sd.checkpoint.lora_key_suffixes import PREFIX, foreign, role
from sd.checkpoint.lora_types import KINDS, Kind
from sd.checkpoint.pickle_file import BESIDE_STATE_DICT
from sd.checkpoint.saver import config_skeleton
from sd.checkpoint.tensor_source import Source, checkpoint_error, printable
from sd.config import ModelConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.weights import blank

__all__ = ["Update", "updates"]

MAGNITUDES = ("dora_scale", "magnitude")
COUNTERS = r"(global_step|epoch|step|iteration)"
"""Counters of a training, which may be among the tensors or beside them."""
STATES = r"(callbacks|hyper_parameters|loops|lr_schedulers|optimizer\w*|pytorch-lightning_version)"
"""Other states of a training beside the tensors."""


@final
@dataclass(frozen=True)
class Update:
    """The update of one weight in a file.

    network, name: of our weight; stem: the prefix of its names in the file; kind: its formula;
    factors: roles to names; magnitude: the role and name of DoRA's; scale: s.
    """

    network: str
    name: str
    stem: str
    kind: Kind
    factors: Mapping[str, str]
    magnitude: tuple[str, str] | None
    scale: float


def updates(source: Source, config: ModelConfig) -> list[Update]:
    """All updates in a file, whose names must all be of this model.

    Raises ValueError, with a table of names, if names are of an unsupported kind or of no layer of
    the model, or lack a partner; or if there is no update.
    """
    spelled = _spellings(config)
    grouped: dict[str, dict[str, str]] = {}
    faults: dict[str, list[str]] = {"unknown": [], "unpaired": [], "twice": []}
    others: dict[str, list[str]] = {}
    for name in source.entries:
        found = role(name)
        if found is not None and found[0] in spelled:
            there = grouped.setdefault(found[0], {})
            if there.setdefault(found[1], name) != name:
                faults["twice"].append(name)
        elif not re.fullmatch(COUNTERS, name):
            kind = None if found else foreign(name, len(source.entries[name].shape))
            (others.setdefault(kind, []) if kind else faults["unknown"]).append(name)
    faults["unknown"] += _aside(source)
    kinds = {stem: _kind(roles) for stem, roles in grouped.items()}
    seen: set[tuple[str, str]] = set()
    for stem, roles in grouped.items():
        if kinds[stem] is None and others and roles.keys() <= {"alpha", *MAGNITUDES}:
            continue  # of an update that is of another kind
        if kinds[stem] is None:
            faults["unpaired"] += roles.values()
        elif spelled[stem] in seen:
            faults["twice"].append(stem)
        seen.add(spelled[stem])
    if others or any(faults.values()):
        raise ValueError(fault_table(_head(source, others, faults), {**others, **faults}))
    if not grouped:
        raise checkpoint_error(source.path, "no LoRA: it holds no update of any weight")
    return _scaled(source, grouped, kinds, spelled)


def _aside(source: Source) -> list[str]:
    """Contents besides tensors that are an error; warns about those that are not read."""
    beside = {name for name, what in source.aside.items() if what == BESIDE_STATE_DICT}
    training = {name for name in source.aside if re.fullmatch(COUNTERS, name)}
    training |= {name for name in beside if re.fullmatch(STATES, name)}
    unread = beside - training
    if unread:
        said = printable(", ".join(sorted(unread)))
        warnings.warn(f"{source.path}: {said} {BESIDE_STATE_DICT}: not read", stacklevel=2)
    return [name for name in source.aside if name not in beside | training]


def _kind(roles: Mapping[str, str]) -> str | None:
    """The kind of update with exactly these roles, or None."""
    factors = roles.keys() - {"alpha", *MAGNITUDES}
    return next((name for name, kind in KINDS.items() if factors in kind.complete), None)


def _head(source: Source, others: Mapping[str, list[str]], faults: Mapping[str, list[str]]) -> str:
    """The beginning of the message."""
    if others:
        known = ", ".join([*KINDS, "DoRA"])
        return f"checkpoint {source.path} has {', '.join(others)}; supported are {known}: "
    sdxl = any(name.startswith("lora_te2_") for name in faults["unknown"])
    whose = "an SDXL LoRA; " if sdxl else ""
    return f"checkpoint {source.path} is no LoRA of this model: {whose}"


def _scaled(
    source: Source,
    grouped: Mapping[str, Mapping[str, str]],
    kinds: Mapping[str, str | None],
    spelled: Mapping[str, tuple[str, str]],
) -> list[Update]:
    """The updates, with their scales."""
    wrapped = any(name.startswith(PREFIX) for name in source.entries)
    peft = wrapped or source.path.name.startswith("adapter_model")
    peft = peft or any(".lora_A." in name for name in source.entries)
    alphas = all("alpha" in roles for roles in grouped.values())
    settings = lora_config.read_lora_config(source, peft, alphas)
    if wrapped and not settings and not alphas:
        what = f"no {lora_config.CONFIG} beside it, which has its alpha; merged with alpha = rank"
        warnings.warn(f"{source.path}: {what}", stacklevel=2)
    found: list[Update] = []
    for stem, roles in grouped.items():
        network, module = spelled[stem]
        whole = f"text_model.{module}" if network == "text_encoder" else module
        kind = KINDS[str(kinds[stem])]
        factors = {end: name for end, name in roles.items() if end not in ("alpha", *MAGNITUDES)}
        shapes = {end: source.entries[name].shape for end, name in factors.items()}
        magnitude = [(end, name) for end, name in roles.items() if end in MAGNITUDES]
        said = settings.get(network)
        if len(magnitude) > 1 or (said and said.dora not in (None, bool(magnitude))):
            raise checkpoint_error(source.path, f"{stem} has {len(magnitude)} magnitudes of DoRA")
        scale = _scale(source, kind.rank(shapes), roles.get("alpha"), said, whole)
        at = magnitude[0] if magnitude else None
        found.append(Update(network, f"{module}.weight", stem, kind, factors, at, scale))
    return found


def _scale(
    source: Source, rank: int | None, alpha: str | None, said: LoraConfig | None, module: str
) -> float:
    """s = alpha / r; 1 without an alpha, or if no factor has a rank."""
    if rank == 0:
        return 0.0  # the shapes will be refused
    outer = None if said is None else said.scale(module, rank)
    if alpha is None:
        return 1.0 if outer is None else outer
    entry = source.entries[alpha]
    plain = math.prod(entry.shape) == 1 and not entry.dtype.is_complex
    value = float(source.fetch(alpha, None).double().reshape(())) if plain else math.nan
    if not math.isfinite(value):
        raise checkpoint_error(source.path, f"{alpha} is no finite number")
    if value == 0:
        raise checkpoint_error(
            source.path, f"{alpha} is 0, which some read as no update and some as the rank"
        )
    own = 1.0 if rank is None else value / rank
    if outer is not None and not math.isclose(own, outer, rel_tol=1e-3):
        where = said.where if said else ""
        raise checkpoint_error(source.path, f"{alpha} is {value:g}, which contradicts {where}")
    return own


@cache
def _spellings(config: ModelConfig) -> dict[str, tuple[str, str]]:
    """All stems in files of our layers, to (kind, module)."""
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
    original = file_key("unet", "original", f"{name}.weight", config_skeleton("unet", config)).name
    flat = (name, original.removesuffix(".weight"))
    for start in ("lora_unet", "lycoris"):
        yield from (f"{start}_{spelled.replace('.', '_')}" for spelled in flat)
    processor = re.sub(r"\.(attn[12])\.to_(q|k|v|out)(\.0)?$", r".\1.processor.to_\2", name)
    for spelled in (name, processor):
        yield from (f"unet.{spelled}", spelled)


def _text(name: str) -> Iterator[str]:
    short = re.sub(r"\.self_attn\.(q|k|v|out)_proj$", r".self_attn.to_\1", name)
    for whole in (f"text_model.{name}", name):
        yield from (f"lora_{te}_{whole.replace('.', '_')}" for te in ("te", "te1"))
        yield f"text_encoder.{whole}"
    yield from (f"text_encoder.text_model.{short}", f"text_encoder.{short}")
    yield from (f"text_model.{name}", name)
