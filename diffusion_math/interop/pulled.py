"""A trajectory whose denoiser is evaluated by its caller, one evaluation at a time.

A solver's step is a function of what its denoiser and its noise return. So it needs no thread and
no coroutine to wait for a network: it is run again with the answers that it has, up to its first
question that has none. A run is plain data, which can be copied, saved and thrown away at any time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise, zeros
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.step import State, Step

__all__ = ["Pulled", "evaluations"]


class _Wanted(Exception):  # noqa: N818
    """A solver's question to the denoiser that has no answer yet."""

    def __init__(self, x: Tensor, t: Tensor) -> None:
        self.x, self.t = x, t


@final
@dataclass(eq=False)
class Pulled:
    """A run of one solver along a grid.

    Attributes:
        schedule: the solver's. grid: the run's times, strictly decreasing.
        state: at the node `grid[node]`, where the present step begins.
        answers, noises: what the present step has got from the denoiser and the noise.
        x, t: what the denoiser is asked; at the end, x at `grid[-1]`.
    """

    schedule: Schedule
    grid: Tensor
    state: State
    node: int
    x: Tensor
    t: Tensor
    answers: list[Tensor] = field(default_factory=list)
    noises: list[Tensor] = field(default_factory=list)

    @classmethod
    def start(cls, schedule: Schedule, step: Step, grid: Tensor, like: Tensor) -> "Pulled":
        """A run from grid[0]. Its first answer brings the sample: see `answer`.

        Noise that the solver adds before its first question is in that sample already.
        """
        x, t = torch.zeros_like(like), grid[0]
        run = cls(schedule, grid, State(x, t), 0, x, t)
        run._proceed(step, zeros)
        return run

    def answer(self, step: Step, x: Tensor, x0: Tensor, noise: Noise) -> None:
        """Go on with x0, the denoised x, to the next question or to the end.

        x: the sample at time `t`. Where it differs from the run's `x` and a step begins here, the
        state moves with it: x / alpha by as much, as noise leaves x / alpha's mean as it is. Inside
        a step it is the denoiser's affair alone.
        """
        if not self.answers:
            (alpha, _), (alpha_t, _) = self.schedule(self.state.t), self.schedule(self.t)
            ratio = (alpha / alpha_t).to(x)
            self.state = replace(self.state, x=ratio * x + (self.state.x - ratio * self.x))
        self.answers.append(x0)
        self._proceed(step, noise)

    def _proceed(self, step: Step, noise: Noise) -> None:
        while self.node + 1 < len(self.grid):
            t, s = self.grid[self.node : self.node + 2]
            answers, known = iter(self.answers), iter(tuple(self.noises))
            try:
                state = step(_asking(answers), self.state, t, s, self._recorded(known, noise))
            except _Wanted as wanted:
                self.x, self.t = wanted.x, wanted.t
                return
            self.state, self.node = state, self.node + 1
            self.answers, self.noises = [], []
        self.x, self.t = self.state.x, self.state.t

    def _recorded(self, known: Iterator[Tensor], noise: Noise) -> Noise:
        def recorded(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
            z = next(known, None)
            if z is None:
                z = noise(x, t, s)
                self.noises.append(z)
            return z

        return recorded


def _asking(answers: Iterator[Tensor]) -> Denoiser:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        x0 = next(answers, None)
        if x0 is None:
            raise _Wanted(x, t)
        return x0

    return denoise


def evaluations(step: Step, grid: Tensor) -> tuple[list[Tensor], list[int]]:
    """The times of all evaluations of the denoiser along a grid, and the first one of each step.

    The solver is one whose times do not depend on the samples: any but an adaptive one.
    """
    times: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return torch.zeros_like(x)

    start = torch.zeros(1, dtype=torch.float64, device="cpu")
    first = [len(times) for _ in trajectory(step, denoise, start, grid, zeros)]
    return times, first[:-1]
