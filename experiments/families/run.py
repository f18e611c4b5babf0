"""Runs the experiment: trains every family, samples from each, compares with the density."""

from typing import Any

import torch
from scipy.stats import kstest
from torch import Tensor
from tqdm import tqdm

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import DENSITIES, Density
from diffusion_math.metrics import Estimate, energy_distance
from diffusion_math.schedule import VPLinear
from experiments import plots
from experiments.common.quadrature import in_square
from experiments.common.statistics import difference, plus_minus, seeded, with_interval
from experiments.families import Config
from experiments.families.generators import FAMILIES, Budget, Trained, autoencoder
from experiments.output.result import Figure, Measurement, Result, Table, estimated
from experiments.plots import plane
from experiments.plots.plane import Cloud

PLAIN = "autoencoder"
EXAMPLES = 100_000
"""With fewer examples in its training a network shows nothing of what it can learn."""


def run(config: Config) -> Result:
    data = DENSITIES[config.density]()
    budget = Budget(config.steps, config.batch, config.parameters, config.seed)
    fresh, other = (data.sample(seeded(config.seed, part), config.samples) for part in (1, 2))
    z = torch.randn(config.samples, 2, generator=seeded(config.seed, 3))
    trained, samples, codes = {}, {}, {}
    for name, train in tqdm({**FAMILIES, PLAIN: autoencoder}.items(), unit="family", disable=None):
        one = trained[name] = train(budget, data)
        with torch.no_grad():
            samples[name] = one.sample(z, seeded(config.seed, 4)).double()
            if one.code is not None:
                codes[name] = one.code(other.float(), seeded(config.seed, 5)).double()
    distances = {name: energy_distance(points, fresh) for name, points in samples.items()}
    heights = {
        name: data.log_density(VPLinear(), points, 0.0).median().item()
        for name, points in samples.items()
    }
    one_normal = energy_distance(z.double() * fresh.std(0) + fresh.mean(0), fresh)
    floor = energy_distance(other, fresh)
    from_normal = {name: energy_distance(code, z.double()) for name, code in codes.items()}
    kolmogorov = {
        name: max(float(kstest(column.numpy(), "norm").statistic) for column in code.mT)
        for name, code in codes.items()
    }
    parts = (
        "A generative model is a map x = f(z) of normal noise z. Three families learn one here, "
        f"each with {config.steps} updates of {config.batch} examples and at most "
        f"{config.parameters} learned numbers; a fourth, the plain autoencoder, learns to give its "
        "input back and leaves the distribution of its code to chance.",
        *_figures(config, data, samples, codes),
        _table(trained, heights, distances, one_normal, floor),
    )
    record: dict[str, Any] = {
        "settings": config,
        "energy_distance": {name: one.value for name, one in distances.items()},
        "energy_distance_error": {name: one.error for name, one in distances.items()},
        "floor": floor.value,
        "one_normal": one_normal.value,
        "code_energy_distance_to_normal": {name: one.value for name, one in from_normal.items()},
        "code_kolmogorov_distance_to_normal": kolmogorov,
        "parameters": {name: one.parameters for name, one in trained.items()},
        "seconds": {name: one.seconds for name, one in trained.items()},
    }
    found = _rows(distances, one_normal, from_normal, kolmogorov, config.samples)
    rows = tuple(row.needing(EXAMPLES, config.steps * config.batch) for row in found)
    return Result("families", "Three families, one density", rows, parts, record)


def _rows(
    distances: dict[str, Estimate],
    one_normal: Estimate,
    from_normal: dict[str, Estimate],
    kolmogorov: dict[str, float],
    count: int,
) -> tuple[Measurement, ...]:
    families = [name for name in distances if name != PLAIN]
    worst = max(families, key=lambda name: distances[name].value)
    scaled = (one / one_normal.value for one in distances[worst])
    rows = [
        estimated(
            "families",
            "C01: VAE, GAN and diffusion each map noise to the data. Energy distance of the worst "
            f"({worst}) over that of one normal with the data's mean and variances, at most 0.5",
            with_interval(Estimate(*scaled)),
            most=0.5,
        )
    ]
    for name in families:
        claim = f"Squared energy distance between {count} samples of the {name} and of the data"
        rows.append(estimated(f"families-{name.lower()}", claim, with_interval(distances[name])))
    for name, (what, at) in {
        "families-decoded": ("decoded samples of a normal are from the data", distances),
        "families-code": ("codes of data are from a normal", from_normal),
    }.items():
        claim = (
            f"C31: energy distance of the plain autoencoder less that of the VAE, where the "
            f"{what}, above 0"
        )
        rows.append(estimated(name, claim, difference(at[PLAIN], at["VAE"]), least=0.0))
    for name, found in kolmogorov.items():
        claim = (
            f"Kolmogorov distance of the {name}'s code from N(0, 1), the worse coordinate; of "
            f"{count} normal samples it exceeds {(9.55 / count) ** 0.5:.3f} once in 10^8 runs"
        )
        rows.append(estimated(f"families-{name.lower()}-normality", claim, found))
    return tuple(rows)


def _figures(
    config: Config, data: Density, samples: dict[str, Tensor], codes: dict[str, Tensor]
) -> tuple[Figure, ...]:
    reach = 3.4
    true = in_square(data, VPLinear(), 0.0, reach, 201)
    normal = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.ones(1))
    one_normal = in_square(normal, VPLinear(), 0.0, reach, 201)
    shown = [Cloud(name, x.numpy(), true) for name, x in samples.items() if name != PLAIN]
    drawing = plane.clouds([shown], reach)
    pairs = []
    for name, code in codes.items():
        pairs.append(Cloud(f"{name}\ncode of data", code.numpy(), one_normal))
        pairs.append(Cloud(f"{name}\ndecoded normal samples", samples[name].numpy(), true))
    code_drawing = plane.clouds([pairs], reach)
    return (
        Figure(
            "families-plane.png",
            plots.png(drawing),
            f"Samples of the three families. The lines enclose 50 and 95% of the true density "
            f"{config.density}. All find the modes; they differ in the samples between the modes.",
            "Three scatter plots of generated points over the contours of the true density.",
        ),
        Figure(
            "families-codes.png",
            plots.png(code_drawing),
            "Left of each pair: codes of data, over the contours of N(0, I). Right: decoded "
            "samples of N(0, I), over the true density. The codes of the VAE cover the normal. "
            "Those of the plain autoencoder leave most of it empty, so its decoded samples miss "
            "the data.",
            "Scatter plots of codes and of decoded samples for a VAE and a plain autoencoder.",
        ),
    )


def _table(
    trained: dict[str, Trained],
    heights: dict[str, float],
    distances: dict[str, Estimate],
    one_normal: Estimate,
    floor: Estimate,
) -> Table:
    lines = []
    for name, one in trained.items():
        distance, height = plus_minus(*distances[name]), f"{heights[name]:.2f}"
        lines.append((name, f"{one.parameters}", f"{one.seconds:.1f}", distance, height))
    lines.append(("one normal", "4", "–", plus_minus(*one_normal), "–"))
    lines.append(("the data again", "–", "–", plus_minus(*floor), "–"))
    header = ("family", "parameters", "training, s", "energy distance", "median log-density")
    caption = (
        "Squared energy distance of the samples from fresh data, with a 95% interval, and the "
        "true log-density at the median sample in nats. The last line is what perfect samples "
        "would show."
    )
    return Table(header, tuple(lines), caption)
