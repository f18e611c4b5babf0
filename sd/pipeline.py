"""From a prompt to an image: encode the prompt, sample a latent with guidance, decode it.

`diffusion_math.sample.trajectory` samples in the latent space of the VAE, with the guided U-Net as
the denoiser. This module takes no step and computes no noise level itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final, get_args

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from diffusion_math.checks import Number, interval, require, whole
from diffusion_math.denoiser import Denoiser, from_eps, from_v, from_x0
from diffusion_math.gaussian import marginal
from diffusion_math.grid import GRIDS
from diffusion_math.guidance import cfg, cfg_batched, limited
from diffusion_math.noise import from_seeds, start_noise
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Discrete, Schedule
from diffusion_math.solvers.step import State, Step
from sd import device as devices
from sd import img2img as strengths
from sd import loading, unused_arguments
from sd.checkpoint.offload import Offload
from sd.config import LongPrompt, ModelConfig
from sd.control import Control, Residuals, require_fit
from sd.files import image_tensor
from sd.inpaint import Inpainting
from sd.networks.attention import Conditioning
from sd.networks.unet import UNet
from sd.networks.vae import Autoencoder
from sd.noise_schedule import named_schedule
from sd.nonfinite import finite_states, require_finite, vae_dtype
from sd.solver import solver_of
from sd.text.alike import alike, apart
from sd.text.conditioning import context
from sd.text.prompt import paired, require_text, require_texts
from sd.text.tokenizer import Tokenizer

__all__ = ["TextToImage"]

_DENOISERS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

_AT_ONCE = 2**12
"""Pixels of latents that are decoded at once: one image of 512 x 512, or many small ones."""

Context = Float[Tensor, "batch token width"]
Latents = Float[Tensor, "batch channel height width"]


@final
@dataclass(frozen=True, eq=False)
class TextToImage:
    """A latent diffusion model: call it with a prompt to get an image.

    Attributes:
        config: the configuration: the networks, the schedule, what the U-Net predicts.
        tokenizer: prompts to tokens.
        text_encoder: tokens `(batch, token)` to context `(batch, token, width)`.
        vae: images `(batch, 3, height, width)` in [-1, 1] to latents and back.
        unet: `(x_t, time, context)` to its prediction, of the shape of x_t. An inpainting model's
            reads the channels of `Inpainting.channels` after those of x_t.
        device: the device of the three networks.
        dtype: the dtype of the text encoder and the U-Net; solvers compute in float32 or wider.
        offload: the offloading of the networks; None if all are in memory.
        digest: the digest of the weights, if an engine has taken them over (see `sd.digest`).
    """

    config: ModelConfig
    tokenizer: Tokenizer
    text_encoder: nn.Module
    vae: Autoencoder
    unet: nn.Module
    device: torch.device
    dtype: torch.dtype = torch.float32
    offload: Offload | None = None
    digest: str | None = None

    @classmethod
    def load(
        cls,
        model: str | Path = "shapes",
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> "TextToImage":
        """Read a model from disk.

        Args:
            model: "shapes", the embedded model of captioned shapes; "shapes-distilled", the same
                for 6 network calls an image; a folder in its layout; or a Stable Diffusion
                checkpoint.
            device: "auto" (the fastest found), "cpu", "cuda", "cuda:1" or "mps".
            dtype: a floating-point type for the networks.
            options: see `sd.loading.load_model`.

        Raises:
            FileNotFoundError: a weights file is missing.
            ValueError: a file is damaged or does not fit, or there is no such device.

        Warns of bfloat16 on a CPU that has no instructions for it, where it saves memory alone.
        """
        wanted = ", ".join(map(str, DTYPES))
        require(dtype in DTYPES, "dtype", f"one of {wanted}", dtype)
        where = devices.pick(device)
        if dtype == torch.bfloat16:
            devices.warn_slow_bfloat16(where, "dtype", "it saves memory alone")
        parts = loading.load_model(model, where, dtype, **options)
        return cls(**parts._asdict(), device=where, dtype=dtype)

    @cached_property
    def schedule(self) -> Discrete:
        """The noise schedule of the U-Net's training."""
        config = self.config
        return named_schedule(config.schedule, config.steps, config.zero_terminal_snr)

    @property
    def vae_dtype(self) -> torch.dtype:
        """The dtype of the VAE: `dtype`, but float32 in place of float16."""
        return vae_dtype(self.dtype)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        do_cfg: bool = True,
        guidance_scale: Number | None = None,
        guidance_interval: Sequence[Number] | None = None,
        steps: int | None = None,
        solver: str | Callable[[Schedule], Step] | None = None,
        grid: str | Tensor = "trailing",
        seed: int | Sequence[int] = 0,
        image: Image.Image | None = None,
        mask: Image.Image | None = None,
        strength: Number | None = None,
        height: int | None = None,
        width: int | None = None,
        progress: bool = True,
        watch: Callable[[State], None] | None = None,
        long_prompt: str | None = None,
        clip_skip: int | None = None,
        controls: Sequence[Control] = (),
    ) -> list[Image.Image]:
        """Generate images from prompts, change an image by a prompt, or repaint a part of it.

        An image depends on its own prompt and seed, not on the other images of the call (except for
        the networks' rounding, which may depend on the batch size).

        Args:
            prompt: one prompt, or one for each image.
            negative_prompt: the prompt that guidance leads away from; "" is the unconditional one.
            do_cfg: False uses the conditional prediction alone, as a scale of 1 does.
            guidance_scale: w >= 0 in x0 = x0_u + w (x0_c - x0_u); default: the model's.
            guidance_interval: (low, high), the noise levels sigma_t / alpha_t at which w holds. At
                others w is 1, which halves the cost. Default: all.
            steps: the number of steps, 1..T; default: the model's, 25 if not distilled.
            solver: a name in `diffusion_math.SOLVERS`, or a function of the schedule that returns a
                step `(denoise, state, t, s, noise) -> State`; default: the model's.
            grid: a name in `diffusion_math.GRIDS`, or decreasing times, which replace `steps` and
                `strength`.
            seed: the seed of the first image (the next ones count up), or one seed for each image.
                With one prompt, each seed gives an image.
            image: start at q(x_t | x_0) of the latent of this image, not at noise.
            mask: repaint the pixels of `image` where this image, of the same size, is white; the
                others are pasted back at the end. The U-Net of an inpainting model reads the mask
                and the known pixels. For any other U-Net, a latent that stands for known pixels
                alone is replaced after each step (`diffusion_math.inpainting.replacement`).
            strength: in (0, 1], the time at which `image` starts: t = round(strength T). From there
                round(strength steps) steps, at least one, lead to 0. At 1 the start contains
                alpha_T of the image, but with a mask it is noise where that is white; below
                1 / (2T) the image does not change. Default: 0.8; with a mask, 1.
            height, width: the size in pixels; default: the model's.
            progress: show a progress bar if the error stream is a terminal.
            watch: called with the initial state and the state after each step.
            long_prompt: "chunk", "truncate" (with a warning) or "refuse" a prompt that is longer
                than the context length; default: the model's.
            clip_skip: the number of last layers of the text encoder to skip; default: the model's.
            controls: ControlNets with their maps; their residuals add up (see `sd.control`).

        Returns:
            One RGB image for each prompt or seed.

        Warns:
            UserWarning: a prompt is truncated, or contains unknown words or foreign marks; or an
                argument has no effect (see `sd.unused_arguments`).

        Raises:
            ValueError: an argument is out of range; a mask has no image, another size than it, or
                no white pixel; an inpainting model has no mask.
            ValueError: a ControlNet does not fit the U-Net, or a map the size of the images.
            FloatingPointError: the output of a network is not finite.
        """
        prompts, seeds = paired(prompt, seed)
        require_text("negative_prompt", negative_prompt)
        for name, given in (("image", image), ("mask", mask)):
            right = given is None or isinstance(given, Image.Image)
            require(right, name, "an image of Pillow", type(given).__name__)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        valid = isinstance(scale, int | float) and 0 <= scale < float("inf")
        require(valid, "guidance_scale", "a finite number of at least 0", repr(scale))
        if guidance_interval is not None:
            interval("guidance_interval", guidance_interval)
        limits = {"negative_prompt": negative_prompt, "guidance_interval": bool(guidance_interval)}
        unused_arguments.warn_guidance(do_cfg, scale, self.config.guidance_scale, **limits)
        make = solver_of(self.config, solver)
        step = make(self.schedule)
        require(callable(step), "solver", "a function that returns a step", type(step).__name__)
        named = isinstance(grid, str)
        strengths.require_grid(grid, steps, strength)
        unused_arguments.warn_unfinished(grid)
        steps = self.config.sampling_steps if steps is None else steps
        whole("steps", steps, 1, int(self.schedule.T))
        wide, high = self._side("width", width), self._side("height", height)
        wanted = "a number in (0, 1]"
        require(strength is None or 0 < strength <= 1, "strength", wanted, strength)
        require(image is not None or strength is None, "strength", "an image with it", strength)
        hole = Inpainting.wanted(self.config, image, mask, wide, high)
        require_fit(controls, self.config, (wide, high), self.device, self.dtype)
        plain = not controls or isinstance(self.unet, UNet)
        require(plain, "controls", "the engine eager with them", type(self.unet).__name__)

        long = long_prompt or self.config.long_prompt
        encoder = self._encoder([negative_prompt, *prompts], long, clip_skip)
        groups = alike(self.tokenizer, negative_prompt, prompts, long)
        encoded = [encoder([negative_prompt, *(prompts[k] for k in group)]) for group in groups]
        factor = self.config.vae.factor
        beside = hole.channels(self._encoded) if hole and self.config.reads_mask else None
        shape = (self.config.vae.latent_channels, high // factor, wide // factor)
        precise = torch.promote_types(self.dtype, torch.float32)
        z = x = start_noise(seeds, shape, precise).to(self.device)
        usual = strengths.default_strength(self.config, hole is not None)
        amount = usual if strength is None else strength
        if not isinstance(grid, str):
            times = grid
        elif image is None:
            times = GRIDS[grid](self.schedule, steps)
        else:
            times = strengths.img2img_grid(self.schedule, grid, steps, amount)
        if guidance_interval is not None and do_cfg:
            unused_arguments.warn_interval(self.schedule, times, make, guidance_interval)
        unused_arguments.warn_controls([one.weights(len(times) - 1) for one in controls])
        residuals = Residuals(controls, self.schedule, times, precise) if controls else None
        scale = scale if do_cfg else 1
        unused_arguments.warn_distilled(
            self.config, self.schedule, times, make, scale, image is not None
        )
        more = scale, guidance_interval, beside, residuals
        denoisers = [self.denoiser((one[:1], one[1:]), *more) for one in encoded]
        denoise = apart(groups, denoisers, self.device)
        seen = hole is None or (amount < 1 if named else times[0] < self.schedule.T)
        if image is not None and (seen or beside is None):
            (latent,) = self.encode_image(image, wide, high)
            if seen:
                x = marginal(self.schedule, latent.expand_as(x), times[0]).sample(z)
            if hole is not None and beside is None:
                x, step = hole.held(self.schedule, latent, x, times[0], z, step)

        states = trajectory(step, denoise, x, times, from_seeds(seeds))
        checked = finite_states(states, times, self.dtype)
        # The initial state is one of them; counted from -1, the bar counts steps.
        shown = None if progress else True  # tqdm's words for "on a terminal" and "never"
        for state in tqdm(checked, total=len(times) - 1, initial=-1, unit="step", disable=shown):
            if watch is not None:
                watch(state)
        images = self.decode(state.x)
        return images if hole is None else hole.pasted(images)

    @torch.no_grad()
    def encode_prompts(
        self, prompts: Sequence[str], long: str = "refuse", clip_skip: int | None = None
    ) -> Context:
        """Encode prompts to the context `(batch, token, width)` of the U-Net's cross-attention.

        All get as many tokens as the longest prompt. A call of the pipeline does not: there each
        prompt has its own number, or that of the negative prompt.

        Weights and breaks are applied as in `sd.text.conditioning`.

        Args:
            prompts: one prompt or more.
            long: what to do with a prompt beyond the context length (`sd.config.LongPrompt`).
            clip_skip: the number of last layers to skip, in 0..layers - 1; default: the model's.

        Warns as `sd.unused_arguments.warn_prompts` does, and if a prompt is truncated. Raises
        ValueError for a prompt beyond the context length if `long` is "refuse", for one string in
        place of prompts, and for an invalid `long` or `clip_skip`.
        """
        require_texts("prompts", prompts)
        return self._encoder(prompts, long, clip_skip)(prompts)

    def _encoder(
        self, prompts: Sequence[str], long: str, clip_skip: int | None
    ) -> Callable[[Sequence[str]], Context]:
        """What encodes some of the prompts; warns of all of them."""
        wanted = f"one of {get_args(LongPrompt)}"
        require(long in get_args(LongPrompt), "long_prompt", wanted, repr(long))
        skip = self.config.text.skip if clip_skip is None else clip_skip
        whole("clip_skip", skip, 0, self.config.text.layers - 1)
        unused_arguments.warn_prompts(self.tokenizer, prompts)

        def encoder(tokens: Tensor) -> Tensor:
            if clip_skip is None:
                states: Tensor = self.text_encoder(tokens)
                return states
            return self.text_encoder.states(tokens, self.config.text.layers - skip)

        def encode(some: Sequence[str]) -> Context:
            found = context(encoder, self.tokenizer, some, long, device=self.device)
            return require_finite(found, "text encoder")

        return encode

    def denoiser(
        self,
        pair: tuple[Float[Tensor, "rows token width"], Context],
        scale: Number,
        interval: Sequence[Number] | None = None,
        beside: Float[Tensor, "1 extra h w"] | None = None,
        residuals: Residuals | None = None,
    ) -> Denoiser:
        """The guided U-Net as a denoiser E[x_0 | x_t], with both predictions in one batch.

        At scales 1 and 0, and outside the interval, it makes one prediction only.

        Args:
            pair: contexts (unconditional or negative, conditional); the first may be one row.
            scale: w >= 0, as in `diffusion_math.guidance.cfg`.
            interval: as in `diffusion_math.guidance.limited`; None: all noise levels.
            beside: one row of channels that the U-Net of an inpainting model reads beside x_t.
            residuals: of ControlNets; of both predictions.
        """
        wanted = "the mask and the known pixels, for an inpainting model alone"
        require((beside is not None) == self.config.reads_mask, "beside", wanted, type(beside))
        negative, positive = pair[0].expand_as(pair[1]), pair[1]
        if interval is not None:
            guided = self.denoiser(pair, scale, None, beside, residuals)
            plain = self._conditioned(positive, beside, residuals)
            return limited(guided, plain, self.schedule, interval)
        if scale in (0, 1):
            both = (self._conditioned(one, beside, residuals) for one in (positive, negative))
            return cfg(*both, scale)
        together = self._conditioned(torch.cat([negative, positive]), beside, residuals)

        def both(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            twice = t if t.ndim == 0 else torch.cat([t, t])
            x0_unconditional, x0_conditional = together(torch.cat([x_t, x_t]), twice).chunk(2)
            return x0_unconditional, x0_conditional

        return cfg_batched(both, scale)

    @torch.no_grad()
    def encode_image(self, image: Image.Image, width: int, height: int) -> Latents:
        """The mean latent of an image, scaled and cropped to width x height; float32 or wider."""
        return self._encoded(image_tensor.to_tensor([image_tensor.fit(image, width, height)]))

    @torch.no_grad()
    def decode(self, latents: Latents) -> list[Image.Image]:
        """Decode latents to images."""
        latents = latents.to(self.device, self.vae_dtype)
        few = max(1, _AT_ONCE // latents[0, 0].numel())
        decoded = [self.vae.decode(some) for some in latents.split(few)]
        return image_tensor.from_tensor(torch.cat(decoded), "VAE decoder")

    def _encoded(self, x: Tensor) -> Latents:
        """The mean latents of images `(batch, 3, height, width)` in [-1, 1]; float32 or wider."""
        mean = self.vae.encode(x.to(self.device, self.vae_dtype)).mean
        found = require_finite(mean, "VAE encoder")
        return found.to(torch.promote_types(self.dtype, torch.float32))

    def _conditioned(
        self, context: Tensor, beside: Tensor | None = None, residuals: Residuals | None = None
    ) -> Denoiser:
        """The U-Net with a fixed context, in its own dtype, as a denoiser."""
        prompt = Conditioning(context) if isinstance(self.unet, UNet) else context

        def network(x_t: Tensor, time: Tensor) -> Tensor:
            added = residuals and residuals(x_t.to(self.dtype), time, prompt)
            if beside is not None:
                x_t = torch.cat([x_t, beside.to(x_t).expand(len(x_t), -1, -1, -1)], dim=1)
            given = (x_t.to(self.dtype), time, prompt, *([added] if added else ()))
            prediction: Tensor = self.unet(*given)
            return prediction.to(x_t.dtype)

        return _DENOISERS[self.config.prediction](network, self.schedule)

    def _side(self, name: str, pixels: int | None) -> int:
        """The width or height in pixels, checked."""
        side = self.config.image_size if pixels is None else pixels
        least = self.config.vae.factor
        whole(name, side, least)
        require(side % least == 0, name, f"a multiple of {least}", side)
        return side
