"""Runs the experiment: compares the exact distribution of guided flows with the tilted density."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from experiments.guidance_truth import Config, figures
from experiments.guidance_truth import measure as worlds
from experiments.guidance_truth.measure import Drawn, Law
from experiments.output.result import Measurement, Result, Table, estimated, within

SAME = 1e-6
"""Nats of KL between laws that are one."""
WHOLE = 1e-2
"""What a law's mass may be off 1 by, at the default's nodes: 100 times less is usual."""
FINE = 1e-3
"""What a KL may change by, relatively, at a hundredth of the tolerance."""
FINEST = 1e-7
"""The ODE's tolerance where a law is compared with one that it must be."""
CAP = 50.0
"""No tilted density beyond this exponent is looked at."""


def run(config: Config) -> Result:
    """The law of every variant at every scale, in both worlds."""
    settings = worlds.Settings(
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
    both = (worlds.line(), worlds.plane())
    found: list[tuple[Law, Drawn]] = []
    free = []
    for world in tqdm(both, unit="world", disable=None):
        off, known = worlds.ends(world, finest)
        free.append(off)
        every = [(name, w) for name in worlds.METHODS for w in scales]
        found += [known, *worlds.laws(world, every, settings)]
    ((again, _),) = worlds.laws(both[1], [("cfg", config.shown)], finer)
    laws = [law for law, _ in found]
    exact = worlds.gaussians((0.0, 1.0, *scales), finest)
    shown = [one for one in found if one[0].scale == config.shown]
    rows = (
        *_measured(laws, config.shown),
        _ends_row(laws, free),
        _mass_row(laws),
        _tolerance_row(_one(laws, "plane", "cfg", config.shown), again),
        _gaussian_row(exact),
    )
    parts = (
        "Guidance follows the score of p(x) p(c|x)^w at every noise level, w = 1 being the "
        "conditional model, and is often said to sample that tilted density. Here both are known: "
        "the density that the guided flow really makes of pure noise, and the tilted one.",
        figures.plane(both[1], shown, config.shown),
        figures.line(both[0], shown, config.shown),
        figures.curves(laws, "plane"),
        figures.curves(laws, "line"),
        figures.gaussians(exact),
        _table(laws, config.shown),
    )
    record: dict[str, Any] = {"settings": config, "laws": laws, "gaussians": exact}
    title = "What guidance samples"
    return Result("guidance-truth", title, rows, parts, record)


def _one(laws: Sequence[Law], world: str, method: str, scale: float) -> Law:
    (law,) = (o for o in laws if (o.world, o.method, o.scale) == (world, method, scale))
    return law


def _measured(laws: Sequence[Law], scale: float) -> list[Measurement]:
    """What each variant samples in the plane at one scale."""
    rows = []
    for law in laws:
        if law.world != "plane" or law.scale != scale:
            continue
        bare = law.method == "cfg"
        rows.append(
            estimated(
                "guidance-truth" if bare else f"guidance-truth-{law.method}",
                f"KL from the law of {law.method} to the tilted density at w = {scale:g} in the "
                f"plane, in nats; the near mode has {law.modes[0]:.3f} of the mass, tilted "
                f"{law.tilted_modes[0]:.3f}",
                law.to_tilted,
            )
        )
    return rows


def _ends_row(laws: Sequence[Law], free: Sequence[float]) -> Measurement:
    """At w = 0 and 1 the law is a model's own."""
    off = max(map(abs, [*free, *(law.to_conditional for law in laws if law.scale == 1)]))
    return within(
        "guidance-truth-ends",
        "At w = 1 the law is the conditional density, at w = 0 the unconditional one. Largest KL "
        f"in nats, at most {SAME:g}",
        off,
        SAME,
    )


def _mass_row(laws: Sequence[Law]) -> Measurement:
    off = max(abs(law.mass - 1) for law in laws)
    return within(
        "guidance-truth-mass",
        f"Every one of {len(laws)} laws has the mass 1 on its nodes. Largest difference, at most "
        f"{WHOLE:g}",
        off,
        WHOLE,
    )


def _tolerance_row(law: Law, finer: Law) -> Measurement:
    off = abs(finer.to_tilted / law.to_tilted - 1)
    return within(
        "guidance-truth-tolerance",
        "At a hundredth of the ODE's tolerance the KL of cfg in the plane stays what it was. "
        f"Relative change, at most {FINE:g}",
        off,
        FINE,
    )


def _gaussian_row(exact: Sequence[tuple[float, ...]]) -> Measurement:
    off = max(abs(one[-1]) for one in exact)
    return within(
        "guidance-truth-gaussian",
        "Between two Gaussians the guided law has a closed form, of the variance v_u^(1-w) v_c^w. "
        f"KL from the flow's density to it in nats, the largest over w, at most {SAME:g}",
        off,
        SAME,
    )


def _table(laws: Sequence[Law], scale: float) -> Table:
    header = ("world", "variant", "KL to tilted", "KL to conditional", "near mode",
              "near mode, tilted", "nearest w", "KL left there")  # fmt: skip
    lines = tuple(
        (
            law.world,
            law.method,
            f"{law.to_tilted:.3f}",
            f"{law.to_conditional:.3f}",
            f"{law.modes[0]:.4f}",
            f"{law.tilted_modes[0]:.3f}",
            f"{law.nearest:.1f}" if law.nearest < 0.99 * CAP else f"> {CAP:g}",
            f"{law.to_nearest:.3f}",
        )
        for law in laws
        if law.scale == scale
    )
    caption = (
        f"At w = {scale:g}, KL in nats from what the flow samples. The near mode has 0.5 of the "
        "conditional density. Nearest w: the exponent whose tilted density the law is nearest to."
    )
    return Table(header, lines, caption)
