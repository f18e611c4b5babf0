"""From a prompt to an image: encode, guide, walk, decode.

The walk is `diffusion_math.sample.trajectory` in the VAE's latent space, on the guided U-Net as
its denoiser. No step is taken here and no noise level computed.
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
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State, Step
from sd import device as devices
from sd import img2img as strengths
from sd import loading, unused_arguments
from sd.checkpoint.offload import Offload
from sd.config import LongPrompt, ModelConfig
from sd.files import image_tensor
from sd.networks.attention import Conditioning
from sd.networks.unet import UNet
from sd.networks.vae import Autoencoder
from sd.noise_schedule import named_schedule
from sd.nonfinite import finite_states, require_finite, vae_dtype
from sd.text.conditioning import context
from sd.text.prompt import paired, require_text
from sd.text.tokenizer import Tokenizer

__all__ = ["TextToImage"]

_DENOISERS = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}

_AT_ONCE = 2**12
"""Pixels of latents decoded together: one image of 512 x 512, or many small ones."""

Context = Float[Tensor, "batch token width"]
Latents = Float[Tensor, "batch channel height width"]


@final
@dataclass(frozen=True, eq=False)
class TextToImage:
    """A latent diffusion model: call it with a prompt to get an image.

    Attributes:
        config: the numbers of the model, its schedule and what its U-Net predicts.
        tokenizer: prompts to tokens.
        text_encoder: tokens `(batch, token)` to context `(batch, token, width)`.
        vae: images `(batch, 3, height, width)` in [-1, 1] to latents and back.
        unet: `(x_t, time, context)` to its prediction, like x_t.
        device: where the three networks are.
        dtype: of the text encoder and the U-Net; the walk itself is in float32 or wider.
        turns: the networks' turns in memory; None where all are in memory.
        digest: of the weights, where an engine has taken them over: see `sd.digest`.
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
            model: "shapes", the embedded model of captioned shapes, a folder laid out like it, or a
                Stable Diffusion checkpoint: see `sd.loading.load_model`, which takes the options.
            device: "auto" (the fastest found), "cpu", "cuda", "cuda:1" or "mps".
            dtype: a floating-point type for the networks.

        Raises:
            FileNotFoundError: a weights file is missing.
            ValueError: a file is damaged or does not fit, or the device is not there.
        """
        require(dtype.is_floating_point, "dtype", "a floating-point type", dtype)
        where = devices.pick(device)
        parts = loading.load_model(model, where, dtype, **options)
        return cls(**parts._asdict(), device=where, dtype=dtype)

    @cached_property
    def schedule(self) -> Discrete:
        """The schedule that the U-Net was trained under."""
        config = self.config
        return named_schedule(config.schedule, config.steps, config.zero_terminal_snr)

    @property
    def vae_dtype(self) -> torch.dtype:
        """The dtype of the VAE: `dtype`, or float32 where that is float16."""
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
        strength: Number | None = None,
        height: int | None = None,
        width: int | None = None,
        progress: bool = True,
        watch: Callable[[State], None] | None = None,
        long_prompt: str | None = None,
        clip_skip: int | None = None,
    ) -> list[Image.Image]:
        """Draw images of prompts, or redraw an image after a prompt.

        An image is a function of its own prompt and seed, not of what else is drawn in the call
        (up to the networks' rounding, which may depend on the size of the batch).

        Args:
            prompt: one prompt, or one for each image.
            negative_prompt: what guidance leads away from; "" is the unconditional model.
            do_cfg: False takes the conditional prediction alone, which is a scale of 1.
            guidance_scale: x0 = x0_u + w (x0_c - x0_u) with w >= 0; default: the model's own.
            guidance_interval: (low, high), the noise levels sigma_t / alpha_t at which the scale
                holds; at others it is 1, which takes half the work. Default: all.
            steps: 1..T steps of the solver; default: 25.
            solver: a name in `diffusion_math.SOLVERS`, or a function of the schedule that gives a
                step `(denoise, state, t, s, noise) -> State`; default: the model's own.
            grid: a name in `diffusion_math.GRIDS`, or the times themselves, falling, in place of
                `steps` and `strength`.
            seed: of the first image, the next ones counting up; or one seed for each image, in
                which case one prompt gives an image for every seed.
            image: redraw this one: start at q(x_t | x_0) of its latent, not at noise.
            strength: in (0, 1], how far up the schedule that start is: t = round(strength T), and
                round(strength steps) steps, at least one, lead back. At 1 what is left of the
                image is alpha_T; below 1 / (2T) nothing is redrawn. Default 0.8.
            height, width: in pixels; default: the model's own.
            progress: show a bar when the error stream is a terminal.
            watch: called with the start and with the state after every step.
            long_prompt: what becomes of a prompt longer than a row of the text encoder: "chunk",
                "truncate" (with a warning) or "refuse"; default: the model's own.
            clip_skip: how many of the text encoder's last layers are left out, 0 for none;
                default: the model's own.

        Returns:
            As many RGB images as there are prompts or seeds.

        Warns:
            UserWarning: a prompt is cut, or has words that the model does not know or marks that
                are read as words; what is given has no effect (`sd.unused_arguments`).

        Raises:
            ValueError: an argument is outside its range; the message names it.
            FloatingPointError: a network's answer is not finite; the message names it and the step.
        """
        prompts, seeds = paired(prompt, seed)
        require_text("negative_prompt", negative_prompt)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        valid = 0 <= scale < float("inf")
        require(valid, "guidance_scale", "a finite number of at least 0", scale)
        if guidance_interval is not None:
            interval("guidance_interval", guidance_interval)
        own, given = self.config.guidance_scale, bool(guidance_interval)
        unused_arguments.warn_guidance(
            do_cfg, scale, own, negative_prompt=negative_prompt, guidance_interval=given
        )
        make = _solver(self.config.solver if solver is None else solver)
        step = make(self.schedule)
        require(callable(step), "solver", "a function that gives a step", type(step).__name__)
        named = isinstance(grid, str)
        require(not named or grid in GRIDS, "grid", f"one of {', '.join(GRIDS)}", repr(grid))
        require(named or strength is None, "grid", "a name beside a strength", grid)
        require(named or steps in (None, len(grid) - 1), "grid", "a name beside steps", grid)
        steps = 25 if steps is None else steps
        whole("steps", steps, 1, int(self.schedule.T))
        wide, high = self._side("width", width), self._side("height", height)
        wanted = "a number in (0, 1]"
        require(strength is None or 0 < strength <= 1, "strength", wanted, strength)
        require(image is not None or strength is None, "strength", "an image with it", strength)

        texts = [negative_prompt, *prompts]
        contexts = self.encode_prompts(texts, long_prompt or self.config.long_prompt, clip_skip)
        pair = contexts[:1], contexts[1:]
        denoise = self.denoiser(pair, scale if do_cfg else 1, guidance_interval)
        factor = self.config.vae.factor
        shape = (self.config.vae.latent_channels, high // factor, wide // factor)
        precise = torch.promote_types(self.dtype, torch.float32)
        x = start_noise(seeds, shape, precise).to(self.device)
        if not isinstance(grid, str):
            times = grid
        elif image is None:
            times = GRIDS[grid](self.schedule, steps)
        else:
            amount = strengths.DEFAULT_STRENGTH if strength is None else strength
            times = strengths.img2img_grid(self.schedule, grid, steps, amount)
        if guidance_interval is not None and do_cfg:
            unused_arguments.warn_interval(self.schedule, times, make, guidance_interval)
        if image is not None:
            latent = self.encode_image(image, wide, high).expand_as(x)
            x = marginal(self.schedule, latent, times[0]).sample(x)

        states = trajectory(step, denoise, x, times, from_seeds(seeds))
        walk = finite_states(states, times, self.dtype)
        # The start is a state too; counted from -1, the bar counts steps.
        shown = None if progress else True  # tqdm's words for "on a terminal" and "never"
        for state in tqdm(walk, total=len(times) - 1, initial=-1, unit="step", disable=shown):
            if watch is not None:
                watch(state)
        return self.decode(state.x)

    @torch.no_grad()
    def encode_prompts(
        self, prompts: Sequence[str], long: str = "refuse", clip_skip: int | None = None
    ) -> Context:
        """Encode prompts to the context `(batch, token, width)` that the U-Net attends to.

        Weights and breaks are applied as in `sd.text.conditioning`.

        Args:
            prompts: one or more.
            long: how to encode a prompt longer than a row, a value of `sd.config.LongPrompt`.
            clip_skip: layers of the text encoder to leave out, in 0..layers - 1; default: the
                model's own.

        Warns as `sd.unused_arguments.warn_prompts` does, and where a prompt is cut. Raises
        ValueError for a prompt longer than a row where `long` is "refuse", and for a `long` or a
        `clip_skip` that is not valid.
        """
        require(
            long in get_args(LongPrompt),
            "long_prompt",
            f"one of {get_args(LongPrompt)}",
            repr(long),
        )
        skip = self.config.text.skip if clip_skip is None else clip_skip
        whole("clip_skip", skip, 0, self.config.text.layers - 1)
        unused_arguments.warn_prompts(self.tokenizer, prompts)

        def encoder(tokens: Tensor) -> Tensor:
            if clip_skip is None:
                states: Tensor = self.text_encoder(tokens)
                return states
            return self.text_encoder.states(tokens, self.config.text.layers - skip)

        found = context(encoder, self.tokenizer, prompts, long, device=self.device)
        return require_finite(found, "text encoder")

    def denoiser(
        self,
        pair: tuple[Float[Tensor, "rows token width"], Context],
        scale: Number,
        interval: Sequence[Number] | None = None,
    ) -> Denoiser:
        """The guided U-Net as E[x_0 | x_t]: both predictions from one pass over twice the batch.

        At scales 1 and 0, and outside of the interval, there is one prediction only.

        Args:
            pair: contexts (unconditional or negative, conditional); the first may be one row.
            scale: w >= 0 of `diffusion_math.guidance.cfg`.
            interval: of `diffusion_math.guidance.limited`; None is everywhere.
        """
        negative, positive = pair[0].expand_as(pair[1]), pair[1]
        if interval is not None:
            guided = self.denoiser(pair, scale)
            return limited(guided, self._conditioned(positive), self.schedule, interval)
        if scale in (0, 1):
            return cfg(self._conditioned(positive), self._conditioned(negative), scale)
        together = self._conditioned(torch.cat([negative, positive]))

        def both(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            twice = t if t.ndim == 0 else torch.cat([t, t])
            x0_unconditional, x0_conditional = together(torch.cat([x_t, x_t]), twice).chunk(2)
            return x0_unconditional, x0_conditional

        return cfg_batched(both, scale)

    @torch.no_grad()
    def encode_image(self, image: Image.Image, width: int, height: int) -> Latents:
        """The mean latent of one image, fitted to width x height; float32 or wider."""
        x = image_tensor.to_tensor([image_tensor.fit(image, width, height)])
        mean = require_finite(
            self.vae.encode(x.to(self.device, self.vae_dtype)).mean, "VAE encoder"
        )
        return mean.to(torch.promote_types(self.dtype, torch.float32))

    @torch.no_grad()
    def decode(self, latents: Latents) -> list[Image.Image]:
        """The images of latents."""
        latents = latents.to(self.device, self.vae_dtype)
        few = max(1, _AT_ONCE // latents[0, 0].numel())
        decoded = [self.vae.decode(some) for some in latents.split(few)]
        return image_tensor.from_tensor(torch.cat(decoded), "VAE decoder")

    def _conditioned(self, context: Tensor) -> Denoiser:
        """The U-Net with its context, in its own dtype, as a denoiser."""
        prompt = Conditioning(context) if isinstance(self.unet, UNet) else context

        def network(x_t: Tensor, time: Tensor) -> Tensor:
            prediction: Tensor = self.unet(x_t.to(self.dtype), time, prompt)
            return prediction.to(x_t.dtype)

        return _DENOISERS[self.config.prediction](network, self.schedule)

    def _side(self, name: str, pixels: int | None) -> int:
        """The image's width or height."""
        side = self.config.image_size if pixels is None else pixels
        least = self.config.vae.factor
        require(side > 0 and side % least == 0, name, f"a multiple of {least}", side)
        return side


def _solver(given: str | Callable[[Schedule], Step]) -> Callable[[Schedule], Step]:
    """A solver by its name, or the function itself."""
    if isinstance(given, str) and given in SOLVERS:
        return SOLVERS[given]
    wanted = f"one of {', '.join(SOLVERS)}, or a function of a schedule that gives a step"
    require(callable(given), "solver", wanted, repr(given))
    return given  # type: ignore[return-value]
