"""Save a model for other programs: one file in the original layout, or a diffusers folder."""

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_math.checks import require
from sd.checkpoint.key_map import Skeleton, file_key
from sd.checkpoint.parameterization import BETA_SCHEDULES, CONFIG_KEY
from sd.checkpoint.textual_inversion import TABLE
from sd.config import ModelConfig, TextConfig, UNetConfig, VAEConfig, to_json
from sd.noise_schedule import named_schedule

__all__ = ["config_skeleton", "original_tensors", "save_folder", "save_single"]

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "transformers": "cond_stage_model.transformer.text_model.",
    "openclip": "cond_stage_model.model.",
}
MODELSPEC = {"epsilon": "epsilon", "v_prediction": "v"}


def save_single(path: Path | str, model: Any, *, dtype: torch.dtype | None = None) -> None:
    """Write one file in the original layout, whole or not at all; `load` gives the same bits back.

    A text encoder with plain GELU is written as OpenCLIP's (v2.x), without its unused last layer;
    any other as CLIP's (v1.x). The configuration of the model is in the metadata.

    Args:
        path: ends in `.safetensors`, or in `.ckpt` for a zip of torch.save.
        model: a `Loaded`, or any object with its config and three networks.
        dtype: the dtype of the tensors; default: their own.

    Warns that the words of embeddings are left out: the file has no tokenizer to name them.

    Raises:
        ValueError: the path has another ending, or the model is offloaded.
    """
    _all_there(model)
    path = Path(path)
    valid = path.suffix in (".safetensors", ".ckpt")
    require(valid, "path", "a name ending in .safetensors or .ckpt", repr(path.name))
    config: ModelConfig = model.config
    tensors: dict[str, Tensor] = {}
    for kind in ("unet", "vae", "text_encoder"):
        tensors |= original_tensors(kind, getattr(model, kind), config, dtype)
    words = {"format": "pt", CONFIG_KEY: to_json(config)}
    if config.prediction in MODELSPEC:
        words["modelspec.prediction_type"] = MODELSPEC[config.prediction]
    if path.suffix == ".safetensors":
        _whole(path, lambda there: save_file(tensors, there, words))
    else:
        _whole(path, _zip({"state_dict": tensors, **words}))


def original_tensors(
    kind: str, network: nn.Module, config: ModelConfig, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A network's tensors under their original names, in the original shapes, on the CPU."""
    openclip = kind == "text_encoder" and config.text.activation == "gelu"
    layout = "original"
    if kind == "text_encoder":
        layout = "openclip" if openclip else "transformers"
    bones = config_skeleton(kind, config)
    packed: dict[str, dict[int, Tensor]] = {}
    for name, value in _state(kind, network, config).items():
        found = file_key(kind, layout, name, bones)
        thirds = packed.setdefault(PREFIXES.get(kind, PREFIXES.get(layout, "")) + found.name, {})
        tensor = value.detach().to("cpu", dtype or value.dtype)
        pixelwise = kind == "vae" and ".attentions." in name and tensor.ndim == 2
        thirds[found.third or 0] = tensor[:, :, None, None] if pixelwise else tensor
    return {
        name: thirds[0] if len(thirds) == 1 else torch.cat([thirds[i] for i in range(3)])
        for name, thirds in packed.items()
    }


def config_skeleton(kind: str, config: ModelConfig) -> Skeleton:
    """The counts in the original names of a network."""
    if kind == "text_encoder":
        return Skeleton()
    if kind == "vae":
        return Skeleton(config.vae.layers_per_block, len(config.vae.channels))
    unet = config.unet
    return Skeleton(unet.layers_per_block, len(unet.channels), unet.attention)


def save_folder(
    folder: Path | str,
    model: Any,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
) -> None:
    """Write the networks, with their configurations and the scheduler's, as diffusers does.

    The folder has no tokenizer; give one to a diffusers pipeline of the folder. Warns as
    `save_single`.

    Args:
        folder: is made if it does not exist.
        model, dtype: as in `save_single`.
        variant: a word in the names of the weights, such as "fp16".

    Raises:
        ValueError: the model skips layers of its text encoder, which config.json cannot express; or
            the model is offloaded.
    """
    _all_there(model)
    folder, config = Path(folder), model.config
    skip = config.text.skip
    require(skip == 0, "model", "a text encoder with skip = 0", f"skip = {skip}")
    dot = f".{variant}" if variant else ""
    described = {
        "text_encoder": ("model", text_encoder_json(config.text)),
        "vae": ("diffusion_pytorch_model", vae_json(config.vae, config.image_size)),
        "unet": ("diffusion_pytorch_model", unet_json(config.unet, config)),
    }
    for kind, (stem, words) in described.items():
        prefix = "text_model." if kind == "text_encoder" else ""
        state = _state(kind, getattr(model, kind), config)
        tensors = {
            prefix + name: value.detach().to("cpu", dtype or value.dtype).contiguous()
            for name, value in state.items()
        }
        (folder / kind).mkdir(parents=True, exist_ok=True)
        _json(folder / kind / "config.json", words)
        _whole(folder / kind / f"{stem}{dot}.safetensors", _file(tensors))
    (folder / "scheduler").mkdir(exist_ok=True)
    _json(folder / "scheduler" / "scheduler_config.json", scheduler_json(config))
    pipeline = "StableDiffusionInpaintPipeline" if config.reads_mask else "StableDiffusionPipeline"
    _json(folder / "model_index.json", {"_class_name": pipeline, **INDEX})


def _state(kind: str, network: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """A network's tensors, without the tokens that embeddings have added."""
    found = network.state_dict()
    if kind == "text_encoder":
        found[TABLE] = found[TABLE][: config.text.vocab_size]
    return found


INDEX: dict[str, Any] = {
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": [None, None],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def text_encoder_json(text: TextConfig) -> dict[str, Any]:
    """The configuration of the text encoder in the names of transformers."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context_length,
        "intermediate_size": text.intermediate,
        "hidden_act": text.activation,
        "layer_norm_eps": text.eps,
        "bos_token_id": text.start_token,
        "eos_token_id": text.end_token,
        "pad_token_id": text.end_token,
    }


def vae_json(vae: VAEConfig, side: int) -> dict[str, Any]:
    """The configuration of the autoencoder in the names of diffusers."""
    levels = len(vae.channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": vae.in_channels,
        "out_channels": vae.in_channels,
        "latent_channels": vae.latent_channels,
        "block_out_channels": list(vae.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": vae.layers_per_block,
        "norm_num_groups": vae.groups,
        "scaling_factor": vae.scaling_factor,
        "sample_size": side,
    }


def unet_json(unet: UNetConfig, config: ModelConfig) -> dict[str, Any]:
    """The configuration of the U-Net in diffusers' names; `attention_head_dim` counts heads."""
    down = [("", "CrossAttn")[attend] + "DownBlock2D" for attend in unet.attention]
    up = [("", "CrossAttn")[attend] + "UpBlock2D" for attend in unet.attention[::-1]]
    heads = [unet.heads_at(width) for width in unet.channels]
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "block_out_channels": list(unet.channels),
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": unet.layers_per_block,
        "attention_head_dim": heads if unet.head_width else unet.heads,
        "cross_attention_dim": unet.context_width,
        "use_linear_projection": unet.linear_projection,
        "norm_num_groups": unet.groups,
        "norm_eps": unet.eps,
        "sample_size": config.latent_shape[1],
    }


def scheduler_json(config: ModelConfig) -> dict[str, Any]:
    """The noise schedule in the names of diffusers."""
    names = {ours: theirs for theirs, ours in BETA_SCHEDULES.items()}
    betas = named_schedule(config.schedule, config.steps).betas
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": config.steps,
        "beta_schedule": names.get(config.schedule, config.schedule),
        "beta_start": float(betas[0]),
        "beta_end": float(betas[-1]),
        "prediction_type": config.prediction,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
        "timestep_spacing": "trailing" if config.zero_terminal_snr else "leading",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }


def _all_there(model: Any) -> None:
    """Raise ValueError if the model is offloaded; warn of tokens that no file has words for."""
    offload = getattr(model, "offload", None)
    require(offload is None, "model", "one loaded without low_memory", "low_memory=True")
    if added := len(model.text_encoder.state_dict()[TABLE]) - model.config.text.vocab_size:
        said = f"{added} tokens of added embeddings are left out; add them again to what is loaded"
        warnings.warn(said, stacklevel=3)


def _json(path: Path, words: Mapping[str, Any]) -> None:
    text = json.dumps(dict(words), indent=2, sort_keys=True) + "\n"
    _whole(path, lambda there: there.write_text(text, encoding="utf-8"))


def _file(tensors: dict[str, Tensor]) -> Callable[[Path], object]:
    return lambda there: save_file(tensors, there, {"format": "pt"})


def _zip(values: dict[str, Any]) -> Callable[[Path], object]:
    """torch.save to a file object, since it would write the name of a path into the zip."""

    def write(there: Path) -> None:
        with there.open("wb") as file:
            torch.save(values, file)

    return write


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the path and move at the end, so that no partial file is left."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
