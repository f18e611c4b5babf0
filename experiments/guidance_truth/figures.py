"""The pictures of `experiments.guidance_truth.run`."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments import plots
from experiments.guidance_truth.measure import (
    LABEL,
    METHODS,
    SCHEDULE,
    Drawn,
    GuidanceProblem,
    Law,
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


INK = {
    "tilted": (BLACK, "--"),
    "conditional": (GRAY, ":"),
    "cfg": (ORANGE, "-"),
    "interval": (BLUE, "-"),
    "cosine": (GREEN, "-."),
    "rescaled": (PURPLE, "-"),
    "projected": ("#c79a00", "-"),
}
"""Colour and stroke of a density, one in all figures."""


def _chart(
    title: str,
    x: Axis,
    y: Axis,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    points: bool = True,
) -> Chart:
    """Curves `name -> (x, y)` in the ink of `INK`, with their points where these are few."""
    series = []
    for name, (at, values) in curves.items():
        color, style = INK[name]
        marker = "o" if points and style in ("-", "-.") else ""
        series.append(Series(NAMES[name], at, values, None, color, style, marker, size=5.5))
    return Chart(title, x, y, series)


def plane(world: GuidanceProblem, shown: Sequence[tuple[Law, Drawn]], scale: float) -> Figure:
    """The densities of the plane side by side."""
    wide = world.wide(160)
    log_p = world.data.given(LABEL).log_density(SCHEDULE, wide.x, 0)
    log_all = world.data.mixture.log_density(SCHEDULE, wide.x, 0)
    panels = [
        Spread("all data, $p(x)$", wide.x.numpy(), log_all.exp().numpy(), ""),
        Spread("conditional, w = 1", wide.x.numpy(), log_p.exp().numpy(), _near(0.5)),
    ]
    log_t = log_tilted(world, scale, wide.x)
    near = tilted_modes(world, scale)[0]
    panels.append(
        Spread(f"tilted, w = {scale:g}", wide.x.numpy(), log_t.exp().numpy(), _near(near))
    )
    for law, drawn in shown:
        if law.world != "plane":
            continue
        text = f"{_near(law.modes[0])}\nKL to tilted {law.to_tilted:.2f}"
        nodes, density = drawn.nodes.x.numpy(), drawn.log_density.exp().numpy()
        panels.append(Spread(NAMES[law.method], nodes, density, text))
    means = world.data.mixture.means.numpy()
    reach = [(float(low) - 2.2, float(high) + 2.2) for low, high in zip(
        means.min(0), means.max(0), strict=True)]  # fmt: skip
    lines = [np.linspace(low, high, 120) for low, high in reach]
    mesh = np.stack(np.meshgrid(*lines), axis=-1)
    apart = ((mesh - means[0]) ** 2).sum(-1) / float(world.data.mixture.covariances[0])
    figure = density_maps(panels, (*lines, np.exp(-apart / 2)), means[1:], reach)
    return Figure(
        "guidance-truth-plane.png",
        plots.png(figure),
        "Shades enclose 25, 50, 70, 90 and 99% of the mass; gray contours are the other class, "
        f"crosses the two modes of the class asked for. The tilted density at w = {scale:g} keeps "
        "both modes and their width; the guided flow narrows them and leaves the one near the "
        "other class. Every density is exact.",
        "Maps of densities: both modes under the tilted density, mostly one under the guided flow.",
    )


def _near(weight: float) -> str:
    return f"near mode {100 * weight:.1f}%"


def line(world: GuidanceProblem, shown: Sequence[tuple[Law, Drawn]], scale: float) -> Figure:
    """The densities of the line over each other."""
    wide = world.wide(1200)
    inside = (wide.x[:, 0] > -2) & (wide.x[:, 0] < 6.5)
    x = wide.x[inside]
    known = world.data.given(LABEL).log_density(SCHEDULE, x, 0).exp().tolist()
    across = x[:, 0].tolist()
    first = {
        "conditional": (across, known),
        "tilted": (across, log_tilted(world, scale, x).exp().tolist()),
    }
    second = dict(first)
    for law, drawn in shown:
        if law.world == "line":
            curve = (drawn.nodes.x[:, 0].tolist(), drawn.log_density.exp().tolist())
            (first if law.method == "cfg" else second)[law.method] = curve
    figure = side_by_side(
        [
            _chart(f"Guidance at w = {scale:g}", Axis("$x$"), Axis("density"), first, False),
            _chart(f"Its variants at w = {scale:g}", Axis("$x$"), Axis("density"), second, False),
        ],
        6.4,
        legend_columns=4,
    )
    return Figure(
        "guidance-truth-line.png",
        plots.png(figure),
        "The class has modes at 1 and 3.5, the other class lies about -1. The tilted density "
        "(dashed) is a mild change of the conditional one (dotted). The guided flow puts all of "
        "its mass into a narrow peak at the far mode; the variants are less narrow.",
        "Curves of densities on the line: two broad peaks dashed, one narrow peak for guidance.",
    )


def curves(laws: Sequence[Law], world: str) -> Figure:
    """Distances and mode weights against w."""
    own = [law for law in laws if law.world == world and law.scale >= 1]
    (start,) = (law for law in own if law.scale == 1)
    of = {
        name: [start, *(law for law in own if law.method == name and law.scale > 1)]
        for name in METHODS
    }
    scales = [law.scale for law in of["cfg"]]
    distance = {
        name: (scales, [max(law.to_tilted, 0.0) for law in laws]) for name, laws in of.items()
    }
    away = {
        name: (scales, [max(law.to_conditional, 0.0) for law in laws]) for name, laws in of.items()
    }
    tilted = {"tilted": (scales, [100 * law.tilted_modes[0] for law in of["cfg"]])}
    near = {name: (scales, [100 * law.modes[0] for law in laws]) for name, laws in of.items()}
    w, nats = Axis("guidance scale $w$"), Axis("KL (nats)", 0)
    figure = side_by_side(
        [
            _chart("From the tilted density", w, nats, distance),
            _chart("From the conditional density", w, nats, away),
            _chart("Mass of the near mode", w, Axis("share (%)", 0, 55), {**tilted, **near}),
        ],
        5.4,
        legend_columns=4,
    )
    last = max(scales)
    ends = {name: laws[-1].to_tilted for name, laws in of.items()}
    nearest = min(ends, key=lambda name: ends[name])
    return Figure(
        f"guidance-truth-{world}-curves.png",
        plots.png(figure),
        f"{'On' if world == 'line' else 'In'} the {world}: no variant samples the tilted density "
        f"beyond w = 1. At w = {last:g} the guided flow is {ends['cfg']:.2f} nats from it, the "
        f"nearest variant ({NAMES[nearest]}) {ends[nearest]:.2f}; the mode near the other class "
        f"has {tilted['tilted'][1][-1]:.0f}% of the tilted density and {near['cfg'][1][-1]:.1f}% "
        "of what guidance samples.",
        "Three charts against the guidance scale: two distances that rise, a mode's mass falls.",
    )


def gaussians(exact: Sequence[tuple[float, float, float, float, float]]) -> Figure:
    """The standard deviations of two Gaussians' guided law and tilted density."""
    w = [one[0] for one in exact]
    widths = {
        "tilted": (w, [one[2] for one in exact]),
        "cfg": (w, [one[1] for one in exact]),
    }
    figure = side_by_side(
        [
            _chart("Two Gaussians in closed form", Axis("guidance scale $w$"),
                   Axis("standard deviation", scale="log"), widths),
        ],
        7.4,
        legend_columns=3,
    )  # fmt: skip
    return Figure(
        "guidance-truth-gaussians.png",
        plots.png(figure),
        "p(x) = N(0, 2) and p(x|c) = N(1, 1). The tilted variance falls as 2 / (1 + w), the "
        "guided flow's as 2^(1-w): exponentially. The mixtures' modes narrow likewise.",
        "Two falling curves on a logarithmic axis, the guided one a straight line.",
    )
