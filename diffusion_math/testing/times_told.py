"""Whether the denoiser is told the time of what it is shown.

On data without spread every input of the denoiser is a normal of known mean and deviation. At the
time t that is told they are those of x_t, however often and wherever in a step the sampler calls,
if it is exact for a constant x0. Of all samplers it is known of an input that is the start or a
state which the sampler shows: it is told the time of its node.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from diffusion_math.checks import real
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule
from diffusion_math.testing.conformance import Finding, level_errors, off_levels, on_a_point
from diffusion_math.testing.moments import Moments
from diffusion_math.testing.problems import POINT, point_denoiser, starts
from diffusion_math.testing.sampler import Sampler

__all__ = ["TOLERANCE", "times_told"]

TOLERANCE = 4096 * 2.0**-23
"""Relative error of a level that is rounding of the time: a network may be told it in float32.

At VPCosine's t_max alpha changes by 1,000 times as much as t, relatively; a clock such as 1000 t
and back is some four roundings.
"""

LEAST = 1e-3
"""The error of alpha or sigma at a node is relative to it, or to this where it is below."""


Result = TypeVar("Result")


class _NotRunError(Exception):
    """A run of the sampler raised."""


def _ran(run: Callable[[], Result]) -> Result:
    """What a run of code that is audited gives, which may raise anything."""
    try:
        return run()
    except Exception as crash:
        raise _NotRunError from crash


@final
@dataclass
class _Calls:
    """A denoiser that keeps its inputs, and the time of each; None where its rows have several."""

    denoise: Denoiser
    inputs: list[Tensor] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)

    def __call__(self, x: Tensor, t: Any) -> Tensor:
        told = real("t", t).flatten()
        one = len(set(told.nan_to_num().tolist())) == 1
        self.inputs.append(x.detach().double().cpu().clone())
        self.times.append(float(told[0]) if one else None)
        return self.denoise(x, t)

    def like(self, shape: tuple[int, ...]) -> list[tuple[Tensor, float]]:
        """The calls whose x is of this shape and whose rows have one time."""
        both = zip(self.inputs, self.times, strict=True)
        return [(x, t) for x, t in both if tuple(x.shape) == shape and t is not None]


def times_told(sampler: Sampler, counts: Iterable[int], every: bool = True) -> Finding | None:
    """The largest relative error of a noise level whose time the denoiser is told.

    Args:
        every: look at every call; else at those whose x is the start or a state alone.

    None where no number of steps can be run, of which `levels` tells, or no call can be judged: its
    x is of another shape than a state, or its rows have several times.
    """
    worst, judged = Finding(0.0, None, "every time told is that of its x"), False
    for n in counts:
        try:
            grid = _ran(partial(sampler.times, n))
            found = [*_of_nodes(sampler, grid), *(_of_levels(sampler, grid) if every else ())]
        except _NotRunError:
            continue
        judged = judged or bool(found)
        for off, words in found:
            if off > worst.worst:
                worst = Finding(off, n, words)
    return worst if judged else None


def _of_nodes(sampler: Sampler, grid: Tensor) -> Iterator[tuple[float, str]]:
    """The error of each call whose x is the start or a state, and where it is, in words."""
    generator = torch.Generator().manual_seed(0)

    def noise(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(
            x.dtype
        )

    alpha, sigma = _ran(partial(sampler.schedule, grid))
    x, calls = alpha[0] * POINT + sigma[0] * starts(), _Calls(point_denoiser)
    states = [x, *_ran(partial(sampler.states, calls, x, grid, noise))]
    nodes = torch.stack(states if len(states) == len(grid) else states[:1]).double()
    close = max(64 * sampler.precision, 1e-9) * nodes.abs().amax((1, 2))
    for k, (seen, t) in enumerate(calls.like(tuple(x.shape)), 1):
        same = ((nodes - seen).abs().amax((1, 2)) <= close).nonzero()[:, 0].tolist()
        if same:
            errors = [_of_two(sampler.schedule, t, alpha[i], sigma[i]) for i in same]
            node = "the start" if same[0] == 0 else f"the state after step {same[0]}"
            time = float(grid[same[0]])
            yield min(errors), f"call {k} is told t = {t:.6g} of {node}, which is at {time:.6g}"


def _of_two(schedule: Schedule, t: float, alpha: Tensor, sigma: Tensor) -> float:
    """How far the levels at t are from these."""
    try:
        told = schedule(torch.tensor(t, dtype=torch.float64, device="cpu"))
    except ValueError:  # no time of the schedule
        return math.inf
    pairs = zip(told, (alpha, sigma), strict=True)
    off = torch.stack([(a - b).abs() / b.clamp(min=LEAST) for a, b in pairs])
    return float(off.nan_to_num(nan=math.inf).max())


def _of_levels(sampler: Sampler, grid: Tensor) -> list[tuple[float, str]]:
    """The error of each call's level on data that are one point, and where it is, in words."""
    words: list[str] = []

    def look(denoise: Denoiser) -> Tensor:
        calls = _Calls(denoise)
        drawn = len(_ran(partial(on_a_point, sampler, grid, calls)).times)
        found = calls.like((1 + len(POINT) * (1 + drawn), len(POINT)))
        if not found:
            return torch.zeros(0, 2, len(POINT), device="cpu")
        moments = Moments.of_rows(torch.stack([x for x, _ in found]))
        levels = [_levels(sampler.schedule, t, _seen(moments, k)) for k, (_, t) in enumerate(found)]
        alpha, sigma = torch.tensor(levels, dtype=torch.float64, device="cpu").T
        words[:] = [_words(moments, k, t, len(found)) for k, (_, t) in enumerate(found)]
        return off_levels(moments, alpha, sigma).nan_to_num(nan=math.inf)

    return list(zip(level_errors(sampler, look), words, strict=True))


def _levels(schedule: Schedule, t: float, seen: tuple[float, float]) -> tuple[float, float]:
    """alpha and sigma at a time that is told; nan where the schedule has no such time.

    Where what is `seen` is noisier than all of the schedule, as after churn at its first node, no
    time of it is right, and the levels are those that are seen.
    """
    try:
        alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64, device="cpu"))
    except ValueError:
        most = [
            float(level)
            for level in schedule(torch.tensor(schedule.T, dtype=torch.float64, device="cpu"))
        ]
        beyond = t > schedule.T and seen[1] * most[0] > (1 + TOLERANCE) * abs(seen[0]) * most[1]
        return seen if beyond else (math.nan, math.nan)
    return float(alpha), float(sigma)


def _seen(found: Moments, k: int) -> tuple[float, float]:
    """alpha and sigma of the k-th input."""
    spread = found.columns[k][:, 0].square().sum().sqrt()
    return float(found.means[k, 0] / POINT[0]), float(spread)


def _words(found: Moments, k: int, t: float, calls: int) -> str:
    alpha, sigma = _seen(found, k)
    return f"call {k + 1} of {calls} is told t = {t:.6g}; its x is {alpha:.4g} x0 + {sigma:.4g} eps"
