"""The flags of a training on one's own images."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from sd.command_line import flags
from sd.command_line.flags import File, Range, Several, Words
from sd.config import SHAPES_CONFIG, ModelConfig, TextConfig, UNetConfig, VAEConfig
from sd.loading_options import LoadingOptions
from sd.text.tokenizer import Tokenizer
from sd.train.clip import CLIPTraining
from sd.train.lora import LoRATraining
from sd.train.settings import Share, Steps, Training
from sd.train.unet import UNetTraining
from sd.train.vae import VAETraining

__all__ = ["JUDGED", "SHOWN", "STANDARD", "Networks", "OwnModel"]

STANDARD = 2000
"""The most images that standardise the latents."""
JUDGED = 256
"""The most held-out images that evaluate a network."""
SHOWN = 4
"""Captions that are prompts of the previews, without `--prompts`."""

Widths = Annotated[tuple[Annotated[int, Range(1, 8192)], ...], Several(1, distinct=False)]
Taken = Literal["text_encoder", "vae"]


@dataclass(frozen=True)
class Networks:
    """Sizes of the networks that are trained from nothing."""

    prefix = "networks."

    vae_channels: Widths = (32, 32, 64, 96)
    """Channels of the autoencoder's levels; the side halves between them."""
    latent_channels: Annotated[int, Range(1, 64)] = 4
    """Channels of a latent."""
    unet_channels: Widths = (64, 128)
    """Channels of the U-Net's levels; all attend to the caption."""
    unet_layers: Annotated[int, Range(1, 8)] = 1
    """Residual blocks of each level of the U-Net."""
    heads: Annotated[int, Range(1, 64)] = 4
    """Attention heads of the U-Net and the text encoder."""
    text_width: Annotated[int, Range(8, 4096)] = 96
    """Width of the text encoder."""
    text_layers: Annotated[int, Range(2, 48)] = 2
    """Layers of the text encoder; the last one serves the comparison with images alone."""
    merges: Annotated[int, Range(0, 48_000)] = 2000
    """The most words and parts of words that the vocabulary learns from the captions."""

    def text(self, tokenizer: Tokenizer) -> TextConfig:
        """The text encoder of a vocabulary."""
        return TextConfig(
            vocab_size=tokenizer.vocab_size,
            width=self.text_width,
            layers=self.text_layers,
            heads=self.heads,
            context_length=tokenizer.context_length,
            intermediate=4 * self.text_width,
            skip=1,
        )

    def autoencoder(self) -> VAEConfig:
        """The autoencoder; its latents are standardised after the training."""
        return VAEConfig(
            latent_channels=self.latent_channels,
            channels=self.vae_channels,
            layers_per_block=1,
            groups=math.gcd(*self.vae_channels, 8),
            scaling_factor=1.0,
        )

    def model(self, size: int, text: TextConfig, autoencoder: VAEConfig) -> ModelConfig:
        """The whole model, whose U-Net predicts v."""
        channels = autoencoder.latent_channels
        own = UNetConfig(
            in_channels=channels,
            out_channels=channels,
            channels=self.unet_channels,
            layers_per_block=self.unet_layers,
            heads=self.heads,
            context_width=text.width,
            attention=(True,) * len(self.unet_channels),
            groups=math.gcd(*self.unet_channels, 16),
        )
        return replace(SHAPES_CONFIG, text=text, vae=autoencoder, unet=own, image_size=size)


@dataclass(frozen=True)
class OwnModel:
    """Train a model, or a LoRA, of your own captioned images."""

    data: Annotated[Path, File(folder=True)]
    """Folder of images with metadata.csv, metadata.jsonl or captions.txt."""
    out: Path = Path("runs/own")
    """Folder for the model (`generate --model OUT`), the LoRA files, previews and trainings."""
    size: Annotated[int | None, Range(8, 8192), arg(help_behavior_hint="(default: 64)")] = None
    """Height and width of the images in pixels; with --lora the checkpoint's by default."""
    held_out: Share = 0.1
    """Share of the images that are held out, for evaluation."""
    flip: bool = False
    """Learn from mirrored images too; not where captions name left or right."""
    checkpoint: Annotated[str | None, Words()] = None
    """A checkpoint (file, folder, hub id): its networks in --take are used, or --lora adapts it."""
    loading: Annotated[LoadingOptions, arg(name="")] = field(default_factory=LoadingOptions)
    """How --checkpoint is read."""
    take: Annotated[tuple[Taken, ...], Several(1)] = ("text_encoder", "vae")
    """Networks of --checkpoint to use as they are; the others are trained."""
    lora: Annotated[int | None, Range(1, 4096)] = None
    """Train adapters of this rank for the U-Net of --checkpoint."""
    prompts: Annotated[tuple[str, ...], Words(), Several(0)] = ()
    """Prompts of the previews; captions by default."""
    preview_every: Steps = 500
    """Steps between previews, which show the averaged weights."""
    networks: Networks = field(default_factory=Networks)
    """Sizes of the networks from nothing."""
    clip: CLIPTraining = field(default_factory=CLIPTraining)
    """The text encoder's training."""
    vae: VAETraining = field(default_factory=VAETraining)
    """The autoencoder's training."""
    unet: UNetTraining = field(default_factory=UNetTraining)
    """The U-Net's training."""
    adapter: LoRATraining = field(default_factory=LoRATraining)
    """The training of a LoRA."""

    def check(self) -> None:
        """Raise FlagError for a value out of range, or a flag without effect beside the others."""
        flags.check(self)
        if self.out.resolve().is_relative_to(self.data.resolve()):  # its images would be data
            flags.refuse(self, "out", f"a folder outside --data {self.data}")
        flags.check(self.networks)
        flags.files(self)
        for training in (self.clip, self.vae, self.unet, self.adapter):
            flags.unused(training, ["out"], "with --data, whose --out holds it all")
        flags.unused(self.unet, ["latents", "two", "fsdp"], "with --data")
        if self.lora is not None:
            if self.checkpoint is None:
                flags.refuse(self, "checkpoint", "a checkpoint with --lora")
            flags.unused(self, ["take", "networks", "clip", "vae", "unet"], "with --lora")
            self.adapter.check()
            return
        flags.unused(self, ["adapter"], "without --lora")
        flags.unused(self.loading, ["ema"], "without --lora, since the U-Net is not used")
        if self.checkpoint is None:
            flags.unused(self, ["take", "loading"], "without --checkpoint")
        if "text_encoder" in self.taken:
            flags.unused(self, ["clip"], "with --take text_encoder")
            flags.unused(self.networks, ["text_width", "text_layers", "merges"],
                         "with --take text_encoder")  # fmt: skip
        if "vae" in self.taken:
            flags.unused(self, ["vae"], "with --take vae")
            flags.unused(self.networks, ["vae_channels", "latent_channels"], "with --take vae")
        for training in self.stages.values():
            training.check()

    @property
    def taken(self) -> tuple[Taken, ...]:
        """The networks of the checkpoint that are used as they are."""
        return () if self.checkpoint is None or self.lora is not None else self.take

    @property
    def stages(self) -> dict[str, Training]:
        """Each training to do, by the name of its network, with its folder in `out`."""
        if self.lora is not None:
            found: dict[str, Training] = {"lora": self.adapter}
        else:
            found = {"text_encoder": self.clip, "vae": self.vae, "unet": self.unet}
        return {
            name: replace(one, out=self.out / "training" / name)
            for name, one in found.items()
            if name not in self.taken
        }

    def file(self, name: str) -> Path:
        """The file of a finished network."""
        return self.out / f"{name}.safetensors"
