"""The U-Net: the DDPM loss on latents, the prompt dropped at random (C19, C28)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from diffusion_math.denoiser import network_time
from diffusion_math.gaussian import marginal
from diffusion_math.schedule import Discrete
from sd import weights
from sd.config import UNetConfig
from sd.picture import signed
from sd.shapes.caption import caption
from sd.shapes.data import example
from sd.text_encoder import TextEncoder
from sd.tokenizer import Tokenizer
from sd.train.loop import Training, fit
from sd.train.vae import pictures
from sd.unet import UNet
from sd.vae import VAE, Latent


@dataclass(frozen=True)
class UNetTraining(Training):
    """Flags of the U-Net's training."""

    steps: int = 9200
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    out: Path = Path("runs/unet")
    initial: Path | None = None
    """Weights to start from, a `.safetensors` file; default: random ones."""
    checkpoint_every: int = 500
    latents: int = 30_000
    """Pictures that are encoded once, before the training; captions are drawn anew each time."""
    drop: float = 0.1
    """Probability that the empty prompt stands in for the caption."""
    max_snr: float = 5.0
    """A step's squared error in eps counts min(SNR, max_snr) / SNR times; inf: always once."""


@torch.no_grad()
def encode(vae: VAE, seed: int, count: int, device: torch.device, batch: int = 100) -> Latent:
    """q(z | x) of the data set's first `count` pictures, on the CPU."""
    vae = vae.to(device).eval()
    parts = []
    for first in tqdm(range(0, count, batch), unit="batch", desc="encode", mininterval=2.0):
        x = pictures(seed, range(first, min(first + batch, count))).to(device)
        parts.append([y.cpu() for y in vae.encode(signed(x))])
    mean, variance = (torch.cat(y) for y in zip(*parts, strict=True))
    return Latent(mean, variance)


def unet_loss(
    schedule: Discrete, max_snr: float
) -> Callable[[nn.Module, tuple[Tensor, Tensor], torch.Generator], dict[str, Tensor]]:
    """Weighted E ||eps - eps_theta(alpha_t x_0 + sigma_t eps, t, context)||^2, t uniform on 1..T.

    The weight min(SNR_t, max_snr) / SNR_t keeps the steps with hardly any noise, whose error
    nothing can see, from drowning the others. Sources: Ho et al. 2020, arXiv:2006.11239, eq. 14;
    Hang et al. 2023, arXiv:2303.09556, eq. 9.
    """

    def loss(
        unet: nn.Module, examples: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        x0, context = examples
        t = torch.randint(1, int(schedule.T) + 1, (len(x0),), generator=generator)
        eps = torch.randn(x0.shape, generator=generator).to(x0.device)
        x_t = marginal(schedule, x0, t).draw(eps)
        # The fused attention kernel's backward pass is slow in bfloat16 on a CPU.
        with sdpa_kernel([SDPBackend.MATH] if x0.device.type == "cpu" else _FUSED):
            predicted = unet(x_t, network_time(schedule, x_t, t), context)
        error = (predicted.float() - eps).square().mean(dim=(1, 2, 3))
        snr = schedule.log_snr(t).exp()
        weight = (snr.clamp(max=max_snr) / snr).to(error)
        return {"loss": (weight * error).mean(), "squared_error": error.mean()}

    return loss


_FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def train_unet(
    training: UNetTraining,
    config: UNetConfig,
    vae: VAE,
    text_encoder: TextEncoder,
    tokenizer: Tokenizer,
    schedule: Discrete,
) -> dict[str, Tensor]:
    """Train the U-Net on the latents of `vae`, conditioned on `text_encoder`; averaged weights."""
    device = torch.device("cuda" if torch.cuda.is_available() and not training.cpu else "cpu")
    latent = encode(vae, training.seed, training.latents, device)
    scenes = [example(training.seed, index).scene for index in range(training.latents)]
    text_encoder = text_encoder.eval()
    torch.manual_seed(training.seed)
    unet = UNet(config)
    if training.initial is not None:
        unet.load_state_dict(weights.read(training.initial, unet))

    @torch.no_grad()
    def batch(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([training.seed, 1, step])
        chosen = rng.integers(training.latents, size=training.batch_size)
        z = torch.from_numpy(rng.standard_normal(latent.mean[chosen].shape, dtype=np.float32))
        x0 = latent.mean[chosen] + latent.variance[chosen].sqrt() * z
        said = ["" if rng.random() < training.drop else caption(scenes[i], rng) for i in chosen]
        return x0, text_encoder(tokenizer.encode(said))

    return fit(unet, batch, unet_loss(schedule, training.max_snr), training)
