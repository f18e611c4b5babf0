"""A whole run with ControlNets beside diffusers': the same prompts, noise, times and maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor, nn

from sd.config import ModelConfig
from sd.control import Control
from sd.pipeline import TextToImage
from sd.text.tokenizer import word_level
from tests.support import small_models
from tests.support.chance import pinned
from tests.support.whole_run import PROMPT, SCALE, SEED, Run, apart

__all__ = ["Given", "apart", "hint", "ours", "small", "theirs"]


@dataclass(frozen=True)
class Given:
    """A ControlNet by the seed of its weights, its map, and how it acts."""

    seed: int
    image: Image.Image
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


def hint(side: int, seed: int) -> Image.Image:
    """A map at random: edges and flat colours alike."""
    coarse = torch.rand(8, 8, 3, generator=pinned(seed)).mul(255).byte()
    return Image.fromarray(coarse.numpy()).resize((side, side), Image.Resampling.BICUBIC)


def small(folder: Path, config: ModelConfig) -> TextToImage:
    """Our pipeline of a small model that diffusers wrote."""
    small_models.write_folder(folder, config)
    words = word_level([f"word{i}" for i in range(config.text.vocab_size - 3)])
    (folder / "tokenizer").mkdir()
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    return TextToImage.load(folder, device="cpu")


def ours(
    pipeline: TextToImage, controls: Sequence[Control], side: int, guidance_scale: float = SCALE
) -> Tensor:
    """The latents that our pipeline ends with."""
    states: list[Tensor] = []
    run = Run("ddim", False, side)
    pipeline(
        PROMPT,
        seed=SEED,
        solver=run.solver,
        grid=run.times(pipeline.config.prediction),
        guidance_scale=guidance_scale,
        height=side,
        width=side,
        progress=False,
        watch=lambda state: states.append(state.x),
        controls=controls,
    )
    return states[-1]


def theirs(
    pipeline: TextToImage,
    unet: nn.Module,
    vae: nn.Module,
    nets: Sequence[nn.Module],
    given: Sequence[Given],
    side: int,
    guidance_scale: float = SCALE,
) -> Tensor:
    """The latents of diffusers' pipeline; from ours it takes the prompt's context and the noise."""
    run, prediction = Run("ddim", False, side), pipeline.config.prediction
    peer = diffusers.StableDiffusionControlNetPipeline(
        vae, None, None, unet, list(nets), run.scheduler(prediction), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    peer.set_progress_bar_config(disable=True)
    contexts = pipeline.encode_prompts(["", PROMPT])
    found: Any = peer(
        image=[one.image for one in given],
        prompt_embeds=contexts[1:],
        negative_prompt_embeds=contexts[:1],
        latents=run.noise(pipeline),
        num_inference_steps=run.steps,
        guidance_scale=guidance_scale,
        controlnet_conditioning_scale=[one.scale for one in given],
        control_guidance_start=[one.start for one in given],
        control_guidance_end=[one.end for one in given],
        output_type="latent",
    )
    latents: Tensor = found.images
    return latents
