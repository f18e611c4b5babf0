"""Runs the experiment: compares the exact distribution of guided flows with the tilted density."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from experiments.guidance_truth import Config, figures, measure
from experiments.guidance_truth.measure import CAP, GuidedFlow, NodeDensity
from experiments.output.result import Heading, Measurement, Result, Table, estimated, within

SAME = 1e-6
"""Largest KL in nats between equal distributions."""
WHOLE = 1e-2
"""Largest difference of the integral of a density from 1; usually it is 100 times less."""
FINE = 1e-3
"""Largest relative change of a KL at a hundredth of the tolerance."""
FINEST = 1e-7
"""The ODE's tolerance where a distribution is compared with its exact form."""


def run(config: Config) -> Result:
    """The distribution of every variant at every scale, on both test problems."""
    settings = measure.Settings(
        config.interval,
        config.share,
        config.longest,
        config.ground,
        config.nodes,
        10.0**-config.digits,
    )
    finer = replace(settings, tolerance=settings.tolerance / 100)
    finest = replace(settings, tolerance=FINEST)
    scales = tuple(sorted(set(config.scales)))
    both = (measure.line(), measure.plane())
    found: list[tuple[GuidedFlow, NodeDensity]] = []
    free = []
    for problem in tqdm(both, unit="problem", disable=None):
        off, own = measure.ends(problem, finest)
        free.append(off)
        every = [(name, w) for name in measure.METHODS for w in scales]
        found += [own, *measure.flows(problem, every, settings)]
    ((again, _),) = measure.flows(both[1], [("cfg", config.shown)], finer)
    flows = [flow for flow, _ in found]
    exact = measure.gaussians((0.0, 1.0, *scales), finest)
    shown = [one for one in found if one[0].scale == config.shown]
    rows = (
        *_measured(flows, config.shown),
        _ends_row(flows, free),
        _mass_row(flows),
        _tolerance_row(_one(flows, "plane", "cfg", config.shown), again),
        _gaussian_row(exact),
    )
    parts = (
        "Guidance follows the score of p(x) p(c|x)^w at every noise level; w = 1 is the "
        "conditional model. It is often said to sample that tilted density. Both densities are "
        "computed here: the tilted one, and the one that the guided flow makes of pure noise.",
        Heading("In the plane"),
        figures.plane(both[1], shown, config.shown),
        Heading("On a line"),
        figures.line(both[0], shown, config.shown),
        Heading("Guidance scale and distance from the tilted density"),
        figures.curves(flows, "plane"),
        figures.curves(flows, "line"),
        Heading("One Gaussian, in closed form"),
        figures.gaussians(exact),
        _table(flows, config.shown),
    )
    record: dict[str, Any] = {"settings": config, "distributions": flows, "gaussians": exact}
    title = "The distribution that guidance samples"
    return Result("guidance-truth", title, rows, parts, record)


def _one(flows: Sequence[GuidedFlow], problem: str, method: str, scale: float) -> GuidedFlow:
    (flow,) = (o for o in flows if (o.problem, o.method, o.scale) == (problem, method, scale))
    return flow


def _measured(flows: Sequence[GuidedFlow], scale: float) -> list[Measurement]:
    """What each variant samples in the plane at one scale."""
    rows = []
    for flow in flows:
        if flow.problem != "plane" or flow.scale != scale:
            continue
        name = "guidance-truth" if flow.method == "cfg" else f"guidance-truth-{flow.method}"
        claim = (
            f"KL in nats from the distribution of {flow.method} to the tilted density at w = "
            f"{scale:g} in the plane; probability of the near mode {flow.modes[0]:.3f}, of the "
            f"tilted density {flow.tilted_modes[0]:.3f}"
        )
        rows.append(estimated(name, claim, flow.to_tilted))
    return rows


def _ends_row(flows: Sequence[GuidedFlow], free: Sequence[float]) -> Measurement:
    """At w = 0 and 1 the guided flow is the unconditional and the conditional flow."""
    off = max(map(abs, [*free, *(flow.to_conditional for flow in flows if flow.scale == 1)]))
    claim = (
        "At w = 1 guidance samples the conditional density, at w = 0 the unconditional one. "
        f"Largest KL in nats, at most {SAME:g}"
    )
    return within("guidance-truth-ends", claim, off, SAME)


def _mass_row(flows: Sequence[GuidedFlow]) -> Measurement:
    off = max(abs(flow.mass - 1) for flow in flows)
    claim = (
        f"Each of {len(flows)} densities integrates to 1 over its nodes. Largest difference, at "
        f"most {WHOLE:g}"
    )
    return within("guidance-truth-mass", claim, off, WHOLE)


def _tolerance_row(flow: GuidedFlow, finer: GuidedFlow) -> Measurement:
    off = abs(finer.to_tilted / flow.to_tilted - 1)
    claim = (
        "Relative change of the KL of cfg in the plane at a hundredth of the ODE's tolerance, at "
        f"most {FINE:g}"
    )
    return within("guidance-truth-tolerance", claim, off, FINE)


def _gaussian_row(exact: Sequence[tuple[float, ...]]) -> Measurement:
    off = max(abs(one[-1]) for one in exact)
    claim = (
        "For two Gaussians the guided distribution has a closed form, with the variance "
        f"v_u^(1-w) v_c^w. Largest KL in nats from the density by the ODE over w, at most {SAME:g}"
    )
    return within("guidance-truth-gaussian", claim, off, SAME)


def _table(flows: Sequence[GuidedFlow], scale: float) -> Table:
    header = ("test problem", "variant", "KL to tilted", "KL to conditional", "near mode",
              "near mode, tilted", "best exponent", "KL at best exponent")  # fmt: skip
    lines = tuple(
        (
            flow.problem,
            flow.method,
            f"{flow.to_tilted:.3f}",
            f"{flow.to_conditional:.3f}",
            f"{flow.modes[0]:.4f}",
            f"{flow.tilted_modes[0]:.3f}",
            f"{flow.nearest:.1f}" if flow.nearest < 0.99 * CAP else f"> {CAP:g}",
            f"{flow.to_nearest:.3f}",
        )
        for flow in flows
        if flow.scale == scale
    )
    caption = (
        f"At w = {scale:g}: KL in nats from the guided distribution, and the probability of the "
        "near mode, which is 0.5 under the conditional density. Best exponent: that of the tilted "
        "density of the least KL."
    )
    return Table(header, lines, caption)
