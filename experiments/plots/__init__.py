"""Every figure of the experiments in one style; the only package that imports matplotlib.

Functions return a `Figure` of matplotlib that belongs to no window and no global state; `png`
turns it into bytes.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from sd.files.image_file import open_image

Floats = npt.NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a8a8a"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, GRAY)
"""Distinct for the color-blind too (Okabe & Ito, and one of Tol's)."""

RIGHT, WRONG = GREEN, ORANGE

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 1.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150

styled = rc_context(STYLE)
"""The decorator of a function that draws under `STYLE`."""


def png(figure: Figure, colors: int | None = None) -> bytes:
    """The figure as a PNG file, trimmed to what is drawn.

    With `colors` it has no more than so many: lines and flat tints lose nothing, and it is small.
    """
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)
    if colors is None:
        return buffer.getvalue()
    image, small = open_image(buffer.getvalue()).convert("RGB"), io.BytesIO()
    image.quantize(colors, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()
