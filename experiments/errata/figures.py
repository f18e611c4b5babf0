"""The errata's figures: orange is the printed form, blue the true one, dark what is measured."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from experiments.plots import BLUE, GRAY, GREEN, ORANGE
from experiments.plots.charts import Note, Numbers, Series, dots, line

COLORS = {
    "true": BLUE, "printed": ORANGE, "other": GREEN, "measured": "#222222", "mark": GRAY,
}  # fmt: skip
TINTS = {"printed": "#f3c8ab", "measured": "#d4d9dd"}
STYLES = {"line": "-", "dashed": "--", "dotted": ":"}


def mark(
    role: str,
    label: str,
    x: Numbers,
    y: Numbers,
    kind: Literal["line", "dashed", "dotted", "points", "cloud", "bars"] = "line",
    ends: Sequence[tuple[float, float]] | None = None,
) -> Series:
    """A series in the color of its role; a curve of few points shows them."""
    ink = COLORS[role]
    if kind == "bars":
        return Series(label, x, y, color=TINTS[role], style="bars")
    if kind == "cloud":
        return Series(label, x, y, color=ink, style="", size=5.0, alpha=0.6)
    if kind == "points":
        return dots(label, x, y, ends, ink, size=7.5)
    if 2 < len(x) < 16:  # there is nothing between whole steps
        return Series(label, x, y, color=ink, style=STYLES[kind])
    return line(label, x, y, ink, STYLES[kind])


def histogram(role: str, label: str, samples: Tensor, low: float, high: float, bins: int) -> Series:
    """The density of the samples in equal bins; those outside [low, high] count in its area."""
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    heights = torch.histogram(samples, edges).hist / len(samples) / (edges[1] - edges[0])
    return mark(role, label, edges, heights, "bars")


def note(
    text: str, x: float, y: float, role: str = "mark", ha: str = "left", va: str = "bottom"
) -> Note:
    """A text in the color of its role."""
    return Note(text, x, y, COLORS[role] if role != "mark" else "#555555", ha, va)
