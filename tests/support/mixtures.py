"""Mixtures, schedules and times on which the oracle's equations are tested."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.sample import trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.testing import strategies
from tests.support import chance, distribution

SCHEDULES = [Discrete.linear(20), VPLinear(), VPCosine(), VE(), RectifiedFlow()]
FORMS = ["isotropic", "diagonal", "full"]
EVENTS = [(), (1,), (3,), (2, 2), (1, 2, 3)]


TWO = GaussianMixture(
    torch.zeros(2), torch.tensor([[1.0, 0, 0, 0], [-1.0, 0.5, 0, 0]]), torch.tensor([0.05, 0.2])
)
"""Two bumps in four dimensions."""


def states_of(step, denoise, starts, grid):
    """All that a walk passes."""
    return [state.x for state in trajectory(step, denoise, starts, grid)]


def seeded(seed):
    """A generator of draws, which another SUITE_SEED moves."""
    return chance.seeded(seed)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def mixture(form, event=(2,), K=3, seed=0, apart=1.0):
    """A mixture with variances between 0.05 and a few, its means `apart` from each other.

    A test chooses it by its seed, whatever the suite's.
    """
    generator, D = chance.pinned(seed), math.prod(event)
    means = apart * normal(generator, K, *event)
    if form == "isotropic":
        covariances = 0.05 + normal(generator, K).square()
    elif form == "diagonal":
        covariances = 0.05 + normal(generator, K, *event).square()
    else:
        root = normal(generator, K, D, D) / math.sqrt(D)
        covariances = root @ root.mT + 0.05 * torch.eye(D, dtype=torch.float64)
    return GaussianMixture(normal(generator, K), means, covariances)


def along(data, u):
    """The law of the number u . x for x of a mixture: a mixture on the line."""
    K, u, C = len(data.means), u.flatten(), data.covariances
    if C.ndim == 1:
        variances = C * u.square().sum()
    elif C.shape == data.means.shape:
        variances = C.reshape(K, -1) @ u.square()
    else:
        variances = torch.einsum("d,kde,e->k", u, C, u)
    return distribution.mixed(data.log_weights, data.means.reshape(K, -1) @ u, variances)


def directions(D):
    """The axes and the sums of two: the variances along them fix a covariance."""
    eye = torch.eye(D, dtype=torch.float64)
    return [eye[i] if i == j else eye[i] + eye[j] for i in range(D) for j in range(i, D)]


class Moments:
    """Mean and second moment of n draws of a mixture, along all `directions`, but for `rate`."""

    def __init__(self, data, n, rate):
        self.axes = directions(data.means[0].numel())
        share = rate / (2 * len(self.axes))
        sides = [along(data, u) for u in self.axes]
        self.first = [chance.Mean(side, n, share) for side in sides]
        self.second = [chance.Mean(side.of(torch.square), n, share) for side in sides]

    def holds(self, draws):
        """draws: `(n, *event)`."""
        sides = [draws.reshape(len(draws), -1) @ u for u in self.axes]
        firsts = zip(self.first, sides, strict=True)
        seconds = zip(self.second, sides, strict=True)
        return all(bound.holds(x.mean()) for bound, x in firsts) and all(
            bound.holds(x.square().mean()) for bound, x in seconds
        )

    def misses(self, other):
        """At most the least of all bounds': one that rejects is enough."""
        sides = [along(other, u) for u in self.axes]
        firsts = zip(self.first, sides, strict=True)
        seconds = zip(self.second, sides, strict=True)
        return min(
            *(bound.misses(side) for bound, side in firsts),
            *(bound.misses(side.of(torch.square)) for bound, side in seconds),
        )


def time_at(schedule, part):
    """A valid time: 0 at part 0, T at part 1, whole on a discrete schedule."""
    return float(round(part * schedule.T)) if isinstance(schedule, Discrete) else part * schedule.T


def cases(reach=3.0, components=(1, 4), spreads=(0.65, 3)):
    """A mixture, a schedule, a part of T, and a seed. By default variances are 0.05 to 9."""
    shapes = strategies.events(sides=(1, 2))
    return given(
        data=strategies.mixtures(event=shapes, components=components, spreads=spreads, reach=reach),
        schedule=st.sampled_from(SCHEDULES),
        part=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
        seed=st.integers(0, 10_000),
    )
