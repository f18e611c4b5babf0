"""Figures one after another, as an animated GIF."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from experiments.plots import STYLE

Frame = npt.NDArray[np.uint8]
"""One image of an animation, `(height, width, 3)`."""

DPI = 80


def frame(figure: Figure) -> Frame:
    """The figure's pixels. All frames of one animation must come from figures of one size."""
    with rc_context(STYLE):
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def gif(frames: Iterable[Frame], seconds: float, hold: float = 1.5) -> bytes:
    """An animated GIF that plays in `seconds` without end; its last frame stays `hold` longer.

    All frames share one palette of 128 colors, taken from the first, middle and last, so that
    what does not move does not flicker. Raises ValueError for fewer than two frames.
    """
    shown: Sequence[Frame] = list(frames)
    if len(shown) < 2:
        raise ValueError(f"frames: wanted at least 2, got {len(shown)}")
    ends = Image.fromarray(np.concatenate([shown[0], shown[len(shown) // 2], shown[-1]]))
    palette = ends.quantize(128, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(one).quantize(palette=palette, dither=Image.Dither.NONE) for one in shown
    ]
    each = max(20, round(1000 * seconds / len(shown)))
    durations = [each] * (len(shown) - 1) + [each + round(1000 * hold)]
    buffer = io.BytesIO()
    moving = {"save_all": True, "append_images": images[1:], "duration": durations, "loop": 0}
    images[0].save(buffer, "GIF", optimize=True, **moving)
    return buffer.getvalue()
