"""Maps for a ControlNet: an image as it is, its Canny edges, or class indices in colours."""

import importlib.util
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer
from PIL import Image

from diffusion_math.checks import require
from sd.files import image_tensor
from sd.shapes.scene import Scene
from sd.shapes.semantic import PALETTE, class_map, classes

__all__ = ["canny", "given", "of_scene", "require_canny", "semantic", "shapes"]


def given(image: Image.Image, width: int, height: int, option: str = "image") -> Image.Image:
    """The image itself in RGB, which is a map already.

    Raises ValueError, with the option, unless it is width x height: a map of classes or edges loses
    its meaning in an interpolation.
    """
    wanted, got = (f"a map of {w} x {h} pixels" for w, h in ((width, height), image.size))
    require(image.size == (width, height), option, f"{wanted}, as the images", got)
    return image_tensor.rgb(image)


def canny(
    image: Image.Image,
    width: int,
    height: int,
    sigma: float = 1.0,
    low: float = 0.1,
    high: float = 0.2,
) -> Image.Image:
    """The Canny edges of the grey image, white on black.

    Args:
        image: scaled and cropped to width x height first.
        width, height: in pixels.
        sigma: the standard deviation of the Gaussian filter before the gradient, in pixels.
        low, high: the thresholds of the gradient's magnitude, 0 <= low <= high; grey is in [0, 1].

    Raises ValueError for other thresholds, and without scikit-image. Source: Canny 1986,
    doi:10.1109/TPAMI.1986.4767851; `skimage.feature.canny`.
    """
    require_canny()
    require(0 <= low <= high, "low, high", "0 <= low <= high", f"{low} and {high}")
    require(sigma > 0, "sigma", "a number above 0", sigma)
    from skimage.feature import canny as edges  # of an extra

    grey = np.asarray(image_tensor.fit(image, width, height).convert("L"), dtype=np.float64) / 255
    found = edges(grey, sigma=sigma, low_threshold=low, high_threshold=high)
    return Image.fromarray(found.astype(np.uint8) * 255).convert("RGB")


def require_canny(option: str = "canny") -> None:
    """Raise ValueError, with the option, without scikit-image."""
    there = importlib.util.find_spec("skimage") is not None
    wanted = "scikit-image, by pip install diffusion-math[control]"
    require(there, option, wanted, "no such package")


def semantic(
    labels: Integer[np.ndarray, "height width"], colours: Sequence[Sequence[int]]
) -> Image.Image:
    """A map of classes: the pixel of class k has colours[k], RGB in 0..255.

    Raises ValueError for a class without a colour, and for a colour that is none.
    """
    table = np.asarray(colours)
    valid = table.ndim == 2 and table.shape[1] == 3 and table.dtype.kind in "iu"
    valid = valid and bool(((table >= 0) & (table <= 255)).all())
    require(valid, "colours", "some colours of three whole numbers in 0..255", repr(colours))
    low, high = int(labels.min()), int(labels.max())
    wanted = f"classes in 0..{len(table) - 1}, for which there are colours"
    require(low >= 0 and high < len(table), "labels", wanted, f"{low}..{high}")
    return Image.fromarray(table.astype(np.uint8)[labels])


def shapes(image: Image.Image, width: int, height: int, option: str = "image") -> Image.Image:
    """The image as a map for the embedded ControlNet: each pixel has the colour of its class.

    The class is that of the nearest colour in `sd.shapes.semantic.PALETTE`. Raises ValueError, with
    the option, unless the image is width x height, and for a colour that is far from all of them.
    """
    pixels = np.asarray(given(image, width, height, option))
    try:
        labels = classes(pixels)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    return semantic(labels, list(PALETTE.values()))


def of_scene(scene: Scene, width: int = 64) -> Image.Image:
    """The map of a scene for the embedded ControlNet, `width` pixels wide and high."""
    return semantic(class_map(scene, width), list(PALETTE.values()))
