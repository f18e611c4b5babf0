"""The figures of `experiments.inpainting.run`."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from experiments import plots
from experiments.inpainting.measure import EXACT, Curves, ExactDensity, SampledKL
from experiments.output.result import Figure
from experiments.plots import BLUE, GRAY, GREEN, ORANGE
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.plots.plane import BLACK

FLOOR = 1e-5
"""The least KL that is drawn."""


def densities(
    curves: Mapping[str, Curves], ends: Mapping[str, Mapping[str, Tensor]], shown: int
) -> Figure:
    """The target, replacement and RePaint on each problem, and a histogram of particles."""
    charts = []
    for name, (nodes, target, found) in curves.items():
        u = nodes.x[:, 0]
        near = (target > -12) | (found[1] > -7)
        method = [one for one in ends[name] if one.startswith("SMCDiff")][-1]
        heights, edges = np.histogram(
            ends[name][method].numpy(), 50, (float(u[near][0]), float(u[near][-1])), density=True
        )
        lines = [
            Series(method, edges, heights, color="#b7dfcf", style="bars", marker=""),
            _curve("exact conditional", u[near], target[near].exp(), BLACK, "--"),
            _curve("replacement", u[near], found[1][near].exp(), ORANGE, "-"),
            _curve(f"RePaint, U = {shown}", u[near], found[shown][near].exp(), BLUE, "-"),
        ]
        charts.append(Chart(name, Axis("unknown coordinate $u$"), Axis("density", 0), lines))
    return Figure(
        "inpainting-densities.png",
        plots.png(side_by_side(charts, 5.4, legend_columns=4)),
        "Density of the unknown coordinate on three test problems. Dashed: the exact conditional "
        "distribution. Replacement and RePaint are computed with exact reverse kernels; SMCDiff is "
        "a histogram of samples with DDPM's steps. Replacement is too wide and too near to the "
        "mean of all data, or has probability in a mode that the known coordinate excludes. "
        f"RePaint with U = {shown} has a lower error.",
        "Three charts of densities: replacement differs from the dashed exact one, RePaint less.",
    )


def _curve(label: str, x: Tensor, y: Tensor, color: str, style: str) -> Series:
    return Series(label, x.tolist(), y.tolist(), color=color, style=style, marker="")


def kl(exact: Sequence[ExactDensity], sampled: Sequence[SampledKL]) -> Figure:
    """KL against the evaluations for one independent sample."""
    charts = []
    for name in dict.fromkeys(one.problem for one in exact):
        own = [one for one in exact if one.problem == name]
        smc = [one for one in sampled if one.problem == name and one.method.startswith("SMCDiff")]
        (floor,) = (one for one in sampled if one.problem == name and one.method == EXACT)
        nfe = [one.steps * one.repeats for one in own]
        wide = [min(nfe), max(one.nfe for one in smc)]
        series = [
            Series("replacement (U = 1) and RePaint, exact kernels", nfe,
                   [max(one.kl, FLOOR) for one in own], color=BLUE),
            Series("SMCDiff, DDPM steps", [one.nfe for one in smc],
                   [max(one.kl, FLOOR) for one in smc],
                   [tuple(max(end, FLOOR) for end in one.interval) for one in smc], GREEN),
            Series(f"DDPM steps, {EXACT}", wide, [max(floor.kl, FLOOR)] * 2, color=GRAY,
                   style="--", marker=""),
        ]  # fmt: skip
        x = Axis("NFE for one independent sample", scale="log")
        charts.append(Chart(name, x, Axis("KL (nats)", scale="log"), series))
    return Figure(
        "inpainting-kl.png",
        plots.png(side_by_side(charts, 5.4, legend_columns=3)),
        "KL (nats) to the exact conditional distribution against the number of function "
        "evaluations for one independent sample, both axes logarithmic. From left to right, "
        "RePaint's U and SMCDiff's number of particles grow; bars are 95% intervals. The dashed "
        "line is DDPM with the exact conditional denoiser: the error of DDPM's steps alone. "
        f"Values below {FLOOR:g} are drawn there.",
        "Three charts of KL against evaluations: RePaint falls with U, SMCDiff to a dashed level.",
    )
