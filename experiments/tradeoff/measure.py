"""Samples of one model by many solvers: their errors, their seconds and the reference ends."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from diffusion_math.grid import GRIDS, karras
from diffusion_math.noise import start_noise, zeros
from diffusion_math.sample import final
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.registry import SOLVERS
from experiments.common.machine import synchronize
from sd.pipeline import TextToImage

Interval = tuple[float, float]
EVERYWHERE: Interval = (0.0, math.inf)
Job = tuple[str, int, str, Interval]
"""Solver, number of steps, grid, guidance interval."""
Run = tuple["Tensor", float, list[int]]


@dataclass(frozen=True)
class Point:
    """One setting of the sampler and its measurements.

    nfe, rows: evaluations of the U-Net and rows of their batches, means over the images. seconds:
    of each image. errors: the RMS distance of each sample from the exact end of its flow.
    from_guided: the same from the end of the flow with guidance at every noise level.
    """

    solver: str
    steps: int
    grid: str
    interval: Interval
    nfe: float
    rows: float
    seconds: tuple[float, ...]
    errors: tuple[float, ...]
    from_guided: tuple[float, ...]

    @property
    def time(self) -> tuple[float, Interval]:
        """The median of the seconds, and their range."""
        return median(self.seconds), (min(self.seconds), max(self.seconds))

    @property
    def error(self) -> float:
        """The RMS error over all images."""
        return rms(self.errors)


@dataclass(frozen=True)
class Target:
    """The reference ends of one interval's flow, `(batch, *latent)`.

    doubt: their error, estimated by Richardson's rule for a second-order solver: the distance from
    the ends with half the steps, over 3.
    """

    interval: Interval
    ends: Tensor
    doubt: float


@dataclass(frozen=True, eq=False)
class TimedSampling:
    """Timed samples of one model, each with its prompt and its seed, at one guidance scale."""

    pipeline: TextToImage
    prompts: Sequence[str]
    seeds: Sequence[int]
    scale: float

    def target(self, interval: Interval, steps: int) -> Target:
        """The reference ends by Heun's method with so many steps, and their error."""
        half, whole = (
            self._end("heun", certain(self.pipeline.schedule, n, interval), interval, slice(None))
            for n in (steps // 2, steps)
        )
        return Target(interval, whole, rms(each(half, whole)) / 3)

    def errors(self, job: Job, target: Target) -> list[float]:
        """The RMS distance of every picture's end from the flow's, all pictures in one batch."""
        solver, steps, grid, interval = job
        times = GRIDS[grid](self.pipeline.schedule, steps)
        return each(self._end(solver, times, interval, slice(None)), target.ends)

    def points(
        self, jobs: Sequence[Job], targets: dict[Interval, Target], tick: Callable[[], object]
    ) -> list[Point]:
        """Every job on each image, one image at a time.

        All jobs run on one image before the next, so that a slow period of the machine affects one
        of the times of each median only.
        """
        self._run(jobs[0], 0)  # warm-up
        runs: list[list[Run]] = [[] for _ in jobs]
        for k in range(len(self.seeds)):
            for job, own in zip(jobs, runs, strict=True):
                own.append(self._run(job, k))
                tick()
        found = []
        for job, own in zip(jobs, runs, strict=True):
            ends, seconds, rows = zip(*own, strict=True)
            counts = fmean(map(len, rows)), fmean(map(sum, rows))
            end = torch.cat(ends)
            errors = each(end, targets[job[3]].ends)
            away = each(end, targets[EVERYWHERE].ends)
            found.append(Point(*job, *counts, seconds, tuple(errors), tuple(away)))
        return found

    def _run(self, job: Job, k: int) -> Run:
        """The end of one image, its seconds, and the rows of each evaluation of the U-Net."""
        solver, steps, grid, interval = job
        times = GRIDS[grid](self.pipeline.schedule, steps)
        with counted(self.pipeline.unet) as rows:
            synchronize(self.pipeline.device)
            start = time.perf_counter()
            end = self._end(solver, times, interval, slice(k, k + 1))
            synchronize(self.pipeline.device)
            return end, time.perf_counter() - start, rows

    def _end(self, solver: str, grid: Tensor, interval: Interval, which: slice) -> Tensor:
        limits = None if interval == EVERYWHERE else interval
        negative, positive = self._contexts
        denoise = self.pipeline.denoiser((negative, positive[which]), self.scale, limits)
        step = SOLVERS[solver](self.pipeline.schedule)
        with torch.no_grad():
            state = final(step, denoise, self._starts[which], grid, zeros)
        return state

    @cached_property
    def _starts(self) -> Tensor:
        drawn = start_noise(self.seeds, self.pipeline.config.latent_shape)
        return drawn.to(self.pipeline.device)

    @cached_property
    def _contexts(self) -> tuple[Tensor, Tensor]:
        found = self.pipeline.encode_prompts(["", *self.prompts])
        return found[:1], found[1:]


def certain(schedule: Schedule, steps: int, interval: Interval) -> Tensor:
    """Karras' grid and two nodes close around each end of the interval, where guidance jumps."""
    grid = karras(schedule, steps)
    ends = [r * (1 + off) for r in interval for off in (-1e-6, 1e-6) if 0 < r < math.inf]
    levels = -2 * torch.tensor(ends, dtype=torch.float64).log()
    low, high = schedule.log_snr(schedule.t_max), schedule.log_snr(schedule.t_min)
    within = (low < levels) & (levels < high)
    return torch.cat([grid, schedule.time(levels[within])]).sort(descending=True).values


@contextmanager
def counted(network: Any) -> Iterator[list[int]]:
    """The rows of every evaluation of a network while the context lasts."""
    rows: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    try:
        yield rows
    finally:
        handle.remove()


def each(a: Tensor, b: Tensor) -> list[float]:
    """The RMS difference of each row."""
    squares = (a - b).double().square().flatten(1).mean(1)
    return [math.sqrt(one) for one in squares.tolist()]


def rms(values: Sequence[float]) -> float:
    """The root of the mean square."""
    return math.sqrt(fmean(value**2 for value in values))


def words(interval: Interval) -> str:
    """An interval as text."""
    if interval == EVERYWHERE:
        return "at every noise level"
    return f"at {interval[0]:g} ≤ σ/α ≤ {interval[1]:g}"


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front of points (cost, error), by rising cost.

    A point is dominated by one that is at most as large in both and smaller in one; of equal points
    the first counts.
    """
    best, least = [], math.inf
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < least:
            best.append(i)
            least = points[i][1]
    return best
