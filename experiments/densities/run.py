"""Runs the experiment: integrates each density, counts its samples, differentiates it."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_math.densities.toy import DENSITIES, Density
from diffusion_math.schedule import VPLinear
from experiments import plots
from experiments.common.quadrature import Cells, ChiSquare, chi_square, density_over, score_error
from experiments.common.statistics import plus_minus, seeded
from experiments.densities import Config
from experiments.output.result import Figure, Measurement, Result, estimated, table
from experiments.plots import plane

FALSE_ALARM = 1e-9  # of each density's chi-square test
ORDER = 8  # of the quadrature in a cell; its error is judged against one order less
ROUNDING = 1e-10  # what float64 may lose of a log-density (quadratic.ACCURACY, two dimensions)
SHOWN = 1500  # draws in the figure
MASS, SCORE = 1e-8, 1e-9  # the bounds of the claims


class Found(NamedTuple):
    """What was measured of one density.

    mass: the integral of q. bound: on its quadrature error. entropy: -E log q in nats, by the
    quadrature; entropy_by_samples: the same by samples, with its standard error. fit: of the
    counts. score: the largest error of the score, over 1 + the largest gradient.
    """

    mass: float
    bound: float
    entropy: float
    entropy_by_samples: float
    error: float
    fit: ChiSquare
    score: float


def run(config: Config) -> Result:
    found, samples = {}, {}
    for name in tqdm(config.densities, unit="density", disable=None):
        density = DENSITIES[name]()
        samples[name] = density.sample(seeded(config.seed), config.samples)
        found[name] = _measure(density, _cells(name), samples[name])
    parts = (
        "The formula of a density, its score and its sampler are written separately, so they are "
        "checked against each other. Each formula is integrated over the plane. Each score is "
        "compared with automatic differentiation. The samples are counted in cells, whose "
        "probabilities the formula gives.",
        _figure(samples),
        table(
            found.items(),
            {
                "density": lambda pair: pair[0],
                "mass − 1": lambda pair: f"{pair[1].mass - 1:+.1e} ± {pair[1].bound:.0e}",
                "entropy, nats": lambda pair: f"{pair[1].entropy:.4f}",
                "by samples": lambda pair: plus_minus(pair[1].entropy_by_samples, pair[1].error),
                "chi-square of degrees (limit)": lambda pair: pair[1].fit,
                "score’s error": lambda pair: f"{pair[1].score:.0e}",
            },
            f"Mass and entropy by quadrature (Gauss and Legendre, {ORDER} x {ORDER} points a "
            "cell), the entropy once more by samples with a 95% interval; chi-square of the "
            "samples with its degrees of freedom, its expected value, and its limit; the largest "
            "difference of the score from automatic differentiation.",
        ),
    )
    plain = {name: {**one._asdict(), "fit": one.fit._asdict()} for name, one in found.items()}
    record = {"settings": config, "densities": plain}
    rows = _rows(found, config.samples)
    return Result("densities", "The densities of the plane", rows, parts, record)


def _cells(name: str) -> Cells:
    """Cells that hold all but 1e-9 of the density, small where it is sharp."""
    line = partial(torch.linspace, dtype=torch.float64)
    if name == "banana":  # reaches far up
        return Cells(line(-8, 8, 81), line(-3, 33, 181))
    if name == "funnel":  # thin on one side, e^4 wide on the other
        return Cells(line(-8, 8, 81), line(-7, 7, 71).sinh() / 2)
    edges = line(-8, 8, 81) if name == "pinwheel" else line(-5, 5, 51)
    return Cells(edges, edges)


def _measure(density: Density, cells: Cells, points: Tensor) -> Found:
    clean = VPLinear()  # at t = 0 every schedule is the same
    masses = []
    for order in (ORDER - 1, ORDER):
        at, weights = cells.rule(order)
        log_q = density.log_density(clean, at, 0.0)
        mass = weights * log_q.exp()
        masses.append(cells.sums(mass))
    # Tails fall faster than exponentially: beyond the cells there is less than in the outer ones.
    outer = masses[1].sum() - masses[1][4:-4, 4:-4].sum()
    bound = float((masses[1] - masses[0]).sum().abs() + outer.clamp(min=0)) + ROUNDING
    entropy = -float((mass * log_q)[mass > 0].sum())
    heights = -density.log_density(clean, points, 0.0)
    by_samples = float(heights.mean()), float(heights.std()) / len(points) ** 0.5
    fit = chi_square(cells, points, masses[1], FALSE_ALARM)
    off = score_error(density, clean, points[:2000], 0.0)
    return Found(float(masses[1].sum()), bound, entropy, *by_samples, fit, off)


def _rows(found: dict[str, Found], samples: int) -> tuple[Measurement, ...]:
    errors = {name: abs(one.mass - 1) for name, one in found.items()}
    worst = max(errors, key=lambda name: errors[name] + found[name].bound)
    bound = found[worst].bound
    fit = max(found, key=lambda name: found[name].fit.value / found[name].fit.limit)
    ratio = found[fit].fit.value / found[fit].fit.limit
    steep = max(found, key=lambda name: found[name].score)
    return (
        estimated(
            "densities",
            f"Every density integrates to 1. Largest difference of the mass from 1 ({worst}), at "
            f"most {MASS:g}; the interval is the error of the quadrature and the tails",
            (errors[worst], (max(0.0, errors[worst] - bound), errors[worst] + bound)),
            most=MASS,
        ),
        estimated(
            "densities-sampler",
            f"Every sampler samples its density. Largest ratio of chi-square ({samples} samples "
            f"in cells) to its limit ({fit}), at most 1 (false alarm {FALSE_ALARM:g} a density)",
            ratio,
            most=1,
        ),
        estimated(
            "densities-score",
            f"C21: every score is the gradient of its log-density. Largest difference from "
            f"automatic differentiation, over 1 + the largest gradient ({steep}), at most "
            f"{SCORE:g}: rounding, over a variance of 0.05^2 at the least",
            found[steep].score,
            most=SCORE,
        ),
    )


def _figure(samples: dict[str, Tensor]) -> Figure:
    maps = []
    for name, points in samples.items():
        edges = torch.quantile(points, torch.tensor([0.005, 0.995]).double(), dim=0)
        middle, reach = edges.mean(0), 0.6 * float((edges[1] - edges[0]).max())
        first, second = (float(c) + np.linspace(-reach, reach, 241) for c in middle)
        height = density_over(first, second, DENSITIES[name](), VPLinear(), 0.0)
        title = name.replace("_", " ")
        maps.append(plane.Map(title, first, second, height, points[:SHOWN].numpy()))
    return Figure(
        "densities.png",
        plots.png(plane.maps(maps, columns=4)),
        f"The exact density (shaded, darker is denser, each panel on its own scale) and "
        f"{SHOWN} samples of its exact sampler (dots). The samples lie where the shade is.",
        "Panels of shaded densities of the plane, each with its samples as dots on top.",
    )
