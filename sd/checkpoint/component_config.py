"""The config.json of a component in a diffusers folder, checked for unsupported values."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from sd.checkpoint.tensor_source import checkpoint_error, printable
from sd.files import regular_file

__all__ = ["ComponentConfig", "read_component_config"]

LARGEST = 16 * 2**20
"""The largest JSON file in bytes; an index of a thousand shards is below 1 MiB."""

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
        "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
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
        "rescale_betas_zero_snr": (False, True),
        "timestep_type": ("discrete",),
        "trained_betas": (None,),
        "use_dynamic_shifting": (False,),
        "use_flow_sigmas": (False,),
    },
}
"""The supported values; the first is that of an absent key."""
FIXED["controlnet"] = {
    **FIXED["unet"],
    "controlnet_conditioning_channel_order": ("rgb",),
    "global_pool_conditions": (False,),
}
READ: dict[str, str] = {
    "unet": "addition_embed_type_num_heads addition_time_embed_dim attention_head_dim "
    "block_out_channels cross_attention_dim down_block_types in_channels layers_per_block norm_eps "
    "norm_num_groups num_attention_heads num_class_embeds out_channels "
    "projection_class_embeddings_input_dim sample_size up_block_types upcast_attention "
    "use_linear_projection",
    "vae": "block_out_channels down_block_types force_upcast in_channels latent_channels "
    "layers_per_block norm_num_groups out_channels sample_size scaling_factor up_block_types",
    "text_encoder": "architectures attention_dropout bos_token_id chunk_size_feed_forward dropout "
    "dtype eos_token_id gradient_checkpointing hidden_size id2label initializer_factor "
    "initializer_range intermediate_size label2id layer_norm_eps max_position_embeddings "
    "num_attention_heads num_hidden_layers pad_token_id projection_dim return_dict torch_dtype "
    "transformers_version vocab_size",
    "scheduler": "algorithm_type base_image_seq_len base_shift beta_end beta_start clip_sample "
    "clip_sample_range corrector_order disable_corrector dynamic_thresholding_ratio euler_at_final "
    "final_sigmas_type flow_shift interpolation_type lambda_min_clipped lower_order_final "
    "max_image_seq_len max_shift num_train_timesteps original_inference_steps predict_x0 "
    "predictor_order sample_max_value set_alpha_to_one sigma_max sigma_min skip_prk_steps "
    "snr_shift_scale solver_order solver_p solver_type steps_offset tau_func thresholding "
    "time_shift_type timestep_scaling timestep_spacing use_beta_sigmas use_exponential_sigmas "
    "use_karras_sigmas use_lu_lambdas variance_type",
}
"""Other known names in a config.json: read, or without effect on sampling."""
READ["controlnet"] = f"{READ['unet']} conditioning_channels conditioning_embedding_out_channels"


@final
@dataclass(frozen=True)
class ComponentConfig:
    """The path and the values of a config.json."""

    path: Path
    values: Mapping[str, Any]

    def get(self, name: str, default: Any, *kinds: type) -> Any:
        """A value, or its default. Raises ValueError if it is of none of the kinds."""
        value = self.values.get(name, default)
        if value is None:
            value = default
        if kinds and (not isinstance(value, kinds) or isinstance(value, bool)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise checkpoint_error(self.path, f"{name} is {value!r}, not of type {wanted}")
        return value

    def agree(self, **found: object) -> None:
        """Raise ValueError if a value differs from that of the tensors."""
        for name, value in found.items():
            said = self.values.get(name, value)
            if isinstance(said, list) and len(set(map(str, said))) == 1 and not _many(value):
                said = said[0]  # one number for each level
            if said != value:
                raise checkpoint_error(self.path, f"{name} is {said!r}, the tensors say {value!r}")


def read_component_config(path: Path, kind: str) -> ComponentConfig:
    """The config.json of a component, with supported values only.

    Raises FileNotFoundError if there is no such file, ValueError if it is not a JSON object or has
    a value outside `FIXED`. Warns about unknown names.
    """
    values = json_object(path)
    for name, valid in FIXED.get(kind, {}).items():
        said = values.get(name, valid[0])
        if said not in valid:
            wanted = " or ".join(repr(value) for value in valid)
            raise checkpoint_error(path, f"{name} is {said!r}; supported is {wanted}")
    known = {*FIXED.get(kind, ()), *READ.get(kind, "").split()}
    strange = [
        name
        for name, said in values.items()
        if name not in known and not name.startswith("_") and said not in (None, False)
    ]
    if strange:
        names = printable(", ".join(sorted(strange)))
        warnings.warn(
            f"checkpoint {printable(str(path))}: {names} not known here and not read", stacklevel=2
        )
    return ComponentConfig(path, values)


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises FileNotFoundError, or ValueError for anything else."""
    raw = regular_file.read_bytes(path, "checkpoint", LARGEST)
    try:
        values = regular_file.parse_json(raw)
    except ValueError as error:
        raise checkpoint_error(path, str(error)) from error
    if not isinstance(values, dict):
        raise checkpoint_error(path, "not a JSON object")
    return values


def _many(value: object) -> bool:
    return isinstance(value, (list, tuple))
