"""Runs the experiment: compares the exact distribution of guided flows with the tilted density."""

from dataclasses import replace
from typing import Any

from tqdm import tqdm

from experiments.guidance_truth import Config, figures, measure
from experiments.guidance_truth.measure import CAP, GuidedFlow, NodeDensity
from experiments.output.result import Heading, Measurement, Result, estimated, integrating, table

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
    variants = (config.interval, config.share, config.longest, config.ground)
    settings = measure.Settings(*variants, config.nodes, 10.0**-config.digits)
    finer = replace(settings, tolerance=settings.tolerance / 100)
    finest = replace(settings, tolerance=FINEST)
    scales = tuple(sorted(set(config.scales)))
    both = (measure.LINE, measure.PLANE)
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
        table(
            (flow for flow in flows if flow.scale == config.shown),
            {
                "test problem": lambda flow: flow.problem,
                "variant": lambda flow: flow.method,
                "KL to tilted": lambda flow: f"{flow.to_tilted:.3f}",
                "KL to conditional": lambda flow: f"{flow.to_conditional:.3f}",
                "near mode": lambda flow: f"{flow.modes[0]:.4f}",
                "near mode, tilted": lambda flow: f"{flow.tilted_modes[0]:.3f}",
                "best exponent": lambda flow: (
                    f"{flow.nearest:.1f}" if flow.nearest < 0.99 * CAP else f"> {CAP:g}"
                ),
                "KL at best exponent": lambda flow: f"{flow.to_nearest:.3f}",
            },
            f"At w = {config.shown:g}: KL in nats from the guided distribution, and the "
            "probability of the near mode, which is 0.5 under the conditional density. Best "
            "exponent: that of the tilted density of the least KL.",
        ),
    )
    record: dict[str, Any] = {"settings": config, "distributions": flows, "gaussians": exact}
    title = "The distribution that guidance samples"
    rows = _rows(flows, config.shown, free, again, [one[-1] for one in exact])
    return Result("guidance-truth", title, rows, parts, record)


def _rows(
    flows: list[GuidedFlow], scale: float, free: list[float], finer: GuidedFlow, by_ode: list[float]
) -> tuple[Measurement, ...]:
    """What each variant samples in the plane at one scale, and checks of the distributions."""
    own = [flow for flow in flows if flow.problem == "plane" and flow.scale == scale]
    (plain,) = (flow for flow in own if flow.method == "cfg")
    ends = [*free, *(flow.to_conditional for flow in flows if flow.scale == 1)]
    return (
        *(
            estimated(
                "guidance-truth" if flow is plain else f"guidance-truth-{flow.method}",
                f"KL in nats from the distribution of {flow.method} to the tilted density at w = "
                f"{scale:g} in the plane; probability of the near mode {flow.modes[0]:.3f}, of the "
                f"tilted density {flow.tilted_modes[0]:.3f}",
                flow.to_tilted,
            )
            for flow in own
        ),
        estimated(
            "guidance-truth-ends",
            "At w = 1 guidance samples the conditional density, at w = 0 the unconditional one. "
            f"Largest KL in nats, at most {SAME:g}",
            max(map(abs, ends)),
            most=SAME,
        ),
        integrating("guidance-truth-mass", [flow.mass for flow in flows], WHOLE),
        estimated(
            "guidance-truth-tolerance",
            "Relative change of the KL of cfg in the plane at a hundredth of the ODE's tolerance, "
            f"at most {FINE:g}",
            abs(finer.to_tilted / plain.to_tilted - 1),
            most=FINE,
        ),
        estimated(
            "guidance-truth-gaussian",
            "For two Gaussians the guided distribution has a closed form, with the variance "
            "v_u^(1-w) v_c^w. Largest KL in nats from the density by the ODE over w, at most "
            f"{SAME:g}",
            max(map(abs, by_ode)),
            most=SAME,
        ),
    )
