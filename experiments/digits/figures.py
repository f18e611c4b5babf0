"""The figures and the table of the experiment `digits`."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from torch import Tensor

from diffusion_math.metrics import Estimate
from experiments import plots
from experiments.common.statistics import mean_interval, share_of
from experiments.digits.data import Digits, image
from experiments.digits.loss_weights import DRAWN, Outcome
from experiments.output.result import Figure, Table
from experiments.plots import GRAY
from experiments.plots.charts import Axis, Chart, Series, estimates, line, side_by_side
from experiments.plots.gallery import image_rows


def digits(train: Digits, shown: dict[float, Tensor]) -> Figure:
    """Two of every class: of the training, and drawn at every scale."""
    both = [(train.labels == k).nonzero()[:2, 0] for k in range(10)]
    real = [train.x[at[min(i, len(at) - 1)]] for i in range(2) for at in both]
    images = [image(one) for x in (real, *shown.values()) for one in x]
    lines = [images[i : i + 10] for i in range(0, len(images), 10)]
    labels = [label for name in ("real", *(f"w = {w:g}" for w in shown)) for label in (name, "")]
    drawing = image_rows(lines, labels, [f"{k}" for k in range(10)], side=0.95)
    return Figure(
        "digits.png",
        plots.png(drawing),
        "Digits of the training data, and samples of the network for the labels on top, from the "
        "same noise at every guidance scale w, not selected. At w = 0 the label has no effect. A "
        "larger w gives clearer digits that are more alike.",
        "Rows of small images of digits: real ones, then samples at rising guidance.",
    )


def guidance(
    right: Mapping[float, Sequence[bool]], distances: Mapping[float, Estimate], real: Sequence[bool]
) -> Figure:
    """Agreement with the label, and distance from the data, against the scale."""
    scales, count = list(right), len(real)
    shares, ends = zip(*map(share_of, right.values()), strict=True)
    read = Series("", scales, 100 * np.array(shares), 100 * np.array(ends))
    distance = estimates("", scales, distances.values())
    bar = (100 * sum(real) / count, "real held-out digits")
    w = Axis("guidance scale w")
    panels = [
        Chart("Read as the label", w, Axis("share of samples (%)", 0, 112), [read],
              levels=[bar]),
        Chart("Distance from held-out digits", w, Axis("squared energy distance"), [distance],
              levels=[(0.0, "same distribution")]),
    ]  # fmt: skip
    return Figure(
        "digits-guidance.png",
        plots.png(side_by_side(panels, 6.2)),
        "Against the guidance scale w: the share of samples that the classifier reads as their "
        "label, and the squared energy distance from held-out digits (pixels in [-1, 1]). "
        f"{count} samples at each w, 95% intervals; w = 1 is no guidance. Guidance raises both.",
        "Two curves against the guidance scale: agreement rises and so does the distance.",
    )


def weights(outcomes: dict[str, list[Outcome]]) -> Figure:
    """What every seed's networks reached, under each weight."""
    names = [name if name != DRAWN else "variational,\nt by lambda" for name in outcomes]
    energy, agreement, bits = (
        [[getattr(one, of) for one in each] for each in outcomes.values()]
        for of in ("energy", "agreement", "bits")
    )
    bracketed = [[100 * one for one in each] for each in agreement]
    panels = [
        _pairs("Distance from held-out digits", "squared energy distance", names, energy),
        _pairs("Read as the label", "share of samples (%)", names, bracketed),
        _pairs("Bound, last step from t = 1", "bits per pixel", names, bits),
    ]
    return Figure(
        "digits-weights.png",
        plots.png(side_by_side(panels, 4.9)),
        f"Small networks, {len(next(iter(outcomes.values())))} for each loss weight, with equal "
        "budgets: sample quality (left, middle) and bound (right). A line joins networks of one "
        "seed, bars are means. The simple weight gives better samples than lambda_t. Times sampled "
        "in proportion to lambda_t give the same expected loss, up to a factor, without large "
        "weights. This is the fair comparison; DDPM reports shorter codes and worse images for it.",
        "Three panels of points, joined seed by seed, for three ways to train.",
    )


def _pairs(
    title: str, y_label: str, names: Sequence[str], values: Sequence[Sequence[float]]
) -> Chart:
    """What each seed reached in each way: points, joined where the seed is one, and their means."""
    at = range(len(values))
    series = [line("", at, one, GRAY, width=1.0) for one in zip(*values, strict=True)]
    for i, each in enumerate(values):
        series.append(Series("", [i] * len(each), each, color=i, style="", alpha=0.8))
        series.append(line("", [i - 0.22, i + 0.22], [fmean(each)] * 2, i))
    ways = Axis("", -0.5, len(values) - 0.5, ticks=at, names=names)
    return Chart(title, ways, Axis(y_label), series)


def codes(found: Mapping[str, Tensor]) -> Table:
    """Bits a pixel of every model."""
    lines = []
    for name, each in found.items():
        low, high = mean_interval(each.tolist())
        lines.append((name, f"{fmean(each.tolist()):.3f}", f"[{low:.3f}, {high:.3f}]"))
    caption = (
        "Bits a pixel of held-out digits, 17 levels, on average with Student's 95% interval over "
        "digits; those of diffusion and of the normal are upper bounds. The simple loss neglects "
        "the last steps, where a level is already plain to see and an exact code would pay "
        "nothing: a chain that leaves earlier for 0 is the better code."
    )
    return Table(("model", "bits a pixel", "interval"), tuple(lines), caption)
