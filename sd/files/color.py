"""Any image as the networks need it: upright, in 8-bit sRGB, on white where it is transparent."""

import io
import math
import warnings
from contextlib import suppress

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from sd.files.image_file import one_warning

__all__ = ["rgb"]

SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}
"""The mode of the pixels to the colour space of the ICC profile."""


def rgb(image: Image.Image, name: object = "image") -> Image.Image:
    """The same image upright (as its EXIF tag says), in 8-bit sRGB, on white where transparent.

    An ICC profile is converted to sRGB by relative colorimetry with black-point compensation. Grey
    of 16 bits is divided by 257, of floating point in [0, 1] multiplied by 255, and rounded. The
    result carries no metadata.

    Args:
        image: an image in any mode of Pillow.
        name: the beginning of warnings and messages.

    Warns:
        UserWarning: its EXIF data or its colour profile are damaged; the profile is for another
            colour space; or the file names Adobe RGB or a gamma without a profile. The colours are
            then read as sRGB.

    Raises:
        ValueError: floating-point samples outside [0, 1], or integers of 32 bits, whose white is
            unknown.
    """
    profile = image.info.get("icc_profile", b"")
    plain, alpha = _layers(_eight_bits(_upright(image, name), image.format, name))
    if not profile and (said := _other_space(image)):
        warnings.warn(f"{name}: {said} is not read; its colours are taken for sRGB", stacklevel=2)
    if profile is None or profile:
        plain = _srgb(plain, profile or b"", name)
    plain = plain.convert("RGB")
    if alpha is not None:
        plain = Image.composite(plain, Image.new("RGB", plain.size, "white"), alpha)
    plain.info = {}  # else a profile or an orientation would be applied again
    return plain


def _other_space(image: Image.Image) -> str | None:
    """The colour space of a file without a profile, if it is not sRGB.

    Cameras name Adobe RGB in EXIF's interoperability index; a PNG may have a gamma.
    """
    gamma = image.info.get("gamma")
    if gamma and "srgb" not in image.info and not math.isclose(gamma, 1 / 2.2, rel_tol=0.02):
        return f"its gamma of {gamma:g}"
    with warnings.catch_warnings(), suppress(Exception):  # damaged data: `_upright` tells of them
        warnings.simplefilter("ignore")
        exif = image.getexif()
        index = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.IFD.Interop, {})
        index = index if isinstance(index, dict) else exif.get_ifd(ExifTags.IFD.Interop)
        if str(index.get(1, "")).startswith("R03"):
            return "Adobe RGB, which its EXIF data name,"
    return None


def _upright(image: Image.Image, name: object) -> Image.Image:
    with one_warning(name):
        try:
            return ImageOps.exif_transpose(image)
        except Exception as error:  # Pillow's parser raises whatever it meets
            warnings.warn(f"its EXIF data are damaged and ignored: {error}", stacklevel=2)
            return image


def _eight_bits(image: Image.Image, kind: str | None, name: object) -> Image.Image:
    """Grey of more than 8 bits as 8 bits; other images unchanged."""
    if image.mode == "F":
        samples = np.asarray(image, dtype=np.float64)
        low, high = float(samples.min()), float(samples.max())
        if not 0 <= low <= high <= 1:
            wanted = "floating-point samples in [0, 1]"
            raise ValueError(f"{name}: wanted {wanted}, got {low:g} to {high:g}")
        return _grey(255 * samples)
    if image.mode == "I" and kind not in ("PNG", "PPM"):  # which Pillow scales to 16 bits
        wanted = "samples of 8 or 16 bits or floating point in [0, 1]"
        raise ValueError(f"{name}: wanted {wanted}, got integers of 32 bits or with a sign")
    if image.mode == "I" or image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.int64)
        grey, key = _grey(samples / 257), image.info.get("transparency")
        if key is None:
            return grey
        return Image.merge("LA", (grey, _grey(255 * (samples != key))))
    return image


def _grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


def _layers(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in a mode of `SPACES`, and the alpha channel if not all is opaque."""
    grey = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        own = "L" if grey else image.mode if image.mode in SPACES else "RGB"
        return image.convert(own), None
    layer = image.convert("RGBA")
    alpha = layer.getchannel("A")
    return (layer.getchannel("R") if grey else layer.convert("RGB")), alpha


def _srgb(plain: Image.Image, profile: bytes, name: object) -> Image.Image:
    """The colours of a profile in sRGB; unchanged, with a warning, if it can't be applied."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and plain.mode == "L":
            plain = plain.convert("RGB")
        if space != SPACES[plain.mode]:
            raise ValueError(f"it is for {space}, the pixels are {SPACES[plain.mode]}")
        converted = ImageCms.profileToProfile(
            plain,
            source,
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception as error:  # as the library of profiles raises
        why = " ".join(str(error).split())
        said = f"{name}: its colour profile is ignored and its colours are taken for sRGB: {why}"
        warnings.warn(said, stacklevel=3)
        return plain
    assert converted is not None  # it is for images that are changed in place
    return converted
