"""How far one picture's walk comes apart on two devices, or in two precisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from experiments import plots
from experiments.common.model import distance
from experiments.output.result import Figure, Measurement, Table, estimated
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from sd.pipeline import TextToImage

__all__ = ["Apart", "Walk", "drift", "parts", "rows", "walk"]


@dataclass(frozen=True)
class Walk:
    """A picture and the latents that led to it: the time and x_t (float64, CPU) of each state."""

    label: str
    t: tuple[float, ...]
    x: tuple[Tensor, ...]
    picture: Image


@dataclass(frozen=True)
class Apart:
    """A walk x beside a reference y from the same noise, after each step.

    largest: max |x_t - y_t|; relative: |x_t - y_t| / |y_t|, Euclidean norms; levels: the root mean
    square difference of the pictures' pixels, of 0..255.
    """

    label: str
    reference: str
    t: tuple[float, ...]
    largest: tuple[float, ...]
    relative: tuple[float, ...]
    levels: float


def walk(label: str, pipeline: TextToImage, prompt: str, **call: Any) -> Walk:
    """One picture of seed 0; its noise is the same on every device and in every precision."""
    t: list[float] = []
    x: list[Tensor] = []

    def watch(state: Any) -> None:
        t.append(float(state.t))
        x.append(state.x.detach().to("cpu", torch.float64))

    (picture,) = pipeline(prompt, seed=0, progress=False, watch=watch, **call)
    return Walk(label, tuple(t), tuple(x), picture)


def drift(one: Walk, reference: Walk) -> Apart:
    """The differences after each step; the start, which is the same, is left out."""
    pairs = list(zip(one.x, reference.x, strict=True))[1:]
    return Apart(
        one.label,
        reference.label,
        one.t[1:],
        tuple(float((x - y).abs().max()) for x, y in pairs),
        tuple(float((x - y).norm() / y.norm()) for x, y in pairs),
        distance(one.picture, reference.picture),
    )


def rows(found: Sequence[Apart]) -> tuple[Measurement, ...]:
    """The relative difference at the end of each walk."""
    return tuple(
        estimated(
            f"timing-apart-{one.label.replace(', ', '-')}",
            f"relative RMS difference of the last latents on {one.label} from those on "
            f"{one.reference}, {len(one.t)} steps from the same noise",
            one.relative[-1],
        )
        for one in found
    )


def parts(found: Sequence[Apart]) -> tuple[Figure | Table, ...]:
    """A line for each walk over its steps, and the numbers at its ends."""
    if not found:
        return ()
    reference = found[0].reference
    lines = [
        Series(one.label, range(1, len(one.t) + 1), one.relative)
        for one in found
        if min(one.relative) > 0  # a walk that agrees to the bit has no place on a logarithmic axis
    ]
    title = f"Latents on {found[0].label if len(found) == 1 else 'each'}, and on {reference}"
    panel = Chart(title, Axis("step"), Axis("relative RMS difference", scale="log"), lines)
    caption = (
        f"The same picture drawn from the same noise on {reference} and in other ways: what "
        "rounding does to the latents, step by step."
    )
    drawn = Figure(
        "timing-apart.png",
        plots.png(side_by_side([panel], 6.2)),
        caption,
        "Lines of relative difference over steps, one for each device and precision.",
    )
    header = ("device, precision", "after one step", "after the last", "largest", "picture")
    cells = tuple(
        (
            one.label,
            *(f"{value:.2g}" for value in (one.relative[0], one.relative[-1], one.largest[-1])),
            f"{one.levels:.2g} of 255",
        )
        for one in found
    )
    told = (
        f"Differences from {reference}: |x - y| / |y| of the latents after one step and after the "
        "last, the largest of one number at the end, and the root mean square of the pixels'."
    )
    return (*((drawn,) if lines else ()), Table(header, cells, told))
