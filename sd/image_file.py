"""Image files: the one place that opens them, by their content, raster formats only, bounded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from sd.regular import regular

__all__ = ["FORMATS", "load"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Pillow's names of what is read: pixels only. Pillow knows formats that a program interprets too
(EPS starts Ghostscript), and some that nobody has."""

MOST_PIXELS = 10**8
"""Of an image: 10,000 x 10,000."""

MOST_BYTES = 2**30
"""Of a file; above 8 bytes for each of `MOST_PIXELS`."""


def load(file: Path | str | bytes, option: str = "image") -> Image.Image:
    """The image in a file, decoded as it is stored, with what the file says of it in `info`.

    The content decides which format it is, never the name. The size is checked before any pixel is
    decoded; texts of a PNG may take 64 MiB together.

    Args:
        file: its path, or its content.
        option: begins the messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no whole image in one of `FORMATS`, or one above `MOST_PIXELS`.
    """
    named = option if isinstance(file, bytes) else f"{option} {file}"
    source = io.BytesIO(file) if isinstance(file, bytes) else regular(file, option, MOST_BYTES)
    try:
        with warnings.catch_warnings(), _long_texts():
            # The limit here is `MOST_PIXELS`, which lies above that of Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    size = f"{opened.width} x {opened.height} pixels, more than {MOST_PIXELS}"
                    raise ValueError(size)
                opened.load()
                return opened
    except UnidentifiedImageError as error:
        raise ValueError(f"{named} is no image in a format of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise whatever their format's library does
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{named} cannot be read: {reason}") from error


@contextmanager
def _long_texts() -> Iterator[None]:
    """Let one compressed text of a PNG be as long as Pillow lets all of them be together."""
    before = PngImagePlugin.MAX_TEXT_CHUNK
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = before
