"""The figures of `experiments.guidance_truth.run`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments import plots
from experiments.guidance_truth.measure import (
    LABEL,
    METHODS,
    SCHEDULE,
    GuidanceProblem,
    GuidedFlow,
    NodeDensity,
    log_tilted,
    tilted_modes,
)
from experiments.output.result import Figure
from experiments.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.plots.plane import BLACK, Spread, density_maps

NAMES = {
    "tilted": "tilted density, $p(x)\\,p(c|x)^w / Z$",
    "conditional": "conditional density, $p(x|c)$",
    "cfg": "guided flow (CFG)",
    "interval": "limited interval",
    "cosine": "cosine weight",
    "rescaled": "rescaled",
    "projected": "projected (APG)",
}

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
INK = {
    "tilted": (BLACK, "--"),
    "conditional": (GRAY, ":"),
    "cfg": (ORANGE, "-"),
    "interval": (BLUE, "-"),
    "cosine": (GREEN, "-."),
    "rescaled": (PURPLE, "-"),
    "projected": ("#c79a00", "-"),
}
"""Color and line style of a density, the same in all figures."""


def _chart(title: str, x: Axis, y: Axis, curves: Curves, points: bool = True) -> Chart:
    """Curves `name -> (x, y)` in the colors of `INK`, with markers if `points`."""
    series = []
    for name, (at, values) in curves.items():
        color, style = INK[name]
        marker = "o" if points and style in ("-", "-.") else ""
        series.append(Series(NAMES[name], at, values, None, color, style, marker, size=5.5))
    return Chart(title, x, y, series)


def plane(
    problem: GuidanceProblem, shown: Sequence[tuple[GuidedFlow, NodeDensity]], scale: float
) -> Figure:
    """The densities of the plane side by side."""
    wide = problem.wide(160)
    log_p = problem.data.given(LABEL).log_density(SCHEDULE, wide.x, 0)
    log_all = problem.data.mixture.log_density(SCHEDULE, wide.x, 0)
    panels = [
        Spread("all data, $p(x)$", wide.x.numpy(), log_all.exp().numpy(), ""),
        Spread("conditional, w = 1", wide.x.numpy(), log_p.exp().numpy(), _near(0.5)),
    ]
    log_t = log_tilted(problem, scale, wide.x)
    near = tilted_modes(problem, scale)[0]
    title = f"tilted, w = {scale:g}"
    panels.append(Spread(title, wide.x.numpy(), log_t.exp().numpy(), _near(near)))
    for flow, (at, log_density) in shown:
        if flow.problem != "plane":
            continue
        text = f"{_near(flow.modes[0])}\nKL to tilted {flow.to_tilted:.2f}"
        panels.append(Spread(NAMES[flow.method], at.x.numpy(), log_density.exp().numpy(), text))
    means = problem.data.mixture.means.numpy()
    reach = [(float(low) - 2.2, float(high) + 2.2) for low, high in zip(
        means.min(0), means.max(0), strict=True)]  # fmt: skip
    lines = [np.linspace(low, high, 120) for low, high in reach]
    mesh = np.stack(np.meshgrid(*lines), axis=-1)
    apart = ((mesh - means[0]) ** 2).sum(-1) / float(problem.data.mixture.covariances[0])
    figure = density_maps(panels, (*lines, np.exp(-apart / 2)), means[1:], reach)
    return Figure(
        "guidance-truth-plane.png",
        plots.png(figure),
        "Densities in the plane. Shades enclose 25, 50, 70, 90 and 99% of the probability; gray "
        "contours are the other class, crosses the two modes of the condition's class. The tilted "
        f"density at w = {scale:g} keeps both modes and their width. The guided flow narrows them, "
        "and almost loses the mode near the other class.",
        "Maps of densities: both modes under the tilted density, mostly one under the guided flow.",
    )


def _near(weight: float) -> str:
    return f"near mode {100 * weight:.1f}%"


def line(
    problem: GuidanceProblem, shown: Sequence[tuple[GuidedFlow, NodeDensity]], scale: float
) -> Figure:
    """The densities of the line over each other."""
    wide = problem.wide(1200)
    inside = (wide.x[:, 0] > -2) & (wide.x[:, 0] < 6.5)
    x = wide.x[inside]
    conditional = problem.data.given(LABEL).log_density(SCHEDULE, x, 0).exp().tolist()
    across = x[:, 0].tolist()
    first = {
        "conditional": (across, conditional),
        "tilted": (across, log_tilted(problem, scale, x).exp().tolist()),
    }
    second = dict(first)
    for flow, (at, log_density) in shown:
        if flow.problem == "line":
            curve = (at.x[:, 0].tolist(), log_density.exp().tolist())
            (first if flow.method == "cfg" else second)[flow.method] = curve
    charts = [
        _chart(f"{what} at w = {scale:g}", Axis("$x$"), Axis("density"), lines, False)
        for what, lines in (("Guidance", first), ("Its variants", second))
    ]
    figure = side_by_side(charts, 6.4, legend_columns=4)
    return Figure(
        "guidance-truth-line.png",
        plots.png(figure),
        "Densities on the line. The condition's class has modes at 1 and 3.5, the other class one "
        "at -1. The tilted density (dashed) differs little from the conditional one (dotted). The "
        "guided flow puts its probability into a narrow peak at the far mode; the variants are "
        "less narrow.",
        "Curves of densities on the line: two broad peaks dashed, one narrow peak for guidance.",
    )


def curves(flows: Sequence[GuidedFlow], problem: str) -> Figure:
    """KL divergences and the probability of the near mode, against w."""
    own = [flow for flow in flows if flow.problem == problem and flow.scale >= 1]
    (start,) = (flow for flow in own if flow.scale == 1)
    of = {
        name: [start, *(flow for flow in own if flow.method == name and flow.scale > 1)]
        for name in METHODS
    }
    scales = [flow.scale for flow in of["cfg"]]

    def by_scale(value: Callable[[GuidedFlow], float]) -> Curves:
        return {name: (scales, [value(flow) for flow in flows]) for name, flows in of.items()}

    distance = by_scale(lambda flow: max(flow.to_tilted, 0.0))
    away = by_scale(lambda flow: max(flow.to_conditional, 0.0))
    tilted = {"tilted": (scales, [100 * flow.tilted_modes[0] for flow in of["cfg"]])}
    near = by_scale(lambda flow: 100 * flow.modes[0])
    w, nats = Axis("guidance scale $w$"), Axis("KL (nats)", 0)
    figure = side_by_side(
        [
            _chart("KL to the tilted density", w, nats, distance),
            _chart("KL to the conditional density", w, nats, away),
            _chart("Near mode", w, Axis("probability (%)", 0, 55), {**tilted, **near}),
        ],
        5.4,
        legend_columns=4,
    )
    last = max(scales)
    ends = {name: flows[-1].to_tilted for name, flows in of.items()}
    nearest = min(ends, key=lambda name: ends[name])
    return Figure(
        f"guidance-truth-{problem}-curves.png",
        plots.png(figure),
        f"{'On' if problem == 'line' else 'In'} the {problem}, against the guidance scale w: the "
        "KL (nats) of each variant to the tilted and to the conditional density, and the "
        "probability of the mode near the other class. No variant samples the tilted density for "
        f"w > 1. At w = {last:g} the KL to it is {ends['cfg']:.2f} for the guided flow, and at "
        f"least {ends[nearest]:.2f} ({NAMES[nearest]}). The near mode has "
        f"{tilted['tilted'][1][-1]:.0f}% under the tilted density, {near['cfg'][1][-1]:.1f}% under "
        "the guided flow.",
        "Three charts against the guidance scale: two KL that rise, a probability that falls.",
    )


def gaussians(exact: Sequence[tuple[float, float, float, float, float]]) -> Figure:
    """Standard deviations of the guided flow and of the tilted density of two Gaussians."""
    w = [one[0] for one in exact]
    widths = {"tilted": (w, [one[2] for one in exact]), "cfg": (w, [one[1] for one in exact])}
    deviation = Axis("standard deviation", scale="log")
    chart = _chart("Two Gaussians, closed form", Axis("guidance scale $w$"), deviation, widths)
    figure = side_by_side([chart], 7.4, legend_columns=3)
    return Figure(
        "guidance-truth-gaussians.png",
        plots.png(figure),
        "Standard deviation against the guidance scale w (logarithmic axis), for p(x) = N(0, 2) "
        "and p(x|c) = N(1, 1). The tilted variance is 2 / (1 + w); the guided variance is "
        "2^(1-w), which falls exponentially.",
        "Two falling curves on a logarithmic axis, the guided one a straight line.",
    )
