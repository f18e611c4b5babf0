"""Training of the autoencoder: weighted reconstruction error plus KL divergence (C31)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from sd import weights
from sd.command_line.flags import Range
from sd.config import VAEConfig, to_json
from sd.files.image_tensor import signed, unsigned
from sd.networks.vae import VAE
from sd.train.settings import Initial, Rate, Size, Steps
from sd.train.shard import WHOLE, Shard, joined
from sd.train.source import Shapes, Source
from sd.train.trainer import Training, fit

KL = 1e-4  # weight of the divergence per latent entry


@dataclass(frozen=True)
class VAETraining(Training):
    """Flags of the autoencoder's training."""

    prefix = "vae."

    steps: Steps = 7000
    batch_size: Size = 16
    learning_rate: Rate = 2e-3
    out: Path = Path("runs/vae")
    initial: Initial = None
    """A `.safetensors` file with initial weights; without it they are random."""
    decoder_only: bool = False
    """Train the decoder alone, so that latents stay as a U-Net knows them."""
    noise: Annotated[float, Range(0, 10)] = 0.0
    """Largest standard deviation of noise on a latent; the decoder learns to remove it."""

    def check(self) -> None:
        """As `Training.check`; a frozen encoder must be given."""
        super().check()
        if self.decoder_only and self.initial is None:
            raise ValueError("--vae.decoder-only: give the encoder by --vae.initial")


def vae_loss(
    vae: nn.Module,
    image: Tensor,
    generator: torch.Generator,
    noise: float = 0.0,
    shard: Shard = WHOLE,
    balanced: bool = True,
) -> dict[str, Tensor]:
    """Squared error + KL(q(z | x) || N(0, I)), both per entry.

    The error is the mean over all pixels. With `balanced` it is, of each image, half the mean over
    the pixels of things plus half the mean over those of the background, so that a small thing
    counts as much as a large one; a thing's pixel is one that differs from the corner of the image.
    KL = (mean^2 + variance - log variance - 1) / 2.
    Source: Kingma & Welling, arXiv:1312.6114, appendix B.

    Each latent is sampled from q(z | x), then gets Gaussian noise of a standard deviation uniform
    on [0, `noise`]. So the decoder also learns latents with small errors, as a sampler makes them
    (compare Zheng et al. 2025, arXiv:2510.11690). The numbers are drawn for the whole batch, of
    which `image` is a shard.
    """
    x = signed(image).contiguous(memory_format=torch.channels_last)
    mean, log_variance = (y.float() for y in vae.moments(x))

    def normal(count: int) -> Tensor:
        return torch.randn((count, *mean.shape[1:]), generator=generator, device="cpu")

    def uniform(count: int) -> Tensor:
        return torch.rand((count, 1, 1, 1), generator=generator, device="cpu")

    z = shard.drawn(normal, len(mean)).to(mean.device)
    off = noise * shard.drawn(uniform, len(mean)).to(mean.device)
    std = (log_variance.exp() + off.square()).sqrt()
    y = vae.decode((mean + std * z) * vae.config.scaling_factor)
    error = (y.float() - x).square()
    each = error.mean(dim=1)
    if balanced:
        things = (image != image[:, :, :1, :1]).any(dim=1).float()
        means = sum(
            (part * each).sum(dim=(1, 2)) / part.sum(dim=(1, 2)).clamp(min=1.0)
            for part in (things, 1.0 - things)
        )
        mean_error = 0.5 * means.mean()
    else:
        mean_error = each.mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).mean()
    return {"loss": mean_error + KL * kl, "squared_error": error.mean(), "kl": kl}


def psnr(vae: VAE, image: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each reconstruction: 10 log10(255^2 / mean error^2)."""
    y = vae.decode(vae.encode(signed(image)).mean)
    error = (unsigned(y) - image).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(255.0**2 / error.clamp(min=1e-12))


def train_vae(
    training: VAETraining, config: VAEConfig, source: Source | None = None
) -> dict[str, Tensor]:
    """Train the autoencoder, on captioned shapes without a `source`; returns the averaged weights.

    The figures of held-out images are in the log, if there are such images.
    """
    source = Shapes(training.seed) if source is None else source
    shard = joined(training.cpu)
    torch.manual_seed(training.seed)
    vae = VAE(config)
    if training.initial is not None:
        vae.load_state_dict(weights.read_tensors(training.initial, vae))
    if training.decoder_only:
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)

    def batch(step: int) -> Tensor:
        first = step * training.batch_size
        whole = source.order(first, training.batch_size)
        return source.images(whole[shard.of(training.batch_size)])

    fresh = source.fresh(256)

    @torch.no_grad()
    def evaluate(module: nn.Module) -> dict[str, float]:
        device = next(module.parameters()).device
        return {"psnr_db": float(psnr(module, fresh.to(device)).mean())}

    loss = partial(vae_loss, noise=training.noise, shard=shard, balanced=source.balanced)
    judge = evaluate if len(fresh) else None
    return fit(vae, batch, loss, training, judge, context(config, source))


def context(config: VAEConfig, source: Source | None = None) -> dict[str, str]:
    """What changes the autoencoder besides the flags of its training."""
    return {"config": to_json(config), "data": (source or Shapes()).fingerprint}


@torch.no_grad()
def standardise(vae: VAE, image: Tensor) -> None:
    """Scale every latent channel to mean 0 and variance 1 over `image`; reconstructions stay.

    The two 1 x 1 convolutions around the latent absorb z -> (z - mean) / std and its inverse.
    """
    moments = [vae.moments(signed(some)) for some in image.split(100)]
    mean = torch.cat([m for m, _ in moments])
    variance = torch.cat([v for _, v in moments]).exp()
    centre = mean.mean(dim=(0, 2, 3))
    std = (mean.var(dim=(0, 2, 3)) + variance.mean(dim=(0, 2, 3))).sqrt()
    channels = len(std)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - centre) / std
    quant.bias[channels:] -= 2.0 * std.log()
    post.bias += post.weight[:, :, 0, 0] @ centre
    post.weight *= std[None, :, None, None]
