"""Images as tensors: read a file as RGB, fit it to a size, convert to [-1, 1] and back."""

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

__all__ = ["fit", "from_tensor", "read_image", "rgb", "signed", "to_tensor", "to_unit", "unsigned"]


def read_image(path: Path | str, option: str = "image") -> Image.Image:
    """The image in a file, in sRGB (see `image_file.open_image` and `color.rgb`); the first frame.

    Messages begin with the option. Raises FileNotFoundError if there is no file, ValueError if it
    holds no whole image in a format of `sd.files.image_file.FORMATS`, a too large one, or samples
    of unknown meaning.
    """
    return rgb(open_image(path, option), f"{option} {path}")


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image in RGB, scaled to cover width x height (Lanczos) and cropped to it at the centre.

    An image of that size keeps every pixel.
    """
    return ImageOps.fit(rgb(image), (width, height), Image.Resampling.LANCZOS)


def to_tensor(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """RGB images of one size as a batch in [-1, 1]."""
    return signed(_stacked(images))


def to_unit(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """RGB images of one size as a batch in [0, 1]."""
    return _stacked(images).float() / 255.0


def _stacked(images: Sequence[Image.Image]) -> UInt8[Tensor, "batch 3 height width"]:
    stack = np.stack([np.asarray(rgb(image)) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2)


def from_tensor(
    x: Float[Tensor, "batch 3 height width"], stage: str = "image"
) -> list[Image.Image]:
    """The inverse of `to_tensor`, rounded and clamped to 0..255.

    Raises FloatingPointError, which names the stage, if an entry is not finite.
    """
    stack = (
        unsigned(require_finite(x, stage).detach().float())
        .to("cpu", torch.uint8)
        .permute(0, 2, 3, 1)
    )
    return [Image.fromarray(each) for each in stack.contiguous().numpy()]


def signed(image: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """b / 127.5 - 1 in [-1, 1], as float32, of bytes b."""
    return image.float() / 127.5 - 1.0


def unsigned(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of `signed`, rounded and clamped to 0..255, in floating point."""
    return ((x + 1.0) * 127.5).round().clamp(0.0, 255.0)
