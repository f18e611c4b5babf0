"""The papers' exponential solvers in their own symbols, and the times of a walk.

lambda = log(alpha / sigma), m is a prediction of x0, e one of eps.
"""

import pytest
import torch

from diffusion_math.sample import trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from tests.support.solver_step import MIXTURE, X, forbidden_noise
from tests.support.tensors import f64

SCHEDULES = [VPLinear(), VPCosine(), VE(10.0), RectifiedFlow(), Discrete.scaled_linear(40)]
PARTS = (0.95, 0.7, 0.55, 0.3, 0.2)  # of T, whole times of a table of 40
by_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


class Paper:
    """alpha, sigma and lambda at a time, and both predictions there, by their definitions."""

    def __init__(self, schedule, t):
        self.t = torch.as_tensor(t, dtype=torch.float64)
        self.schedule = schedule
        self.alpha, self.sigma = schedule(self.t)
        self.lam = (self.alpha / self.sigma).log()

    def m(self, x):
        return MIXTURE.posterior_mean(self.schedule, x, self.t)

    def e(self, x):
        return (x - self.alpha * self.m(x)) / self.sigma


def times(schedule):
    return [f64(part * schedule.T)[0] for part in PARTS]


def between(schedule, t, s, share):
    """The paper's place at lambda_t + share h."""
    lam = t.lam + share * (s.lam - t.lam)
    return Paper(schedule, schedule.time(2 * lam))


def dpmpp_3s(schedule, t, s, x):
    """The same for m at r_1 = 1/3, r_2 = 2/3, as DPM-Solver++'s code has it."""
    h, r_1, r_2 = s.lam - t.lam, 1 / 3, 2 / 3
    one, two = between(schedule, t, s, r_1), between(schedule, t, s, r_2)
    x_1 = one.sigma / t.sigma * x - one.alpha * torch.expm1(-r_1 * h) * t.m(x)
    phi_22 = torch.expm1(-r_2 * h) / (r_2 * h) + 1
    x_2 = (
        two.sigma / t.sigma * x
        - two.alpha * torch.expm1(-r_2 * h) * t.m(x)
        + r_2 / r_1 * two.alpha * phi_22 * (one.m(x_1) - t.m(x))
    )
    phi_2 = torch.expm1(-h) / h + 1
    first = s.sigma / t.sigma * x - s.alpha * torch.expm1(-h) * t.m(x)
    return first + s.alpha * phi_2 / r_2 * (two.m(x_2) - t.m(x))


def walked(step, schedule, nodes, x=X, source=forbidden_noise):
    return [state.x for state in trajectory(step, MIXTURE.denoiser(schedule), x, nodes, source)]
