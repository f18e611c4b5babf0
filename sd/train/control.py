"""Training of a ControlNet on class-index maps, with the U-Net frozen (C27)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_math.schedule import Discrete
from sd import device as devices
from sd import weights
from sd.config import ControlNetConfig, ModelConfig, to_json
from sd.digest import weights_digest
from sd.networks.controlnet import copy_encoder
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.shapes.semantic import PALETTE, class_map
from sd.text.tokenizer import Tokenizer
from sd.train import unet as base_training
from sd.train.settings import Initial, Rate, Share, Size, Steps, Warmup
from sd.train.shard import WHOLE, Shard, joined
from sd.train.source import Shapes
from sd.train.trainer import fit
from sd.train.unet import LatentTraining

HINT_CHANNELS = (16, 16, 32, 64)
"""Widths of the hint encoder of the embedded model."""


@dataclass(frozen=True)
class ControlTraining(LatentTraining):
    """Flags of the ControlNet's training."""

    prefix = "control."

    steps: Steps = 4500
    batch_size: Size = 48
    learning_rate: Rate = 1e-3
    out: Path = Path("runs/control")
    initial: Initial = None
    """A `.safetensors` file with initial weights; without it a copy of the U-Net's encoder."""
    warmup: Warmup = 100
    ema: Share = 0.995
    checkpoint_every: Steps = 100
    latents: base_training.Latents = 12_000
    drop: Share = 0.2
    two: Share = 0.6


def control_config(config: ModelConfig) -> ControlNetConfig:
    """The configuration of a ControlNet for the model."""
    return ControlNetConfig(config.unet, hint_channels=HINT_CHANNELS)


def control_loss(
    unet: UNet, schedule: Discrete, prediction: str, shard: Shard = WHOLE
) -> Callable[..., dict[str, Tensor]]:
    """The loss of the U-Net (`sd.train.unet.unet_loss`) with a ControlNet's residuals in it.

    An example is x_0, its encoded prompt and its map with values in [0, 1]. The U-Net is frozen.
    Source: Zhang et al. 2023, arXiv:2302.05543, section 3.3.
    """
    whole = base_training.unet_loss(schedule, prediction, shard)

    def loss(
        control: nn.Module,
        examples: Sequence[Tensor],
        generator: torch.Generator,
        shard: Shard = shard,
    ) -> dict[str, Tensor]:
        def network(x_t: Tensor, time: Tensor, context: Tensor, hint: Tensor) -> Tensor:
            features = control.controlnet_cond_embedding(hint)
            return unet(x_t, time, context, control(x_t, time, context, features))

        return whole(network, examples, generator, shard)

    return loss


def train_control(
    training: ControlTraining,
    config: ModelConfig,
    vae: VAE,
    text_encoder: TextEncoder,
    unet: UNet,
    tokenizer: Tokenizer,
    schedule: Discrete,
) -> dict[str, Tensor]:
    """Train a ControlNet for the U-Net, which stays as it is; the averaged weights."""
    training.check()
    shard = joined(training.cpu)
    device = base_training.device_of(training)
    source = Shapes(training.seed, training.latents, training.two)
    latent = base_training.encode(vae, source, device, shard=shard)
    labels = np.stack([class_map(scene, config.image_size) for scene in source.scenes])
    torch.manual_seed(training.seed)
    control = copy_encoder(unet, control_config(config))
    if training.initial is not None:
        control.load_state_dict(weights.read_tensors(training.initial, control))
    frozen = devices.placed(unet.requires_grad_(False).eval(), device)
    frozen = frozen.to(memory_format=torch.channels_last)
    examples = base_training.captioned_latents(
        training, source, latent, text_encoder, tokenizer, shard
    )
    colors = np.array(list(PALETTE.values()), dtype=np.float32) / 255.0

    def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen, x0, words = examples(step)
        hint = torch.from_numpy(colors[labels[chosen]]).permute(0, 3, 1, 2)
        return x0, words, hint

    loss = control_loss(frozen, schedule, config.prediction, shard)
    return fit(control, batch, loss, training, None, context(config, vae, text_encoder, unet))


def context(config: ModelConfig, vae: VAE, text_encoder: TextEncoder, unet: UNet) -> dict[str, str]:
    """What changes the ControlNet besides the flags of its training."""
    return {
        **base_training.context(config, vae, text_encoder),
        "control": to_json(control_config(config)),
        "unet": weights_digest(unet.state_dict().items()),
    }
