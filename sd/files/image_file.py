"""Open image files: raster formats only, recognised by content, of bounded size."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

from sd.files.regular_file import require_regular

__all__ = ["FORMATS", "one_warning", "open_image"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""The formats that are read, by Pillow's names: pixels only. Pillow also knows formats that start a
program (EPS starts Ghostscript)."""

MOST_PIXELS = 10**8
"""The largest number of pixels of an image: 10,000 x 10,000."""

SCALES = {"L;2": 85, "L;4": 17}
"""The factor from grey of fewer bits to 8 bits, by Pillow's name of the storage."""

MOST_BYTES = 2**30
"""The largest file; more than 8 bytes for each of `MOST_PIXELS`."""


def open_image(file: Path | str | bytes, option: str = "image") -> Image.Image:
    """The decoded image of a file, with its metadata in `info`.

    The content decides the format, not the name. The size is checked before any pixel is decoded.
    The texts of a PNG may take 64 MiB together.

    Args:
        file: the path, or the content.
        option: the beginning of messages.

    Warns:
        UserWarning: its metadata are damaged.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no whole image in one of `FORMATS`, or one above `MOST_PIXELS`.
    """
    named = option if isinstance(file, bytes) else f"{option} {file}"
    source = (
        io.BytesIO(file) if isinstance(file, bytes) else require_regular(file, option, MOST_BYTES)
    )
    try:
        with one_warning(named), _long_texts(), Image.open(source, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                size = f"{opened.width} x {opened.height} pixels, more than {MOST_PIXELS}"
                raise ValueError(size)
            _plain(opened)
            return _decoded(opened, source)
    except UnidentifiedImageError as error:
        raise ValueError(f"{named} is no image in a format of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise whatever their format's library does
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{named} cannot be read: {reason}") from error


def _plain(opened: ImageFile.ImageFile) -> None:
    """Raise ValueError for formats that Pillow decodes wrongly or in quadratic time."""
    if opened.tile and opened.tile[0].codec_name == "ppm_plain":  # its comments are
        raise ValueError("a PPM in plain text; the binary kinds P4, P5 and P6 are supported")
    if isinstance(opened, TiffImageFile):
        bits = opened.tag_v2.get(BITSPERSAMPLE, (1,))
        signed = 2 in opened.tag_v2.get(SAMPLEFORMAT, ())
        if signed and max(bits) <= 8:
            raise ValueError("wanted unsigned samples of 8 bits, got signed ones")


@contextmanager
def one_warning(name: object) -> Iterator[None]:
    """Replace all warnings of Pillow by one that begins with a name."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        # The limit here is `MOST_PIXELS`, which lies above that of this warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
    if given:
        more = f" (and {len(given) - 1} more)" if len(given) > 1 else ""
        warnings.warn(f"{name}: {given[0].message}{more}", stacklevel=3)


def _decoded(opened: ImageFile.ImageFile, source: Path | io.BytesIO) -> Image.Image:
    """The decoded image, with corrections of Pillow's decoding.

    - The transparent colour of a PNG has the depth of the file; Pillow compares it with 8 bits.
    - Grey of more than 8 bits in a TIFF may have 0 as white, and 12 bits in 16.
    """
    stored = opened.tile[0].args if opened.format == "PNG" and opened.tile else None
    opened.load()
    key = opened.info.get("transparency")
    if stored in SCALES and isinstance(key, int):
        opened.info["transparency"] = key * SCALES[stored]
    if stored == "RGB;16B" and key is not None:
        return _without(opened, source, key)
    deep = opened.mode == "F" or opened.mode.startswith("I;16")
    if deep and isinstance(opened, TiffImageFile):
        return _white_last(opened)
    return opened


def _without(
    high: ImageFile.ImageFile, source: Path | io.BytesIO, key: tuple[int, ...]
) -> Image.Image:
    """A PNG of 16-bit colours with its transparent colour, compared in all 16 bits."""
    with Image.open(source, formats=["PNG"]) as low:
        low.tile = [low.tile[0]._replace(args="RGB;16L")]  # the other byte of each sample
        low.load()
    samples = np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)
    opaque = (samples != np.array(key)).any(-1)
    del high.info["transparency"]
    high.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return high


def _white_last(opened: TiffImageFile) -> Image.Image:
    """Grey of a TIFF with 0 as black and 65535 (or 1 in floating point) as white."""
    bits, inverted = opened.tag_v2[BITSPERSAMPLE][0], opened.tag_v2[PHOTOMETRIC_INTERPRETATION] == 0
    floating = opened.mode == "F"
    if not inverted and (floating or bits == 16):
        return opened
    white = 1.0 if floating else 65535.0
    samples = np.asarray(opened, dtype=np.float64) * (1.0 if floating else white / (2**bits - 1))
    samples = white - samples if inverted else samples
    plain = Image.fromarray(samples.astype(np.float32 if floating else np.uint16))
    plain.info = opened.info
    return plain


@contextmanager
def _long_texts() -> Iterator[None]:
    """Allow one compressed text of a PNG the length that Pillow allows all of them together."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = before
