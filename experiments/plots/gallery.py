"""Images in rows with labels, texts and colored frames; and bars made of parts."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.plots import COLORS, RIGHT, WRONG, styled


@styled
def image_rows(
    images: Sequence[Sequence[Any]],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    verdicts: Sequence[Sequence[bool | None]] | None = None,
    side: float = 1.45,
    texts: Sequence[Sequence[str]] = (),
) -> Figure:
    """Images in rows, a label on each row and column, a colored frame where there is a verdict.

    Pixels are shown as they are, without smoothing. A row may have `None` for no image. texts: one
    below each image.
    """
    wide, high = max(len(row) for row in images), len(images)
    size = side * wide + 1.6 * bool(rows), high * (1.06 * side + 0.45 * bool(texts)) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False)
    _fill(grid, images, verdicts)
    for line, below in zip(grid, texts, strict=False):
        for axes, text in zip(line, below, strict=False):
            axes.set_xlabel(textwrap.fill(text, 26), fontsize=10.5, labelpad=6, linespacing=1.3)
    for axes, text in zip(grid[0], columns, strict=False):
        axes.set_title(text, fontsize=12, fontweight="normal", loc="center", pad=7)
    for axes, text in zip(grid[:, 0], rows, strict=bool(rows)):
        axes.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=12)
    if title:
        text = textwrap.fill(title, int(9 * figure.get_figwidth()))
        figure.suptitle(text, fontsize=14, fontweight="bold", x=0.01, ha="left")
    return figure


@styled
def stacked_bars(
    labels: Sequence[str], parts: dict[str, Sequence[float]], x_label: str, title: str
) -> Figure:
    """Horizontal bars, one a label, each made of the same parts; the total is written behind."""
    figure = Figure(figsize=(10, 1.5 + 0.62 * len(labels)), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(labels))
    for (name, values), color in zip(parts.items(), COLORS, strict=False):
        axes.barh(labels, values, left=start, color=color, label=name, height=0.6)
        start = start + np.asarray(values, dtype=float)
    for y, total in enumerate(start):
        text = f"{total:,.0f} ms" if total >= 10 else f"{total:.2g} ms"
        axes.annotate(text, (total, y), (6, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.set(xlabel=x_label, ylabel="device, precision", xlim=(0, 1.15 * start.max()))
    axes.set_title(title, pad=38)
    axes.grid(False, axis="y")
    axes.legend(ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return figure


def _fill(
    grid: Any, images: Sequence[Sequence[Any]], verdicts: Sequence[Sequence[bool | None]] | None
) -> None:
    """Each image in the frame of its verdict; where there is no image, nothing but labels."""
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            if image is not None:
                verdict = verdicts[i][j] if verdicts else None
                color = {True: RIGHT, False: WRONG, None: "#bbbbbb"}[verdict]
                grid[i][j].imshow(np.asarray(image), interpolation="nearest")
                frame = {"visible": True, "linewidth": 1.0 if verdict is None else 3.0}
                grid[i][j].spines[:].set(color=color, **frame)
