"""Mixtures, schedules and times on which the oracle's equations are tested."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_math.oracle import GaussianMixture
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear

SCHEDULES = [Discrete.linear(20), VPLinear(), VPCosine(), VE(), RectifiedFlow()]
FORMS = ["isotropic", "diagonal", "full"]
EVENTS = [(), (1,), (3,), (2, 2), (1, 2, 3)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def mixture(form, event=(2,), K=3, seed=0, apart=1.0):
    """A mixture with variances between 0.05 and a few, its means `apart` from each other."""
    generator, D = seeded(seed), math.prod(event)
    means = apart * normal(generator, K, *event)
    if form == "isotropic":
        covariances = 0.05 + normal(generator, K).square()
    elif form == "diagonal":
        covariances = 0.05 + normal(generator, K, *event).square()
    else:
        root = normal(generator, K, D, D) / math.sqrt(D)
        covariances = root @ root.mT + 0.05 * torch.eye(D, dtype=torch.float64)
    return GaussianMixture(normal(generator, K), means, covariances)


def time_at(schedule, part):
    """A legal time: 0 at part 0, T at part 1, whole on a discrete schedule."""
    return float(round(part * schedule.T)) if isinstance(schedule, Discrete) else part * schedule.T


cases = given(
    form=st.sampled_from(FORMS),
    event=st.sampled_from(EVENTS),
    K=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    schedule=st.sampled_from(SCHEDULES),
    part=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    apart=st.sampled_from([0.0, 1.0, 1e6]),
)
