"""A whole run of ours beside diffusers' pipelines: the same prompts, noise, times and images."""

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
from sd import pipeline as pipelines
from sd.pipeline import TextToImage
from tests.support.chance import pinned

TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPT, OTHER = "word1 word7", "word2 word7"
SCALE, SEED, STRENGTH = 7.5, 3, 0.5


@dataclass(frozen=True)
class Run:
    """What is sampled: from noise, or after an image; by which solver, at which size.

    With `hole` a part of the image is repainted: a rectangle whose edges lie so many pixels beside
    the latents'. Of U-Nets that read no mask, the two pipelines agree at 0 only.
    """

    solver: str
    redraws: bool
    side: int
    steps: int = 4
    strength: float = STRENGTH
    hole: int | None = None

    def picture(self) -> Image.Image | None:
        if not self.redraws:
            return None
        pixels = torch.rand(self.side, self.side, 3, generator=pinned(9)).mul(255).byte()
        return Image.fromarray(np.asarray(pixels.numpy()), "RGB")

    def mask(self) -> Image.Image | None:
        if self.hole is None:
            return None
        white = np.zeros((self.side, self.side), dtype=np.uint8)
        low, high = self.side // 4 + self.hole, self.side // 2 + self.hole
        white[low:high, low : high + self.side // 4] = 255
        return Image.fromarray(white)

    def scheduler(self, prediction: str) -> Any:
        """diffusers' own, its options set to what ours does without being asked."""
        spacing = "leading" if self.hole is None else "trailing"
        words = {**TABLE, "prediction_type": prediction, "steps_offset": 1}
        words["timestep_spacing"] = spacing
        if self.solver == "ddim":
            return diffusers.DDIMScheduler(**words, clip_sample=False, set_alpha_to_one=True)
        return diffusers.DPMSolverMultistepScheduler(
            **words, final_sigmas_type="zero", lower_order_final=True
        )

    def times(self, prediction: str) -> Tensor:
        """The times of that scheduler, counted from 1 on, and the end."""
        scheduler = self.scheduler(prediction)
        scheduler.set_timesteps(self.steps)
        count = int(self.steps * self.strength) if self.redraws else self.steps
        kept = scheduler.timesteps[self.steps - count :]
        return torch.tensor([*(float(t) + 1 for t in kept), 0.0], dtype=torch.float64)

    def noise(self, pipeline: TextToImage, dtype: torch.dtype = torch.float32) -> Tensor:
        """The noise of the start."""
        vae = pipeline.config.vae
        side = self.side // vae.factor
        return start_noise([SEED], (vae.latent_channels, side, side), dtype)

    def ours(self, pipeline: TextToImage, prompt: str = PROMPT) -> Tensor:
        """The latents that our pipeline ends with; as in the peer, all noise is the start's."""
        states: list[Tensor] = []
        noise = self.noise(pipeline)
        held = mock.Mock(return_value=lambda x, t, s: noise.to(x))
        with mock.patch.object(pipelines, "from_seeds", held):
            pipeline(
                prompt,
                seed=SEED,
                solver=self.solver,
                grid=self.times(pipeline.config.prediction),
                guidance_scale=SCALE,
                image=self.picture(),
                mask=self.mask(),
                height=self.side,
                width=self.side,
                progress=False,
                watch=lambda state: states.append(state.x),
            )
        return states[-1]

    def theirs(self, pipeline: TextToImage, unet: nn.Module, vae: nn.Module) -> Tensor:
        """The latents of diffusers' pipeline; from ours it takes tokens and the noise alone."""
        picture, mask, prediction = self.picture(), self.mask(), pipeline.config.prediction
        kind = "" if picture is None else "Img2Img" if mask is None else "Inpaint"
        peer = getattr(diffusers, f"StableDiffusion{kind}Pipeline")(
            vae, None, None, unet, self.scheduler(prediction), None, None,
            requires_safety_checker=False,
        )  # fmt: skip
        peer.set_progress_bar_config(disable=True)
        contexts, dtype = pipeline.encode_prompts(["", PROMPT]), next(unet.parameters()).dtype
        noise = self.noise(pipeline, dtype)
        size = {"height": self.side, "width": self.side}
        start: dict[str, Any] = {"latents": noise, **size}
        if mask is not None:
            peer._encode_vae_image = lambda image, generator: _mean(vae, image)  # it would draw one
            start = {"image": picture, "mask_image": mask, "strength": self.strength, **size}
        elif picture is not None:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
            start = {"image": _mean(vae, pixels.to(dtype)), "strength": self.strength}
        with _given(noise, kind.lower()):
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
def _given(noise: Tensor, kind: str) -> Iterator[None]:
    """The peer's pipelines after an image draw their own noise; here they are handed ours."""
    module = "_".join(["diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", kind])
    with mock.patch(f"{module.rstrip('_')}.randn_tensor", return_value=noise):
        yield


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, of the largest number."""
    return float((found - wanted).abs().max() / wanted.abs().max())
