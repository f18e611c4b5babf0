"""A whole run of ours beside diffusers' pipelines: the same prompts, noise, times and picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_math.noise import start_noise
from sd.pipeline import TextToImage
from tests.support.chance import pinned

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPT, OTHER = "word1 word7", "word2 word7"
SCALE, SEED, STRENGTH = 7.5, 3, 0.5


@dataclass(frozen=True)
class Run:
    """What is drawn: from noise, or after a picture; by which solver, at which size."""

    solver: str
    redraws: bool
    side: int
    steps: int = 4

    def picture(self) -> Image.Image | None:
        if not self.redraws:
            return None
        pixels = torch.rand(self.side, self.side, 3, generator=pinned(9)).mul(255).byte()
        return Image.fromarray(np.asarray(pixels.numpy()), "RGB")

    def scheduler(self, prediction: str) -> Any:
        """diffusers' own, its options set to what ours does without being asked."""
        words = {**TABLE, "prediction_type": prediction, "steps_offset": 1}
        if self.solver == "ddim":
            return diffusers.DDIMScheduler(**words, clip_sample=False, set_alpha_to_one=True)
        return diffusers.DPMSolverMultistepScheduler(
            **words, timestep_spacing="leading", final_sigmas_type="zero", lower_order_final=True
        )

    def times(self, prediction: str) -> Tensor:
        """The times of that scheduler, counted from 1 on, and the end."""
        scheduler = self.scheduler(prediction)
        scheduler.set_timesteps(self.steps)
        kept = scheduler.timesteps[int(self.steps * (1 - STRENGTH)) :] if self.redraws else None
        kept = scheduler.timesteps if kept is None else kept
        return torch.tensor([*(float(t) + 1 for t in kept), 0.0], dtype=torch.float64)

    def ours(self, pipeline: TextToImage, prompt: str = PROMPT) -> Tensor:
        """The latents that our pipeline ends with."""
        states: list[Tensor] = []
        pipeline(
            prompt,
            seed=SEED,
            solver=self.solver,
            grid=self.times(pipeline.config.prediction),
            guidance_scale=SCALE,
            image=self.picture(),
            height=self.side,
            width=self.side,
            progress=False,
            watch=lambda state: states.append(state.x),
        )
        return states[-1]

    def theirs(self, pipeline: TextToImage, unet: nn.Module, vae: nn.Module) -> Tensor:
        """The latents of diffusers' pipeline; from ours it takes tokens and the noise alone."""
        picture, prediction = self.picture(), pipeline.config.prediction
        kinds = (diffusers.StableDiffusionPipeline, diffusers.StableDiffusionImg2ImgPipeline)
        peer = kinds[self.redraws](
            vae, None, None, unet, self.scheduler(prediction), None, None,
            requires_safety_checker=False,
        )  # fmt: skip
        peer.set_progress_bar_config(disable=True)
        contexts, dtype = pipeline.encode_prompts(["", PROMPT]), next(unet.parameters()).dtype
        side = self.side // pipeline.config.vae.factor
        noise = start_noise([SEED], (pipeline.config.vae.latent_channels, side, side), dtype)
        start: dict[str, Any] = {"latents": noise, "height": self.side, "width": self.side}
        if picture is not None:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
            start = {"image": _mean(vae, pixels.to(dtype)), "strength": STRENGTH}
        with _given(noise):
            found: Tensor = peer(
                prompt_embeds=contexts[1:],
                negative_prompt_embeds=contexts[:1],
                num_inference_steps=self.steps,
                guidance_scale=SCALE,
                output_type="latent",
                **start,
            ).images
        return found


@torch.no_grad()
def _mean(vae: nn.Module, pixels: Tensor) -> Tensor:
    mean: Tensor = vae.config.scaling_factor * vae.encode(pixels).latent_dist.mean
    return mean


@contextmanager
def _given(noise: Tensor) -> Iterator[None]:
    """The peer's image-to-image draws its own noise; here it is handed ours."""
    place = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.randn_tensor"
    with mock.patch(place, return_value=noise):
        yield


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, of the largest number."""
    return float((found - wanted).abs().max() / wanted.abs().max())
