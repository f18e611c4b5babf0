"""Labelled mixtures, and the exact distributions of their guided flows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from diffusion_math import guidance_law
from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.labelled import Labelled
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.gaussian import kl as gaussian_kl
from diffusion_math.guidance import (
    Pair,
    cfg_batched,
    cosine,
    limited,
    projected,
    rescaled,
    together,
    weighted,
)
from diffusion_math.guidance_law import SCHEDULE, Nodes

Make: TypeAlias = Callable[[Pair], Denoiser]
"""A variant of guidance: from a pair of predictions to a denoiser."""

NodeDensity: TypeAlias = tuple[Nodes, Tensor]
"""A distribution: nodes and the log-density there."""

LABEL = 1
"""The class that guidance leads to, of two."""
METHODS = ("cfg", "interval", "cosine", "rescaled", "projected")
PATTERNS = [[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]
GROUND = [1.0, -1.0, -1.0, 1.0]
"""Orthogonal patterns of four pixels, of mean 0, for `in_pixels`."""
CAP = 50.0
"""The largest exponent of a tilted density."""


@dataclass(frozen=True)
class GuidanceProblem:
    """Data with two labels: component 0 is the other class, those after it are the class."""

    name: str
    data: Labelled

    @staticmethod
    def of(name: str, means: list[list[float]], variances: list[float]) -> "GuidanceProblem":
        """Half of the data in the other class, half in the modes of the class, evenly."""
        shares = torch.tensor([0.5] + [0.5 / (len(means) - 1)] * (len(means) - 1))
        mixture = GaussianMixture(
            shares.double().log(), torch.tensor(means).double(), torch.tensor(variances).double()
        )
        labels = torch.tensor([0] + [LABEL] * (len(means) - 1))
        return GuidanceProblem(name, Labelled(mixture, labels))

    @property
    def dimensions(self) -> int:
        """1 or 2."""
        return self.data.mixture.means.shape[1]

    @property
    def pair(self) -> Pair:
        """The exact predictions without and with the condition."""
        conditional = self.data.given(LABEL).denoiser(SCHEDULE)
        return together(conditional, self.data.mixture.denoiser(SCHEDULE))

    def wide(self, count: int) -> Nodes:
        """Nodes of all the data, 8 deviations about every mode."""
        means, reach = self.data.mixture.means, 8 * self.data.mixture.covariances.sqrt()[:, None]
        return guidance_law.box(
            (means - reach).amin(0).tolist(), (means + reach).amax(0).tolist(), count
        )


@dataclass(frozen=True)
class Settings:
    """The settings of the guidance variants, and the accuracy of their distributions."""

    interval: tuple[float, float]
    share: float
    longest: float
    ground: float
    count: int
    tolerance: float


@dataclass(frozen=True)
class GuidedFlow:
    """The distribution that one guided flow samples.

    to_tilted, to_conditional: its KL to these densities. modes: the probabilities of the class's
    modes. nearest: the exponent of the tilted density of the least KL; to_nearest: that KL.
    mass: the integral of the density over the nodes.
    """

    problem: str
    method: str
    scale: float
    to_tilted: float
    to_conditional: float
    modes: list[float]
    tilted_modes: list[float]
    nearest: float
    to_nearest: float
    mass: float


LINE = GuidanceProblem.of("line", [[-1.0], [1.0], [3.5]], [0.5, 0.3, 0.3])
PLANE = GuidanceProblem.of("plane", [[-1.0, 0.0], [1.0, 1.2], [3.5, -0.5]], [0.5, 0.3, 0.3])
"""Two classes; the class has a mode near the other class and one far away."""


def variant(method: str, scale: float, settings: Settings) -> Make:
    """A variant of guidance at w = scale, of any pair."""

    def make(pair: Pair) -> Denoiser:
        plain = cfg_batched(pair, scale)
        if method == "cfg":
            return plain
        if method == "interval":
            return limited(plain, lambda x_t, t: pair(x_t, t)[1], SCHEDULE, settings.interval)
        if method == "cosine":
            return weighted(pair, SCHEDULE, cosine(scale))
        if method == "rescaled":
            return in_pixels(lambda p: rescaled(p, scale, settings.share), pair, settings.ground)
        return in_pixels(
            lambda p: projected(p, scale, longest=settings.longest), pair, settings.ground
        )

    return make


def in_pixels(make: Make, pair: Pair, ground: float) -> Denoiser:
    """A variant that depends on whole images, as a denoiser of the coordinates.

    An image of four pixels is a ground pattern of this strength, the same in all the data, and a
    pattern for each coordinate. Patterns have mean 0 and norm 1, so that a coordinate's noise is
    the pixels' own, and the exact prediction of the ground is the ground.
    """
    fixed = ground * torch.tensor(GROUND, dtype=torch.float64) / 2

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        patterns = torch.tensor(PATTERNS[: x_t.shape[1]], dtype=torch.float64) / 2
        drawn = [one @ patterns + fixed for one in pair(x_t, t)]
        return make(lambda *_: (drawn[0], drawn[1]))(x_t @ patterns, t) @ patterns.mT

    return denoise


def stacked(pair: Pair, makes: Sequence[Make], sizes: Sequence[int]) -> Denoiser:
    """Many variants at once, each on its own rows, with one evaluation of the pair."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        predictions = [one.split(list(sizes)) for one in pair(x_t, t)]
        parts = []
        for make, x, u, c in zip(makes, x_t.split(list(sizes)), *predictions, strict=True):
            parts.append(make(lambda *_, u=u, c=c: (u, c))(x, t))  # type: ignore[misc]
        return torch.cat(parts)

    return denoise


def densities(
    pair: Pair,
    makes: Sequence[Make],
    dimensions: int,
    settings: Settings,
    jumps: Sequence[float] = (),
) -> list[NodeDensity]:
    """For every variant the distribution of its flow."""
    z = guidance_law.ball(dimensions)
    together_there = stacked(pair, makes, [len(z)] * len(makes))
    images = guidance_law.flow_map(together_there, z.repeat(len(makes), 1)).split(len(z))
    count = settings.count * (4 if dimensions == 1 else 1)
    nodes = [guidance_law.around(image, count) for image in images]
    sizes = [len(one.x) for one in nodes]
    denoise, x = stacked(pair, makes, sizes), torch.cat([one.x for one in nodes])
    tolerance = settings.tolerance
    log_p = guidance_law.log_density(denoise, x, jumps, tolerance, tolerance).split(sizes)
    return list(zip(nodes, log_p, strict=True))


def flows(
    problem: GuidanceProblem, variants: Sequence[tuple[str, float]], settings: Settings
) -> list[tuple[GuidedFlow, NodeDensity]]:
    """The distributions of (method, w), compared with the tilted and conditional densities."""
    makes = [variant(method, scale, settings) for method, scale in variants]
    jumps = settings.interval if any(method == "interval" for method, _ in variants) else ()
    found = densities(problem.pair, makes, problem.dimensions, settings, jumps)
    return [
        (_flow(problem, *one, *there), there) for one, there in zip(variants, found, strict=True)
    ]


def _flow(
    problem: GuidanceProblem, method: str, scale: float, nodes: Nodes, log_p: Tensor
) -> GuidedFlow:
    conditional = problem.data.given(LABEL).log_density(SCHEDULE, nodes.x, 0)
    nearest = nearest_tilt(problem, nodes, log_p)
    return GuidedFlow(
        problem.name,
        method,
        scale,
        guidance_law.kl(nodes, log_p, log_tilted(problem, scale, nodes.x)),
        guidance_law.kl(nodes, log_p, conditional),
        guidance_law.mode_weights(problem.data, LABEL, nodes, log_p).tolist(),
        tilted_modes(problem, scale),
        nearest,
        guidance_law.kl(nodes, log_p, log_tilted(problem, nearest, nodes.x)),
        nodes.integral(log_p.exp()),
    )


def ends(
    problem: GuidanceProblem, settings: Settings
) -> tuple[float, tuple[GuidedFlow, NodeDensity]]:
    """The KL at w = 0 to the unconditional density, and the distribution at w = 1."""
    makes = [variant("cfg", w, settings) for w in (0.0, 1.0)]
    (nodes, log_p), conditional = densities(problem.pair, makes, problem.dimensions, settings)
    truth = problem.data.mixture.log_density(SCHEDULE, nodes.x, 0)
    at_1 = _flow(problem, "cfg", 1.0, *conditional), conditional
    return guidance_law.kl(nodes, log_p, truth), at_1


def log_tilted(problem: GuidanceProblem, scale: float, x: Tensor) -> Tensor:
    """log of the tilted density at x, normalised."""
    whole = problem.wide(200)
    height = guidance_law.tilted(problem.data, LABEL, scale, whole.x)
    log_z = guidance_law.log_normaliser(whole, height)
    return guidance_law.tilted(problem.data, LABEL, scale, x) - log_z


def tilted_modes(problem: GuidanceProblem, scale: float) -> list[float]:
    """The weights of the class's components under the tilted density."""
    whole = problem.wide(200)
    log_p = log_tilted(problem, scale, whole.x)
    return guidance_law.mode_weights(problem.data, LABEL, whole, log_p).tolist()


def nearest_tilt(problem: GuidanceProblem, nodes: Nodes, log_p: Tensor) -> float:
    """The w of the tilted density to which KL(p || tilted) is least, in [0, CAP].

    The tilted densities are an exponential family in w, so the KL is convex, and least where the
    mean of log p(c | x) is that of p: found by bisection.
    """
    whole = problem.wide(200)
    classifier = problem.data.log_posterior(SCHEDULE, whole.x, 0)[:, LABEL]
    base = problem.data.mixture.log_density(SCHEDULE, whole.x, 0)
    own = problem.data.log_posterior(SCHEDULE, nodes.x, 0)[:, LABEL]
    wanted = float((log_p.softmax(0) * own).sum())
    low, high = 0.0, CAP
    for _ in range(40):
        middle = (low + high) / 2
        mean = float(((base + middle * classifier).softmax(0) * classifier).sum())
        low, high = (middle, high) if mean < wanted else (low, middle)
    return (low + high) / 2


def gaussians(
    scales: Sequence[float], settings: Settings
) -> list[tuple[float, float, float, float, float]]:
    """(w, guided deviation, tilted deviation, KL, KL of the ODE) of N(0, 2) and N(1, 1).

    The last is the KL between the density by the ODE and the closed form; the exact value is 0.
    """
    wide, narrow = (
        Gaussian(torch.tensor([[m]]).double(), torch.tensor([v]).double())
        for m, v in ((0.0, 2.0), (1.0, 1.0))
    )
    one = torch.zeros(1).double()
    conditional, free = (
        GaussianMixture(one, side.mean, side.variance).denoiser(SCHEDULE) for side in (narrow, wide)
    )
    makes = [variant("cfg", w, settings) for w in scales]
    found = []
    there = densities(together(conditional, free), makes, 1, settings)
    for w, (nodes, log_p) in zip(scales, there, strict=True):
        exact = guidance_law.gaussian_guided(wide, narrow, w)
        tilt = guidance_law.gaussian_tilted(wide, narrow, w)
        on_nodes = Gaussian(exact.mean.expand_as(nodes.x), exact.variance)
        off = guidance_law.kl(nodes, log_p, on_nodes.log_density(nodes.x))
        first, second = (math.sqrt(float(side.variance)) for side in (exact, tilt))
        found.append((w, first, second, float(gaussian_kl(exact, tilt)), off))
    return found
