"""Ways to write the small models: original files with all that is found in them, and folders."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_math.schedule import Discrete
from sd.checkpoint.key_map import ema_key
from sd.config import ModelConfig
from tests.support import small_models
from tests.support.small_models import V1

Tensors = dict[str, Tensor]
UNET = "model.diffusion_model."
OPENCLIP = "cond_stage_model.model."


@dataclass(frozen=True)
class Variant:
    """A way to write a checkpoint.

    write: (folder, its tensors' model) to what `load` is called with; config: that is to come
    out; dtype: the file's; unread: how many names the account must list as unread, and a word in
    their reasons.
    """

    write: Callable[[Path], dict[str, Any]]
    config: ModelConfig
    dtype: torch.dtype | None = None
    unread: tuple[int, str] = (0, "")


def file(
    config: ModelConfig,
    /,
    *changes: Callable[[Tensors], Tensors],
    name: str = "model.safetensors",
    wrapped: bool = True,
    metadata: dict[str, str] | None = None,
    beside: str | None = None,
    **arguments: Any,
) -> Callable[[Path], dict[str, Any]]:
    """A writer of one file in the original layout, after some changes."""

    def write(folder: Path) -> dict[str, Any]:
        tensors = small_models.single(config)
        for change in changes:
            tensors = change(tensors)
        path = folder / name
        if name.endswith(".safetensors"):
            save_file(tensors, path, metadata)
        else:
            torch.save({"state_dict": tensors, "global_step": 7} if wrapped else tensors, path)
        if beside is not None:
            path.with_suffix(".yaml").write_text(beside)
        return {"path": path, **arguments}

    return write


def cast(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value.to(dtype) for name, value in tensors.items()}


def without_text_model(tensors: Tensors) -> Tensors:
    return {
        name.replace("transformer.text_model.", "transformer."): v for name, v in tensors.items()
    }


def position_ids(tensors: Tensors) -> Tensors:
    name = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    return {**tensors, name: torch.arange(20)[None]}


def with_ema(tensors: Tensors) -> Tensors:
    """The weights halved, the averages right: what is read shows which was taken."""
    averages = {
        ema_key(name.removeprefix(UNET)): value.clone()
        for name, value in tensors.items()
        if name.startswith(UNET)
    }
    halved = {name: v / 2 if name.startswith(UNET) else v for name, v in tensors.items()}
    numbers = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(9)}
    return {**halved, **averages, **numbers}


def with_other_ema(tensors: Tensors) -> Tensors:
    """The averages halved, the weights right."""
    averages = {
        ema_key(name.removeprefix(UNET)): value / 2
        for name, value in tensors.items()
        if name.startswith(UNET)
    }
    return {**tensors, **averages}


def left_over(tensors: Tensors) -> Tensors:
    """The buffers that latent-diffusion registers, by its schedule, and its losses."""
    schedule = Discrete.scaled_linear(1000)
    alpha_t, sigma_t = schedule(torch.arange(1, 1001, dtype=torch.float64))
    buffers = {
        "betas": schedule.betas.float(),
        "alphas_cumprod": (alpha_t**2).float(),
        "alphas_cumprod_prev": (alpha_t**2).float().roll(1),
        "sqrt_alphas_cumprod": alpha_t.float(),
        "sqrt_one_minus_alphas_cumprod": sigma_t.float(),
        "log_one_minus_alphas_cumprod": sigma_t.log().float(),
        "sqrt_recip_alphas_cumprod": (1 / alpha_t).float(),
        "sqrt_recipm1_alphas_cumprod": (sigma_t / alpha_t).float(),
        "posterior_variance": schedule.betas.float(),
        "posterior_log_variance_clipped": schedule.betas.float(),
        "posterior_mean_coef1": schedule.betas.float(),
        "posterior_mean_coef2": schedule.betas.float(),
        "lvlb_weights": schedule.betas.float(),
        "logvar": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "first_stage_model.loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
    }
    return {**tensors, **buffers}


def few_betas(tensors: Tensors) -> Tensors:
    return {**tensors, "betas": Discrete.linear(50).betas.half()}


def whole_openclip(tensors: Tensors) -> Tensors:
    """The layer that nothing reads, and what OpenCLIP has behind it."""
    last = {
        name.replace("resblocks.2.", "resblocks.3."): torch.full_like(value, 9.0)
        for name, value in tensors.items()
        if "resblocks.2." in name
    }
    beyond = {
        OPENCLIP + "text_projection": torch.zeros(64, 64),
        OPENCLIP + "logit_scale": torch.zeros(()),
    }
    return {**tensors, **last, **beyond}


def flat_vae_attention(tensors: Tensors) -> Tensors:
    """Linear where the original has 1 x 1 convolutions, as some programs write."""
    return {
        name: value.flatten(1) if ".attn_1." in name and value.ndim == 4 else value
        for name, value in tensors.items()
    }


def only(*kinds: str, bare: bool = False) -> Callable[[Tensors], Tensors]:
    starts = {"unet": UNET, "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
    taken = tuple(starts[kind] for kind in kinds)

    def change(tensors: Tensors) -> Tensors:
        return {
            name.removeprefix(taken[0]) if bare else name: value
            for name, value in tensors.items()
            if name.startswith(taken)
        }

    return change


def halved(*kinds: str) -> Callable[[Tensors], Tensors]:
    """Wrong weights in those networks, which another file must replace."""
    starts = {"unet": UNET, "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
    taken = tuple(starts[kind] for kind in kinds)
    return lambda tensors: {n: v / 2 if n.startswith(taken) else v for n, v in tensors.items()}


def two_files(
    first: Callable[[Path], dict[str, Any]], second: Callable[[Path], Any], argument: str
) -> Callable[[Path], dict[str, Any]]:
    """The first file, with the second as one of its arguments."""

    def write(folder: Path) -> dict[str, Any]:
        (folder / "second").mkdir()
        return {**first(folder), argument: second(folder / "second")["path"]}

    return write


def pipeline(
    config: ModelConfig, change: Callable[[Path], object] = bool, **options: Any
) -> Callable[[Path], dict[str, Any]]:
    """A writer of a diffusers folder, by diffusers itself."""

    def write(folder: Path) -> dict[str, Any]:
        small_models.write_folder(folder / "pipeline", config, **options)
        change(folder / "pipeline")
        variant = options.get("variant")
        return {"path": folder / "pipeline", **({"variant": variant} if variant else {})}

    return write


def component(config: ModelConfig, kind: str, part: str = "") -> Callable[[Path], dict[str, Any]]:
    """A component's folder, or the file in it, written by its peer."""

    def write(folder: Path) -> dict[str, Any]:
        small_models.peers(config)[kind].save_pretrained(folder / kind)
        return {"path": folder / kind / part}

    return write


def rename(
    kind: str, change: Callable[[str], str], name: str = "diffusion_pytorch_model"
) -> Callable[[Path], None]:
    """Other names of the tensors in a component."""

    def apply(folder: Path) -> None:
        path = folder / kind / f"{name}.safetensors"
        save_file({change(n): v for n, v in load_file(path).items()}, path, {"format": "pt"})

    return apply


def old_names(name: str) -> str:
    if ".attentions." in name:
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            name = name.replace(new, old)
        name = name.replace("to_out.0", "proj_attn")
    return name


def prefixed(folder: Path) -> None:
    """As transformers wrote until its version 5, with the buffer that it kept until 4.31."""
    rename("text_encoder", lambda name: f"text_model.{name}", "model")(folder)
    path = folder / "text_encoder" / "model.safetensors"
    ids = {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    save_file({**load_file(path), **ids}, path)


def sharded(folder: Path) -> None:
    small_models.peers(V1)["unet"].save_pretrained(folder / "unet", max_shard_size="300KB")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert len(list((folder / "unet").glob("*.safetensors"))) > 2


def terse(folder: Path) -> None:
    """config.json and the scheduler's as they were in 2022."""
    (folder / "unet" / "config.json").write_text(json.dumps(OLD_UNET))
    words = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(words))


OLD_UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 32, 64],
    "center_input_sample": False,
    "cross_attention_dim": 64,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
