"""Training of the U-Net: the DDPM loss on latents, with random prompt dropout (C19, C28)."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from diffusion_math.loss import training_loss, uniform_times
from diffusion_math.schedule import Discrete
from sd import device as devices
from sd import weights
from sd.command_line.flags import Range
from sd.config import PREDICTIONS, ModelConfig, to_json
from sd.digest import weights_digest
from sd.files.image_tensor import signed
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE, Latent
from sd.text.tokenizer import Tokenizer
from sd.train.fsdp import BLOCKS
from sd.train.settings import Initial, Rate, Share, Size, Steps
from sd.train.shard import WHOLE, Shard, joined
from sd.train.source import Shapes, Source
from sd.train.trainer import Preview, Training, fit

Latents: TypeAlias = Annotated[int, Range(100, 10_000_000)]


@dataclass(frozen=True)
class LatentTraining(Training):
    """Flags of a training on captioned latents."""

    latents: Latents = 50_000
    """Images, encoded once before the training; captions are sampled anew in each step."""
    drop: Share = 0.1
    """Probability that the empty prompt replaces the caption."""
    two: Share = 0.5
    """Share of images with two things."""


@dataclass(frozen=True)
class UNetTraining(LatentTraining):
    """Flags of the U-Net's training."""

    prefix = "unet."

    steps: Steps = 15_000
    batch_size: Size = 128
    learning_rate: Rate = 2e-3
    out: Path = Path("runs/unet")
    initial: Initial = None
    """A `.safetensors` file with initial weights; without it they are random."""
    checkpoint_every: Steps = 500
    fsdp: bool = False
    """Share weights, gradients and the optimiser's state among the processes (FSDP), so that a
    larger network fits; without it each process holds all of them."""


@torch.no_grad()
def encode(
    vae: VAE,
    source: Source,
    device: torch.device,
    batch: int = 100,
    shard: Shard = WHOLE,
) -> Latent:
    """q(z | x) of the images of a source, on the CPU.

    Each process encodes some of the batches, and has the latents of all. The VAE stays where it is.
    """
    vae = devices.placed(vae, device).eval()
    quiet = None if shard.process.main else True
    starts = range(0, source.count, batch)
    found: list[list[Tensor]] = [[] for _ in starts]
    for number in tqdm(
        range(shard.process.rank, len(starts), shard.process.count),
        unit="batch", desc="encode", disable=quiet,
    ):  # fmt: skip
        first = starts[number]
        x = source.images(range(first, min(first + batch, source.count))).to(device)
        found[number] = [y.cpu() for y in vae.encode(signed(x))]
    mean, variance = (torch.cat(y) for y in zip(*shard.collected(found), strict=True))
    return Latent(mean, variance)


def unet_loss(
    schedule: Discrete, prediction: str, shard: Shard = WHOLE
) -> Callable[..., dict[str, Tensor]]:
    """E ||y - y_theta(alpha_t x_0 + sigma_t eps, t, *conditions)||^2, t uniform on 1..T.

    An example is x_0 and its conditions: the encoded prompt, and for a ControlNet a map.
    y is what the network predicts: eps ("epsilon", L_simple), v ("v_prediction") or x_0
    ("sample"); the mean is over all entries of a batch. The equation is
    `diffusion_math.loss.training_loss`. Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    Times and eps are drawn for the whole batch, of which the examples are a shard.
    """

    def loss(
        unet: Callable[..., Tensor],
        examples: Sequence[Tensor],
        generator: torch.Generator,
        shard: Shard = shard,
    ) -> dict[str, Tensor]:
        x0, *conditions = examples

        def normal(count: int) -> Tensor:
            return torch.randn((count, *x0.shape[1:]), generator=generator, device="cpu")

        t = shard.drawn(partial(uniform_times, schedule, generator), len(x0))
        eps = shard.drawn(normal, len(x0)).to(x0.device)

        def network(x_t: Tensor, time: Tensor) -> Tensor:
            return unet(x_t, time, *conditions).float()

        with attention_kernels(x0.device):
            squared = training_loss(schedule, network, PREDICTIONS[prediction], x0, eps, t)
        return {"loss": squared.mean() / x0[0].numel()}

    return loss


def attention_kernels(device: torch.device) -> AbstractContextManager[None]:
    """The kernels with the fastest backward pass: on a CPU the fused one is slow in bfloat16."""
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    found: AbstractContextManager[None] = sdpa_kernel(fused[-1:] if device.type == "cpu" else fused)
    return found


Captioned: TypeAlias = tuple[npt.NDArray[np.int64], Tensor, Tensor]
"""The numbers of some examples, their latents, and their encoded captions."""


@runtime_checkable
class Captioning(Protocol):
    """Settings of a training on captioned latents."""

    @property
    def seed(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def drop(self) -> float: ...


def captioned_latents(
    training: Captioning,
    source: Source,
    latent: Latent,
    text_encoder: TextEncoder,
    tokenizer: Tokenizer,
    shard: Shard = WHOLE,
) -> Callable[[int], Captioned]:
    """This process's shard of the examples of each step, sampled from the latents of a source.

    Latents and captions are sampled anew; the empty prompt replaces some of the captions.
    """
    text_encoder = text_encoder.eval()

    @torch.no_grad()
    def batch(step: int) -> Captioned:
        rng = np.random.default_rng([training.seed, 1, step])
        chosen = source.chosen(rng, step, training.batch_size)
        z = torch.from_numpy(rng.standard_normal(latent.mean[chosen].shape, dtype=np.float32))
        some = chosen.tolist()
        said = ["" if rng.random() < training.drop else source.caption(i, rng) for i in some]
        own = shard.of(training.batch_size)
        chosen, z = chosen[own], z[own]
        x0 = latent.mean[chosen] + latent.variance[chosen].sqrt() * z
        return chosen, x0, text_encoder(tokenizer.encode(said[own], truncate=True))

    return batch


def device_of(training: Training) -> torch.device:
    """The device of a training."""
    return torch.device("cuda" if torch.cuda.is_available() and not training.cpu else "cpu")


def train_unet(
    training: UNetTraining,
    config: ModelConfig,
    vae: VAE,
    text_encoder: TextEncoder,
    tokenizer: Tokenizer,
    schedule: Discrete,
    source: Source | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    preview: Preview | None = None,
) -> dict[str, Tensor]:
    """Train the U-Net on the latents of `vae`, conditioned on `text_encoder`; averaged weights.

    Args:
        source: what is learned from; captioned shapes by default.
        evaluate, preview: see `fit`.
    """
    training.check()
    if source is None:
        source = Shapes(training.seed, training.latents, training.two)
    shard = joined(training.cpu)
    latent = encode(vae, source, device_of(training), shard=shard)
    torch.manual_seed(training.seed)
    unet = UNet(config.unet)
    if training.initial is not None:
        unet.load_state_dict(weights.read_tensors(training.initial, unet))
    examples = captioned_latents(training, source, latent, text_encoder, tokenizer, shard)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        _, x0, words = examples(step)
        return x0, words

    loss = unet_loss(schedule, config.prediction, shard)
    settings = context(config, vae, text_encoder, source)
    blocks = BLOCKS if training.fsdp else ()
    return fit(unet, batch, loss, training, evaluate, settings, preview, blocks)


def context(
    config: ModelConfig, vae: VAE, text_encoder: TextEncoder, source: Source | None = None
) -> dict[str, str]:
    """What changes the U-Net besides the flags of its training."""
    return {
        "config": f"{to_json(config.unet)} {config.prediction} {config.steps}",
        "data": (source or Shapes()).fingerprint,
        "text_encoder": weights_digest(text_encoder.state_dict().items()),
        "vae": weights_digest(vae.state_dict().items()),
    }
