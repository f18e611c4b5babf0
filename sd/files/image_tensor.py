"""Images: any file a user has as RGB of one size; bytes to tensors in [-1, 1] and back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from sd.files.color import rgb
from sd.files.image_file import open_image
from sd.nonfinite import require_finite

__all__ = ["fit", "from_tensor", "read_image", "rgb", "signed", "to_tensor", "unsigned"]


def read_image(path: Path | str) -> Image.Image:
    """The image in a file, as `image_file.load` and `color.rgb` read it; of an animation the first.

    Raises FileNotFoundError where there is no file, ValueError where it holds no whole image in a
    format of `sd.files.image_file.FORMATS`, one that is too large, or samples of unknown meaning.
    """
    return rgb(open_image(path), f"image {path}")


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image in RGB, scaled to cover width x height (Lanczos), the overhang cut off evenly.

    An image of that size already comes back pixel for pixel.
    """
    return ImageOps.fit(rgb(image), (width, height), Image.Resampling.LANCZOS)


def to_tensor(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """RGB images of one size as a batch in [-1, 1]."""
    stack = np.stack([np.asarray(image) for image in images])
    return signed(torch.from_numpy(stack).permute(0, 3, 1, 2))


def from_tensor(
    x: Float[Tensor, "batch 3 height width"], stage: str = "image"
) -> list[Image.Image]:
    """The inverse of `to_tensor`, rounded and cut to 0..255.

    Raises FloatingPointError, with the stage that has made it, for a number that is not finite.
    """
    stack = (
        unsigned(require_finite(x, stage).detach().float())
        .to("cpu", torch.uint8)
        .permute(0, 2, 3, 1)
    )
    return [Image.fromarray(each) for each in stack.contiguous().numpy()]


def signed(image: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bytes b as float32 numbers b / 127.5 - 1 in [-1, 1]."""
    return image.float() / 127.5 - 1.0


def unsigned(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of `signed`, rounded to whole numbers and cut to 0..255 (still floating)."""
    return ((x + 1.0) * 127.5).round().clamp(0.0, 255.0)
