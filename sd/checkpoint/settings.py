"""A component's config.json in a diffusers folder: what no tensor tells, and what must hold."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from sd.checkpoint.source import ill

__all__ = ["Settings", "read"]

LARGEST = 16 * 2**20
"""Bytes of a JSON file; an index of a thousand shards is below 1 MiB."""

FIXED: dict[str, dict[str, tuple[object, ...]]] = {
    "unet": {
        "act_fn": ("silu", "swish"),
        "addition_embed_type": (None,),
        "attention_type": ("default",),
        "center_input_sample": (False,),
        "class_embed_type": (None,),
        "class_embeddings_concat": (False,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "cross_attention_norm": (None,),
        "downsample_padding": (1,),
        "dropout": (0, 0.0),
        "dual_cross_attention": (False,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "flip_sin_to_cos": (True,),
        "freq_shift": (0,),
        "mid_block_only_cross_attention": (None, False),
        "mid_block_scale_factor": (1, 1.0),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "num_class_embeds": (None,),
        "only_cross_attention": (False,),
        "resnet_out_scale_factor": (1, 1.0),
        "resnet_skip_time_act": (False,),
        "resnet_time_scale_shift": ("default",),
        "reverse_transformer_layers_per_block": (None,),
        "time_cond_proj_dim": (None,),
        "time_embedding_act_fn": (None,),
        "time_embedding_dim": (None,),
        "time_embedding_type": ("positional",),
        "timestep_post_act": (None,),
        "transformer_layers_per_block": (1,),
    },
    "vae": {
        "act_fn": ("silu", "swish"),
        "latents_mean": (None,),
        "latents_std": (None,),
        "mid_block_add_attention": (True,),
        "shift_factor": (None, 0, 0.0),
        "use_post_quant_conv": (True,),
        "use_quant_conv": (True,),
    },
    "text_encoder": {"hidden_act": ("quick_gelu", "gelu"), "model_type": ("clip_text_model",)},
    "scheduler": {
        "beta_schedule": ("scaled_linear", "linear", "squaredcos_cap_v2"),
        "prediction_type": ("epsilon", "v_prediction", "sample"),
        "rescale_betas_zero_snr": (False,),
        "trained_betas": (None,),
    },
}
"""The values that the networks here can take; the first is what an absent key means."""


@final
@dataclass(frozen=True)
class Settings:
    """The contents of a config.json, and where it stands."""

    path: Path
    values: Mapping[str, Any]

    def get(self, name: str, default: Any, *kinds: type) -> Any:
        """A value, or its default; ValueError where it is of none of the kinds."""
        value = self.values.get(name, default)
        if value is None:
            value = default
        if kinds and (not isinstance(value, kinds) or isinstance(value, bool)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ill(self.path, f"{name} is {value!r}, not of type {wanted}")
        return value

    def agree(self, **found: object) -> None:
        """Raise ValueError where a value is there and differs from what the tensors say."""
        for name, value in found.items():
            said = self.values.get(name, value)
            if isinstance(said, list) and len(set(map(str, said))) == 1 and not _many(value):
                said = said[0]  # one number for each level
            if said != value:
                raise ill(self.path, f"{name} is {said!r}, the tensors say {value!r}")


def read(path: Path, kind: str) -> Settings:
    """The component's settings, all of which the networks here can take.

    Raises FileNotFoundError where there is no such file, ValueError for one that is no JSON object
    or has a value outside `FIXED`.
    """
    values = json_object(path)
    for name, legal in FIXED.get(kind, {}).items():
        said = values.get(name, legal[0])
        if said not in legal:
            wanted = " or ".join(repr(value) for value in legal)
            raise ill(path, f"{name} is {said!r}; supported is {wanted}")
    return Settings(path, values)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file's object. Raises FileNotFoundError, or ValueError for anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} is missing")
    if path.stat().st_size > LARGEST:
        raise ill(path, f"{path.stat().st_size} bytes of JSON, above the limit of {LARGEST}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ill(path, "not legal JSON") from error
    if not isinstance(values, dict):
        raise ill(path, "not a JSON object")
    return values


def _many(value: object) -> bool:
    return isinstance(value, (list, tuple))
