"""Small models made by diffusers and transformers themselves, and files of them in every layout."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sd.checkpoint import Loaded
from sd.checkpoint.saver import original_tensors
from sd.config import ModelConfig, TextConfig, UNetConfig, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

TEXT = {"vocab_size": 50, "width": 64, "heads": 1, "context_length": 20, "intermediate": 96}
V1 = ModelConfig(
    text=TextConfig(**TEXT, layers=2),
    vae=VAEConfig(channels=(32, 64), layers_per_block=1),
    unet=UNetConfig(
        channels=(32, 32, 64), context_width=64, attention=(True, True, False), layers_per_block=2
    ),
)
"""As v1.x: convolutions around attention, eight heads, quick GELU."""
V2 = ModelConfig(
    text=TextConfig(**TEXT, layers=3, activation="gelu"),
    vae=VAEConfig(channels=(32, 32, 64), layers_per_block=2),
    unet=UNetConfig(
        channels=(64, 128),
        context_width=64,
        attention=(True, False),
        layers_per_block=1,
        heads=0,
        head_width=64,
        linear_projection=True,
    ),
)
"""As v2.x at 512 pixels: linear layers around attention, heads of 64, OpenCLIP's text encoder."""
KINDS = ("text_encoder", "vae", "unet")
OURS = {"text_encoder": TextEncoder, "vae": VAE, "unet": UNet}


def encoder_arguments(config: UNetConfig) -> dict[str, Any]:
    """What diffusers' U-Net and ControlNet are both given; `attention_head_dim` counts heads."""
    heads = list(map(config.heads_at, config.channels)) if config.head_width else config.heads
    return {
        "in_channels": config.in_channels,
        "down_block_types": tuple(
            ("", "CrossAttn")[attend] + "DownBlock2D" for attend in config.attention
        ),
        "block_out_channels": config.channels,
        "layers_per_block": config.layers_per_block,
        "cross_attention_dim": config.context_width or 1280,
        "attention_head_dim": heads,
        "use_linear_projection": config.linear_projection,
        "norm_num_groups": config.groups,
        "norm_eps": config.eps,
    }


def peer_unet(config: UNetConfig) -> nn.Module:
    """diffusers' U-Net."""
    up = [("", "CrossAttn")[attend] + "UpBlock2D" for attend in config.attention[::-1]]
    return diffusers.UNet2DConditionModel(
        sample_size=64,
        out_channels=config.out_channels,
        up_block_types=tuple(up),
        **encoder_arguments(config),
        num_class_embeds=config.num_class_embeds or None,
        mid_block_type="UNetMidBlock2D" + ("CrossAttn" if config.context_width else ""),
    ).eval()


def peer_vae(config: VAEConfig) -> nn.Module:
    """diffusers' autoencoder."""
    levels = len(config.channels)
    return diffusers.AutoencoderKL(
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        scaling_factor=config.scaling_factor,
    ).eval()


def peer_text(config: TextConfig) -> nn.Module:
    """transformers' text encoder."""
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.context_length,
            hidden_act=config.activation,
            layer_norm_eps=config.eps,
            bos_token_id=config.start_token,
            eos_token_id=config.end_token,
            pad_token_id=config.end_token,
        )
    ).eval()


@torch.no_grad()
def scramble(model: nn.Module, seed: int) -> None:
    """Random weights in every parameter, of a size that keeps the outputs ordinary."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        z = torch.randn(weight.shape, generator=generator)
        fan = weight[0].numel() if weight.ndim > 1 else 25
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weight.copy_(around + z / fan**0.5)


@cache
def peers(config: ModelConfig) -> dict[str, nn.Module]:
    """The three networks as the peers build them; not to be changed."""
    made = {
        "text_encoder": peer_text(config.text),
        "vae": peer_vae(config.vae),
        "unet": peer_unet(config.unet),
    }
    for seed, model in enumerate(made.values()):
        scramble(model, seed)
    return made


def truth(config: ModelConfig) -> dict[str, dict[str, Tensor]]:
    """The peers' state dicts, by network."""
    return {kind: dict(model.state_dict()) for kind, model in peers(config).items()}


def write_folder(folder: Path, config: ModelConfig, **options: object) -> Path:
    """A pipeline's folder as `save_pretrained` of diffusers and transformers writes it."""
    for kind, model in peers(config).items():
        dtype = options.get("dtype", torch.float32)
        words = {name: value for name, value in options.items() if name != "dtype"}
        if kind == "text_encoder":
            words.pop("safe_serialization", None)
        copied = type(model).from_config(model.config) if kind != "text_encoder" else None
        if copied is None:
            copied = type(model)(model.config)
        copied.load_state_dict(model.state_dict())
        copied.to(dtype).save_pretrained(folder / kind, **words)
    write_rest(folder, config)
    return folder


def write_rest(folder: Path, config: ModelConfig) -> None:
    """What a pipeline's folder has besides the networks."""
    diffusers.PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=config.prediction,
        skip_prk_steps=True,
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(INDEX)


INDEX = """{
  "_class_name": "StableDiffusionPipeline",
  "_diffusers_version": "0.30.0",
  "feature_extractor": ["transformers", "CLIPImageProcessor"],
  "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
  "scheduler": ["diffusers", "PNDMScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"]
}"""


@cache
def networks(config: ModelConfig) -> SimpleNamespace:
    """Our networks with the peers' tensors in them, as a model that can be saved."""
    made = {}
    for kind, settings in (
        ("text_encoder", config.text),
        ("vae", config.vae),
        ("unet", config.unet),
    ):
        made[kind] = OURS[kind](settings).requires_grad_(False).eval()
        made[kind].load_state_dict(truth(config)[kind])
    return SimpleNamespace(config=config, **made)


def single(config: ModelConfig, *kinds: str) -> dict[str, Tensor]:
    """The tensors of a file in the original layout (tests/.../test_key_map.py proves the names)."""
    model, tensors = networks(config), {}
    for kind in kinds or KINDS:
        tensors |= original_tensors(kind, getattr(model, kind), config)
    return {name: value.clone() for name, value in tensors.items()}


def same(loaded: Loaded, config: ModelConfig, dtype: torch.dtype | None = None) -> None:
    """Assert that a load has every bit of the peers' tensors, as rounded to `dtype` by the file."""
    for kind, wanted in truth(config).items():
        found = getattr(loaded, kind).state_dict()
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            rounded = value if dtype is None else value.to(dtype).float()
            assert torch.equal(found[name], rounded), (kind, name)
