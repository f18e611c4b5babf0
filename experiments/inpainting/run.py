"""Runs the experiment: inpainting methods against the exact conditional distribution."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tqdm import tqdm

from experiments.inpainting import Config, figures, measure
from experiments.inpainting.measure import EXACT, ExactDensity, SampledKL
from experiments.output.result import (
    Heading,
    Measurement,
    Result,
    Table,
    estimated,
    holds_if,
    within,
)

WHOLE = 1e-6
"""Largest difference of the integral of a density from 1."""
WRONG = 0.01
"""Nats: a distribution with a greater KL to the target is another one."""


def run(config: Config) -> Result:
    """Every method on every test problem."""
    repeats = (1, *sorted(set(config.repeats)))
    particles = tuple(sorted(set(config.particles)))
    exact: list[ExactDensity] = []
    fewer: list[ExactDensity] = []
    sampled: list[SampledKL] = []
    curves, ends = {}, {}
    for place, problem in enumerate(tqdm(measure.problems(), unit="problem", disable=None)):
        found, curves[problem.name] = measure.exact(problem, config.steps, repeats)
        exact += found
        for steps in (config.steps // 4, config.steps // 2):
            fewer += measure.exact(problem, steps, (1,))[0]
        rows, ends[problem.name] = measure.sampled(
            problem, config.steps, config.shown, particles, config.samples, config.seed + place
        )
        sampled += rows
    every = [*exact, *fewer]
    parts = (
        "An unconditional denoiser can inpaint: after each step the known part is replaced by a "
        "sample of q(x_t | x_0). Here the exact conditional distribution of the unknown part is "
        "known, and so is the density that replacement and RePaint sample.",
        figures.densities(curves, ends, config.shown),
        Heading("KL divergence and cost"),
        figures.kl(exact, sampled),
        _exact_table(every),
        _sampled_table(sampled),
    )
    record: dict[str, Any] = {"settings": config, "exact": every, "sampled": sampled}
    title = "What inpainting with an unconditional model samples"
    return Result("inpainting", title, _rows(config, every, sampled), parts, record)


def _rows(
    config: Config, exact: Sequence[ExactDensity], sampled: Sequence[SampledKL]
) -> tuple[Measurement, ...]:
    of = {(one.problem, one.steps, one.repeats): one for one in exact}
    names = list(dict.fromkeys(one.problem for one in exact))
    plain = min(of[name, config.steps, 1].kl for name in names)
    most = max(config.repeats)
    last = max(of[name, config.steps, most].kl for name in names)
    return (
        estimated(
            "inpainting",
            "Replacement does not sample the exact conditional distribution: least KL in nats over "
            f"{len(names)} test problems, above {WRONG:g}",
            plain,
            more=WRONG,
        ),
        repetitions_row(exact, config.steps),
        estimated(
            "inpainting-repaint-most",
            f"Largest KL in nats of RePaint with U = {most} over the test problems",
            last,
        ),
        *_particle_rows(sampled),
        mass_row(exact),
    )


def repetitions_row(exact: Sequence[ExactDensity], steps: int) -> Measurement:
    """RePaint's KL falls with every U."""
    own = [one for one in exact if one.steps == steps]
    ratio = max(b.kl / a.kl for a, b in pairwise(own) if a.problem == b.problem)
    claim = "RePaint's KL falls with U on every test problem: largest ratio of neighbours, below 1"
    return Measurement("inpainting-repaint", claim, ratio, None, holds_if(ratio < 1))


def _particle_rows(sampled: Sequence[SampledKL]) -> list[Measurement]:
    """SMCDiff with most particles, and the exact conditional denoiser, with the same steps."""
    rows = []
    smc = [one.method for one in sampled if one.method.startswith("SMCDiff")][-1]
    for place, problem in enumerate(dict.fromkeys(one.problem for one in sampled)):
        for method, short in ((smc, "smcdiff"), (EXACT, "conditional")):
            (one,) = (s for s in sampled if (s.problem, s.method) == (problem, method))
            claim = f"{problem}: KL in nats of {method} with DDPM's steps, in {measure.CELLS} cells"
            rows.append(estimated(f"inpainting-{short}-{place + 1}", claim, (one.kl, one.interval)))
    return rows


def mass_row(exact: Sequence[ExactDensity]) -> Measurement:
    """The densities are whole."""
    off = max(abs(one.mass - 1) for one in exact)
    claim = (
        f"Each of {len(exact)} densities integrates to 1 over its nodes. Largest difference, at "
        f"most {WHOLE:g}"
    )
    return within("inpainting-mass", claim, off, WHOLE)


def _exact_table(exact: Sequence[ExactDensity]) -> Table:
    header = ("test problem", "steps", "U", "NFE", "KL (nats)", "mean of u", "variance of u")
    rows = tuple(
        (
            one.problem,
            str(one.steps),
            str(one.repeats),
            str(one.steps * one.repeats),
            f"{one.kl:.2g}" if one.kl < 1e-3 else f"{one.kl:.4f}",
            f"{one.mean:.3f}",
            f"{one.variance:.3f}",
        )
        for one in sorted(exact, key=lambda one: (one.problem, one.steps, one.repeats))
    )
    caption = (
        "Exact densities, with exact reverse kernels: KL to the exact conditional distribution. "
        "U = 1 is replacement. More steps do not remove its error."
    )
    return Table(header, rows, caption)


def _sampled_table(sampled: Sequence[SampledKL]) -> Table:
    rows = tuple(
        (
            one.problem,
            one.method,
            str(one.nfe),
            f"{one.kl:.4f}",
            f"{one.interval[0]:.4f} to {one.interval[1]:.4f}",
        )
        for one in sampled
    )
    caption = (
        f"Samples with DDPM's steps: KL in nats over {measure.CELLS} cells of equal probability, "
        "with the jackknife's 95% interval. NFE is for one independent sample. The last line of "
        "each problem has the error of DDPM's steps alone."
    )
    return Table(("test problem", "method", "NFE", "KL (nats)", "95% interval"), rows, caption)
