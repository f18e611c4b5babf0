"""`python -m sd.train`: train the embedded model from nothing, in the lecture's order.

First the text encoder, by contrast with pictures (C30); then the autoencoder (C31); then, both
frozen, the U-Net (C19, C28). A stage that is done is not done again and a killed one resumes, so
the same command carries on wherever it stopped.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from diffusion_math.schedule import Discrete
from sd import picture, weights
from sd.config import SHAPES, TextConfig, UNetConfig, VAEConfig
from sd.pipeline import TextToImage
from sd.shapes.caption import describe
from sd.shapes.data import example
from sd.shapes.judge import FRESH, judge, prompts
from sd.shapes.reader import agrees, read
from sd.terminal import say
from sd.text_encoder import TextEncoder
from sd.tokenizer import Tokenizer
from sd.train.clip import CLIPTraining, train_clip
from sd.train.loop import Training
from sd.train.unet import UNetTraining, train_unet
from sd.train.vae import VAETraining, pictures, psnr, standardise, train_vae
from sd.unet import UNet
from sd.vae import VAE

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class All:
    """Train the embedded model of captioned shapes: text encoder, autoencoder, U-Net."""

    model: Path = Path("runs/model")
    """Folder of the result; `TextToImage.load` reads it, `sd/assets/shapes` is a copy of it."""
    clip: CLIPTraining = field(default_factory=CLIPTraining)
    """The text encoder's training."""
    vae: VAETraining = field(default_factory=VAETraining)
    """The autoencoder's training."""
    unet: UNetTraining = field(default_factory=UNetTraining)
    """The U-Net's training."""
    judged: int = 500
    """Fresh prompts, and fresh pictures, on which the figures are taken."""


def main(options: All) -> None:
    """Train, or carry on with, each network; write each as soon as it is done."""
    options.model.mkdir(parents=True, exist_ok=True)
    files = {
        name: options.model / f"{name}.safetensors" for name in ("text_encoder", "vae", "unet")
    }
    tokenizer = Tokenizer.embedded(SHAPES.text.context_length)
    if not files["text_encoder"].exists():
        state, figures = train_clip(options.clip, SHAPES.text)
        text = rounded(TextEncoder(SHAPES.text), state)
        keep(files["text_encoder"], text, SHAPES.text, options.clip, figures)
    text_encoder = weights.load(files["text_encoder"], TextEncoder, TextConfig)
    if not files["vae"].exists():
        trained = VAE(SHAPES.vae)
        trained.load_state_dict(train_vae(options.vae, SHAPES.vae))
        if not options.vae.decoder_only:
            standardise(trained, pictures(options.vae.seed, range(2000)))
        trained = rounded(trained, trained.state_dict())
        figures = reconstruction(trained, options.judged)
        keep(files["vae"], trained, SHAPES.vae, options.vae, figures)
    vae = weights.load(files["vae"], VAE, VAEConfig)
    if not files["unet"].exists():
        schedule = Discrete.scaled_linear(SHAPES.steps)
        state = train_unet(options.unet, SHAPES, vae, text_encoder, tokenizer, schedule)
        unet = rounded(UNet(SHAPES.unet), state)
        networks = (text_encoder, vae, unet)
        model = TextToImage(SHAPES, tokenizer, *networks, device=torch.device("cpu"))
        keep(files["unet"], unet, SHAPES.unet, options.unet, accuracy(model, options.judged))


def rounded(module: Network, state: dict[str, Tensor]) -> Network:
    """The network with weights as float16 keeps them: the figures are those of what ships."""
    module.load_state_dict({name: value.half() for name, value in state.items()})
    return module.eval()


def keep(
    path: Path,
    module: nn.Module,
    config: TextConfig | VAEConfig | UNetConfig,
    training: Training,
    figures: dict[str, float],
) -> None:
    """Write a trained network with what made it and how good it is."""
    say(f"{path.name} {json.dumps(figures)}")
    command = shlex.join(["python", "-m", "sd.train", *sys.argv[1:]])
    weights.write(
        path, module, config, licence="MIT", command=command, seed=training.seed, figures=figures
    )


@torch.no_grad()
def reconstruction(vae: VAE, count: int) -> dict[str, float]:
    """PSNR of fresh pictures' reconstructions, and how many of them the reader reads rightly."""
    quality, right = [], []
    for first in range(0, count, 50):
        indices = range(first, min(first + 50, count))
        original = pictures(FRESH, indices)
        quality.append(psnr(vae, original))
        drawn = picture.from_tensor(vae.decode(vae.encode(picture.signed(original)).mean))
        for index, one in zip(indices, drawn, strict=True):
            whole = describe(example(FRESH, index).scene)
            right.append(agrees(read(np.asarray(one)), whole))
    mean = float(torch.cat(quality).mean())
    return {"judged": count, "psnr_db": mean, "read_rightly": float(np.mean(right))}


def accuracy(model: TextToImage, count: int) -> dict[str, float]:
    """Share of fresh prompts of which all that they name is right, with and without guidance."""
    figures: dict[str, float] = {"judged": count}
    for pairs in ("seen", "held_out"):
        asked = prompts(0, count, held_out=pairs == "held_out")
        for name, guided in (("guided", True), ("unguided", False)):

            def generate(some: Sequence[str], seeds: Sequence[int], guided: bool = guided):
                drawn = model(some, seed=list(seeds), do_cfg=guided, progress=False)
                return [np.asarray(one) for one in drawn]

            figures[f"{pairs}_{name}"] = float(np.mean(judge(generate, asked)))
    return figures


if __name__ == "__main__":
    main(tyro.cli(All))
