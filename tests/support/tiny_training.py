"""The whole training in small: tiny networks, a few steps, on the CPU."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sd import weights
from sd.config import SHAPES_CONFIG, ModelConfig, TextConfig, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer
from sd.train import __main__ as program
from sd.train import clip, teacher
from sd.train.distillation import Distillation
from tests.support.small_models import scramble

CONFIG = replace(
    SHAPES_CONFIG,
    text=TextConfig(vocab_size=29, width=16, layers=1, heads=2, context_length=24, intermediate=16),
    vae=VAEConfig(channels=(8, 8, 8, 8), layers_per_block=1, groups=4, scaling_factor=1.0),
    unet=replace(SHAPES_CONFIG.unet, channels=(8, 8), heads=2, groups=4, context_width=16),
)


TRAININGS = ("clip", "vae", "unet", "control", "distilled")
"""The prefixes of their flags, in order."""


def flags(folder: Path, changed: dict[str, str] | None = None) -> list[str]:
    """A command line that trains all five networks in seconds; some of its flags changed."""
    found = {"--model": str(folder / "model"), "--judged": "2"}
    found |= {"--unet.latents": "100", "--control.latents": "100"}
    found |= {"--distilled.trajectories": "100", "--distilled.scales": "1"}
    found |= {"--distilled.calls": "2", "--distilled.substeps": "1"}
    for name, size in zip(TRAININGS, (8, 2, 4, 4, 4), strict=True):
        own = {"steps": "3", "batch-size": str(size), "warmup": "1", "checkpoint-every": "2"}
        own |= {"log-every": "1", "out": str(folder / name)}
        found |= {f"--{name}.{flag}": value for flag, value in own.items()}
    found |= changed or {}
    words = [word for pair in found.items() for word in pair]
    return [*words, *(f"--{name}.cpu" for name in TRAININGS)]


def run(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`python -m sd.train` with tiny networks; the exit code."""
    train: Any = program.train

    def small(options: program.All, command: str) -> None:
        train(options, command, CONFIG)

    with patch.context() as context:
        context.setattr(program, "STANDARD", 4)
        context.setattr(teacher, "read_rightly", lambda _, __, prompts: [True] * len(prompts))
        context.setattr(clip, "train_clip", partial(clip.train_clip, evaluation=1))
        context.setattr(program, "train", small)
        return program.main(list(arguments))


def tiny_model(config: ModelConfig = CONFIG) -> TextToImage:
    """A tiny pipeline with random weights."""
    networks = TextEncoder(config.text), VAE(config.vae), UNet(config.unet)
    for place, one in enumerate(networks):
        scramble(one.eval(), place)
    tokenizer = Tokenizer.embedded(config.text.context_length)
    return TextToImage(config, tokenizer, *networks, device=torch.device("cpu"))


def other_student(model: TextToImage, path: Path) -> TextToImage:
    """A pipeline with a U-Net of other random weights, which are written to the file."""
    other = UNet(model.config.unet)
    scramble(other.eval(), 9)
    weights.save_network(path, other, model.config.unet, dtype=torch.float32)
    parts = (model.text_encoder, model.vae, other)
    return TextToImage(model.config, model.tokenizer, *parts, device=model.device)


def small_distillation(out: Path, **changed: Any) -> Distillation:
    """A distillation of a few steps."""
    settings = {"steps": 3, "batch_size": 4, "warmup": 1, "trajectories": 100, "calls": 3}
    settings |= {"substeps": 2, "scales": (2.0,), "bfloat16": False, "cpu": True, "out": out}
    return Distillation(**{**settings, **changed})


def log(folder: Path, names: Sequence[str] = TRAININGS) -> dict[str, str]:
    """Each training's log."""
    return {name: (folder / name / "log.jsonl").read_text(encoding="utf-8") for name in names}
