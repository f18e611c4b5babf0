"""Runs the experiment: inpainting methods against the exact conditional distribution."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tqdm import tqdm

from experiments.inpainting import Config, figures, measure
from experiments.inpainting.measure import CELLS, EXACT, ExactDensity, SampledKL
from experiments.output.result import Heading, Measurement, Result, estimated, integrating, table

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
    for place, problem in enumerate(tqdm(measure.PROBLEMS, unit="problem", disable=None)):
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
        table(
            sorted(every, key=lambda one: (one.problem, one.steps, one.repeats)),
            {
                "test problem": lambda one: one.problem,
                "steps": lambda one: one.steps,
                "U": lambda one: one.repeats,
                "NFE": lambda one: one.steps * one.repeats,
                "KL (nats)": lambda one: f"{one.kl:.2g}" if one.kl < 1e-3 else f"{one.kl:.4f}",
                "mean of u": lambda one: f"{one.mean:.3f}",
                "variance of u": lambda one: f"{one.variance:.3f}",
            },
            "Exact densities, with exact reverse kernels: KL to the exact conditional "
            "distribution. U = 1 is replacement. More steps do not remove its error.",
        ),
        table(
            sampled,
            {
                "test problem": lambda one: one.problem,
                "method": lambda one: one.method,
                "NFE": lambda one: one.nfe,
                "KL (nats)": lambda one: f"{one.kl:.4f}",
                "95% interval": lambda one: f"{one.interval[0]:.4f} to {one.interval[1]:.4f}",
            },
            f"Samples with DDPM's steps: KL in nats over {CELLS} cells of equal probability, with "
            "the jackknife's 95% interval. NFE is for one independent sample. The last line of "
            "each problem has the error of DDPM's steps alone.",
        ),
    )
    record: dict[str, Any] = {"settings": config, "exact": every, "sampled": sampled}
    title = "What inpainting with an unconditional model samples"
    return Result("inpainting", title, _rows(config.steps, every, sampled), parts, record)


def _rows(
    steps: int, exact: Sequence[ExactDensity], sampled: Sequence[SampledKL]
) -> tuple[Measurement, ...]:
    own = [one for one in exact if one.steps == steps]
    names = list(dict.fromkeys(one.problem for one in own))
    most = max(one.repeats for one in own)
    smc = [one.method for one in sampled if one.method.startswith("SMCDiff")][-1]
    short = {smc: "smcdiff", EXACT: "conditional"}
    return (
        estimated(
            "inpainting",
            "Replacement does not sample the exact conditional distribution: least KL in nats over "
            f"{len(names)} test problems, above {WRONG:g}",
            min(one.kl for one in own if one.repeats == 1),
            more=WRONG,
        ),
        estimated(
            "inpainting-repaint",
            "RePaint's KL falls with U on every test problem: largest ratio of neighbours, below 1",
            max(b.kl / a.kl for a, b in pairwise(own) if a.problem == b.problem),
            less=1.0,
        ),
        estimated(
            "inpainting-repaint-most",
            f"Largest KL in nats of RePaint with U = {most} over the test problems",
            max(one.kl for one in own if one.repeats == most),
        ),
        *(
            estimated(
                f"inpainting-{short[one.method]}-{names.index(one.problem) + 1}",
                f"{one.problem}: KL in nats of {one.method} with DDPM's steps, in {CELLS} cells",
                (one.kl, one.interval),
            )
            for one in sampled
            if one.method in short
        ),
        integrating("inpainting-mass", [one.mass for one in exact], WHOLE),
    )
