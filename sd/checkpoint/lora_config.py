"""The ranks and alphas of a LoRA file, as peft, diffusers and kohya's trainer write them.

peft writes them to adapter_config.json beside the file, diffusers as JSON to the metadata of the
file. kohya's trainer writes them to the metadata and as tensors, which take precedence.
"""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from sd.checkpoint import component_config
from sd.checkpoint.tensor_source import Source, checkpoint_error, printable
from sd.files import regular_file

__all__ = ["LoraConfig", "read_lora_config"]

CONFIG = "adapter_config.json"
METADATA = "lora_adapter_metadata"
KOHYA = "ss_network_alpha"
TYPES = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
"""The supported types of peft, and their names of alpha."""
NEUTRAL: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(
        (
            "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
            "lora_bias", "modules_to_save", "monteclora_config", "target_parameters",
            "trainable_token_indices", "use_bdlora", "use_qalora",
        ),
        (),
    ),
}  # fmt: skip
"""Settings that change more than the weight of a layer, and their neutral values.

An initialisation such as "pissa" also changes the base weights.
"""
TRAINING = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "parent_library"),
    *("peft_type", "peft_version", "revision", "runtime_config", "task_type"),
    *("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules"),
    *("decompose_both", "decompose_factor", "init_weights", "use_effective_conv2d"),
    *("lora_dropout", "module_dropout", "rank_dropout", "rank_dropout_scale"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config", "velora_config"),
    *("ensure_weight_tying", "megatron_config", "megatron_core", "qalora_group_size"),
}
"""Settings without effect on a merge; the tensors determine the layers and shapes."""


@final
@dataclass(frozen=True)
class LoraConfig:
    """Rank and alpha of every update to one network.

    Attributes:
        where: the source of the settings, for messages.
        alpha, rank: None if unknown.
        alphas, ranks: those of some modules, by the end of their names.
        root: whether s = alpha / sqrt(r).
        dora: whether the update is a DoRA; None if unknown.
    """

    path: Path
    where: str
    alpha: float | None = None
    rank: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, float] = field(default_factory=dict)
    root: bool = False
    dora: bool | None = None

    def scale(self, module: str, rank: int | None) -> float:
        """s = alpha / r, or alpha / sqrt(r), of a module whose factors have that rank.

        Raises ValueError if the settings have another rank, or no rank is known.
        """
        said = _of(module, self.ranks, self.rank)
        if rank is None and said is None:
            raise checkpoint_error(self.path, f"{self.where} says no rank for {module}")
        if None not in (rank, said) and rank != said:
            raise checkpoint_error(
                self.path, f"{module} is of rank {rank}; {self.where} says {said:g}"
            )
        r = float(said if rank is None else rank)  # type: ignore[arg-type]
        alpha = _of(module, self.alphas, self.alpha)
        return (r if alpha is None else alpha) / (math.sqrt(r) if self.root else r)


def read_lora_config(source: Source, peft: bool, alphas: bool) -> dict[str, LoraConfig]:
    """The settings of the updates to "unet" and "text_encoder"; empty if there are none.

    Args:
        peft: whether the file has peft's names, so that its settings are in a file beside it.
        alphas: whether every update has its own alpha, so that kohya's metadata are not needed.

    Raises ValueError for damaged or unsupported settings; warns about settings that are not read.
    """
    beside = source.path.with_name(CONFIG)
    networks = ("unet", "text_encoder")
    if METADATA in source.metadata:
        try:
            values = regular_file.parse_json(source.metadata[METADATA])
        except ValueError as error:
            raise checkpoint_error(source.path, f"its {METADATA} is {error}") from error
        if not isinstance(values, dict):
            raise checkpoint_error(source.path, f"its {METADATA} is not a JSON object")
        found = {}
        for network in networks:
            start = f"{network}."
            own = {k.removeprefix(start): v for k, v in values.items() if k.startswith(start)}
            if own:
                found[network] = _checked(source.path, METADATA, own)
        return found
    if peft and beside.is_file():
        one = _checked(source.path, CONFIG, component_config.json_object(beside))
        if one.alpha is None:
            raise checkpoint_error(source.path, f"{CONFIG} beside it says no alpha")
        return dict.fromkeys(networks, one)
    text = source.metadata.get(KOHYA, "None")
    if text != "None" and not alphas:
        values = {"lora_alpha": _parsed(text)}
        return dict.fromkeys(networks, _checked(source.path, KOHYA, values))
    return {}


def _parsed(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _checked(path: Path, where: str, values: Mapping[str, Any]) -> LoraConfig:
    """The settings in the values of a peft config."""
    kind = values.get("peft_type") or "LORA"
    if not isinstance(kind, str) or kind not in TYPES:
        raise checkpoint_error(
            path, f"{where} says peft_type = {kind!r}; {', '.join(TYPES)} are supported"
        )
    for name, neutral in NEUTRAL.items():
        value = values.get(name)
        if value and value not in neutral:
            raise checkpoint_error(path, f"{where} says {name} = {value!r}, which is not supported")
    alpha = TYPES[kind]
    switches = ("use_rslora", "use_dora")
    for name in switches:
        if not isinstance(values.get(name, False), bool):
            raise checkpoint_error(
                path, f"{where} says {name} = {values[name]!r}, not true or false"
            )
    known = {alpha, "r", "alpha_pattern", "rank_pattern", *switches, *NEUTRAL, *TRAINING}
    unread = [name for name, value in values.items() if value and name not in known]
    if unread:
        said = printable(", ".join(unread))
        warnings.warn(f"{path}: {where} says {said}, which has no effect", stacklevel=2)
    return LoraConfig(
        path,
        where,
        _number(path, where, alpha, values.get(alpha)),
        _number(path, where, "r", values.get("r")),
        _pattern(path, where, "alpha_pattern", values.get("alpha_pattern")),
        _pattern(path, where, "rank_pattern", values.get("rank_pattern")),
        kind == "LORA" and values.get("use_rslora", False),
        values.get("use_dora"),
    )


def _number(path: Path, where: str, name: str, value: Any) -> float | None:
    """A finite number other than 0, or None."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    valid = value is None or (plain and value != 0 and math.isfinite(value))
    if not valid or (name in ("r", "rank_pattern") and value is not None and value < 1):
        raise checkpoint_error(
            path, f"{where} says {name} = {value!r}, no finite number other than 0"
        )
    return None if value is None else float(value)


def _pattern(path: Path, where: str, name: str, value: Any) -> dict[str, float]:
    """Numbers by the ends of module names, which peft reads as regular expressions."""
    if not value:
        return {}
    if not isinstance(value, dict):
        raise checkpoint_error(path, f"{where} says {name} = {value!r}, not numbers by name")
    found: dict[str, float] = {}
    for key, number in value.items():
        plain = key.replace("\\.", ".").removeprefix("^")
        if not re.fullmatch(r"[\w.]+", plain):
            raise checkpoint_error(
                path, f"{where} has {key!r} in {name}: only names are read, no expressions"
            )
        one = _number(path, where, name, number)
        if one is not None:
            found.setdefault(plain, one)
    return found


def _of(module: str, some: Mapping[str, float], other: float | None) -> float | None:
    """The value of a module by the first matching name or end of a name, else the common one."""
    parts = module.split(".")
    ends = {".".join(parts[i:]) for i in range(len(parts))}
    fits = ends & some.keys()
    return next((number for end, number in some.items() if end in fits), other) if fits else other
