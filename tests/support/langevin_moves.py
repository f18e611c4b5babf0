"""Moves of a Langevin chain on a mixture of two Gaussians on the line."""

from collections import deque

import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.langevin import annealed, ascent, baoab, mala, ula
from diffusion_math.schedule import VE

SCHEDULE = VE()
LINE = GaussianMixture(
    torch.tensor([0.3, 0.7]).log(), torch.tensor([[-1.0], [1.5]]), torch.tensor([0.25, 0.64])
)


def at_clean(data):
    """x -> (log q(x), grad log q(x))."""
    return lambda x: (data.log_density(SCHEDULE, x, 0), data.score(SCHEDULE, x, 0))


def score_of(data):
    return lambda x: data.score(SCHEDULE, x, 0)


MOVES = {
    "ascent": lambda: ascent(score_of(LINE), 0.1),
    "ula": lambda: ula(score_of(LINE), 0.1),
    "mala": lambda: mala(at_clean(LINE), 0.1),
    "annealed": lambda: annealed(
        lambda x, sigma: LINE.score(SCHEDULE, x, sigma), torch.tensor([1.0, 0.5]), 2, 0.1
    ),
    "baoab": lambda: baoab(score_of(LINE), 0.3, 1.0),
}


def last(states):
    (end,) = deque(states, maxlen=1)
    return end
