"""The difference of one trajectory between two devices, or between two precisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from experiments import plots
from experiments.common.model import distance
from experiments.output.result import Figure, Measurement, Part, estimated, table
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from sd.pipeline import TextToImage


@dataclass(frozen=True)
class Trajectory:
    """An image and its trajectory: the time and x_t (float64, CPU) of each state."""

    label: str
    t: tuple[float, ...]
    x: tuple[Tensor, ...]
    picture: Image


@dataclass(frozen=True)
class Drift:
    """The difference of a trajectory x from a reference y of the same noise, after each step.

    largest: max |x_t - y_t|; relative: |x_t - y_t| / |y_t|, Euclidean norms; levels: the root mean
    square difference of the images' pixels, of 0..255.
    """

    label: str
    reference: str
    t: tuple[float, ...]
    largest: tuple[float, ...]
    relative: tuple[float, ...]
    levels: float


def trajectory(label: str, pipeline: TextToImage, prompt: str, **call: Any) -> Trajectory:
    """The trajectory of seed 0; its noise is the same on every device and in every precision."""
    t: list[float] = []
    x: list[Tensor] = []

    def watch(state: Any) -> None:
        t.append(float(state.t))
        x.append(state.x.detach().to("cpu", torch.float64))

    (picture,) = pipeline(prompt, seed=0, progress=False, watch=watch, **call)
    return Trajectory(label, tuple(t), tuple(x), picture)


def drift(one: Trajectory, reference: Trajectory) -> Drift:
    """The differences after each step; the start, which is the same, is left out."""
    pairs = list(zip(one.x, reference.x, strict=True))[1:]
    largest = tuple(float((x - y).abs().max()) for x, y in pairs)
    relative = tuple(float((x - y).norm() / y.norm()) for x, y in pairs)
    levels = distance(one.picture, reference.picture)
    return Drift(one.label, reference.label, one.t[1:], largest, relative, levels)


def rows(found: Sequence[Drift]) -> tuple[Measurement, ...]:
    """The relative difference at the end of each trajectory."""
    return tuple(
        estimated(
            f"timing-drift-{one.label.replace(', ', '-')}",
            f"Relative RMS difference of the final latents on {one.label} from those on "
            f"{one.reference}, after {len(one.t)} steps from the same noise",
            one.relative[-1],
        )
        for one in found
    )


def parts(found: Sequence[Drift]) -> tuple[Part, ...]:
    """The chart of the difference against the step, and the table of its values."""
    if not found:
        return ()
    reference = found[0].reference
    lines = [
        Series(one.label, range(1, len(one.t) + 1), one.relative)
        for one in found
        if min(one.relative) > 0  # a logarithmic axis has no 0: equal trajectories are left out
    ]
    title = f"Difference from {reference}"
    title = f"{found[0].label}: {title[0].lower()}{title[1:]}" if len(found) == 1 else title
    panel = Chart(title, Axis("step"), Axis("relative RMS difference of x_t", scale="log"), lines)
    chart = Figure(
        "timing-apart.png",
        plots.png(side_by_side([panel], 6.2)),
        f"Relative RMS difference of the latents from those on {reference}, after each step from "
        "the same noise (logarithmic axis). It shows the effect of rounding.",
        "Relative difference against the step, a line for each device and precision.",
    )
    values = table(
        found,
        {
            "device, precision": lambda one: one.label,
            "first step": lambda one: f"{one.relative[0]:.2g}",
            "last step": lambda one: f"{one.relative[-1]:.2g}",
            "largest entry": lambda one: f"{one.largest[-1]:.2g}",
            "image": lambda one: f"{one.levels:.2g} of 255",
        },
        f"Differences from {reference}: |x - y| / |y| of the latents after the first and the last "
        "step, the largest entry of |x - y| at the end, and the RMS difference of the pixels.",
    )
    return (chart, values) if lines else (values,)
