"""Inpainting: an image, and the mask of the pixels that are to be repainted."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.inpainting import joined, replacement
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.step import Step
from sd.config import ModelConfig
from sd.files import image_tensor

__all__ = ["Inpainting", "fitted_mask", "require_mask"]

HALF = 128
"""The least grey level, of 255, of a pixel that is repainted."""

Latents = Float[Tensor, "batch channel high wide"]


@final
@dataclass(frozen=True, eq=False)
class Inpainting:
    """An image, and which of its pixels are repainted; the others are known.

    Attributes:
        image: in RGB, of the size that is sampled.
        white: `(height, width)`, true where a pixel is repainted.
        factor: the VAE's; a latent stands for factor x factor pixels.
    """

    image: Image.Image
    white: Bool[Tensor, "height width"]
    factor: int

    @classmethod
    def wanted(
        cls,
        config: ModelConfig,
        image: Image.Image | None,
        mask: Image.Image | None,
        width: int,
        height: int,
    ) -> "Inpainting | None":
        """The image and its mask, scaled and cropped to width x height; None without a mask.

        Warns if all of the mask is white. Raises ValueError as `require_mask` does, for a mask
        without an image, and for an inpainting model without a mask.
        """
        inputs = config.unet.in_channels
        wanted = f"an image and a mask for this inpainting model ({inputs} input channels)"
        require(mask is not None or not config.reads_mask, "mask", wanted, "none")
        if mask is None:
            return None
        if image is None:
            raise ValueError("mask: wanted an image with it, got none")
        require_mask(mask, image)
        own, hole = image_tensor.fit(image, width, height), fitted_mask(mask, width, height)
        require_mask(hole, own, f"mask, fitted to {width} x {height}")
        white = torch.from_numpy(_white(hole))
        if white.all():
            warnings.warn("mask: all white, so that no pixel of the image is kept", stacklevel=4)
        return cls(own, white, config.vae.factor)

    def held(
        self,
        schedule: Discrete,
        latent: Float[Tensor, "channel high wide"],
        x: Latents,
        t: Tensor,
        z: Latents,
        step: Step,
    ) -> tuple[Latents, Step]:
        """The start and the step of a U-Net that reads no mask, with the known latents joined in.

        A latent is known if all its pixels are. At the start its noise is z, after each step that
        of the step: see `diffusion_math.inpainting`. The VAE's encoder has seen the whole image.

        Args:
            latent: of the image.
            x: the start, at time t.
            step: a solver's step.
        """
        high, wide = latent.shape[-2:]
        blocks = self.white.reshape(high, self.factor, wide, self.factor)
        known = ~blocks.any(dim=3).any(dim=1).to(x.device).expand_as(latent)
        start = joined(schedule, x, t, latent, known, z)
        return start, replacement(step, schedule, latent, known)

    def channels(self, encode: Callable[[Tensor], Latents]) -> Latents:
        """What the U-Net of an inpainting model reads beside x_t, as one row.

        These are the mask at the first pixel of each latent, 1 where it is repainted, and the
        latent of the image with 0 (grey) for the pixels that are repainted.

        Args:
            encode: images in [-1, 1] to their latents.

        Source: Rombach et al. 2022, arXiv:2112.10752, section 4.5; the order and the grey are those
        of the inpainting models of Stable Diffusion.
        """
        latent = encode(image_tensor.to_tensor([self.image]) * ~self.white)
        mask = self.white[:: self.factor, :: self.factor].to(latent)
        return torch.cat([mask[None, None], latent], dim=1)

    def pasted(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images with the known pixels of the own one."""
        hole = Image.fromarray(self.white.numpy().astype(np.uint8) * 255)
        return [Image.composite(one, self.image, hole) for one in images]


def fitted_mask(mask: Image.Image, width: int, height: int) -> Image.Image:
    """A mask in black and white, scaled and cropped as `image_tensor.fit` does its image."""
    return Image.fromarray(_white(image_tensor.fit(mask, width, height)))


def require_mask(mask: Image.Image, image: Image.Image, name: str = "mask") -> None:
    """Raise ValueError for a mask of another size than its image, or without a white pixel.

    The message begins with the name.
    """
    wide, high = image_tensor.rgb(image).size
    white = _white(mask)
    got = f"{white.shape[1]} x {white.shape[0]}"
    require(white.shape == (high, wide), name, f"the image's size, {wide} x {high}", got)
    wanted = f"white pixels, to be repainted: of brightness {HALF} or more"
    require(bool(white.any()), name, wanted, f"at most {_brightness(mask).max()}")


def _white(mask: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Where a mask is white by at least half; a transparent pixel is white."""
    return _brightness(mask) >= HALF


def _brightness(mask: Image.Image) -> UInt8[np.ndarray, "height width"]:
    return np.asarray(image_tensor.rgb(mask, "mask").convert("L"))
