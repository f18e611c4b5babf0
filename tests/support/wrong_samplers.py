"""Samplers with one mistake each, of kinds that people made, and right ones beside them."""

import itertools
from dataclasses import replace

from diffusion_math import gaussian
from diffusion_math.grid import trailing
from diffusion_math.schedule import Discrete, VPLinear
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from diffusion_math.testing import Sampler, of_step

SCHEDULE = VPLinear()
TABLE = Discrete.scaled_linear()


def right(name, schedule=SCHEDULE):
    claimed = SOLVERS[name]
    bare = of_step(name, claimed.make, schedule)
    return replace(bare, order=claimed.order, noisy=claimed.noisy)


def third_without_its_two(schedule):
    """Three predictions whose second difference is taken for the second derivative, not half."""

    def step(denoise, state, t, s, noise):
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        x0 = denoise(state.x, t)
        past = (*state.history, (t, x0))[-3:]
        if sigma_s == 0:
            return State(x0, s, past)
        level = [schedule.log_snr(time) / 2 for time, _ in past]
        h = schedule.log_snr(s) / 2 - level[-1]
        moved = sigma_s / sigma_t * state.x - alpha_s * (-h).expm1() * x0
        if len(past) < 3:
            if len(past) == 2:
                r = (level[-1] - level[-2]) / h
                moved = moved - alpha_s * (-h).expm1() * (x0 - past[-2][1]) / (2 * r)
            return State(moved, s, past)
        r0, r1 = (level[-1] - level[-2]) / h, (level[-2] - level[-3]) / h
        first = (x0 - past[-2][1]) / r0
        second = (past[-2][1] - past[-3][1]) / r1
        slope = first + r0 / (r0 + r1) * (first - second)
        bend = (first - second) / (r0 + r1)
        moved = moved + alpha_s * ((-h).expm1() / h + 1) * slope
        moved = moved - alpha_s * (((-h).expm1() + h) / h**2 - 0.5) * bend
        return State(moved, s, past)

    return step


def guessed_time(denoise, x, grid, noise):
    """DDIM on a table whose previous time is t - T // n, whatever the grid says."""
    stride = int(TABLE.T) // (len(grid) - 1)
    for t in grid[:-1]:
        guess = (t - stride).clamp(min=0)
        alpha_t, sigma_t = TABLE(t)
        alpha, sigma = TABLE(guess)
        x0 = denoise(x, t)
        x = alpha * x0 + sigma / sigma_t * (x - alpha_t * x0)
        yield x


def squared_noise(schedule):
    """DDPM with the variance where its root belongs."""

    def step(denoise, state, t, s, noise):
        q = gaussian.posterior(schedule, state.x, denoise(state.x, t), t, s)
        return State(q.mean + q.variance * noise(state.x, t, s), s)

    return step


def late_noise(denoise, x, grid, noise):
    """Ancestral steps that draw in the last one too, as the posterior's variance of one before."""
    last = 0.0
    for t, s in itertools.pairwise(grid):
        q = gaussian.posterior(SCHEDULE, x, denoise(x, t), t, s)
        last = q.variance.sqrt() if s > 0 else last
        x = q.mean + last * noise(x, t, s)
        yield x


def linspaced(n):
    from diffusion_math.grid import linspace

    return linspace(TABLE, n)


def rising(n):
    """A grid with two nodes exchanged."""
    grid = trailing(TABLE, n)
    if n >= 3:
        grid[[1, 2]] = grid[[2, 1]]
    return grid


THIRD = replace(of_step("third", third_without_its_two, SCHEDULE), order=3)
GUESSED = Sampler("guessed", TABLE, guessed_time, linspaced, any_grid=False)
SQUARED = replace(of_step("squared", squared_noise, SCHEDULE), noisy=True)
LATE = Sampler("late", SCHEDULE, late_noise, lambda n: trailing(SCHEDULE, n), noisy=True)
RISING = Sampler("rising", TABLE, right("ddim", TABLE).sample, rising)
