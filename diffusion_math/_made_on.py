"""The schedules that a step or a denoiser was made on."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.schedule import Schedule

__all__ = ["made_on", "require_one_schedule"]

SAME = 1e-3
"""Relative difference up to which noise levels are the same: rounding a beta schedule to float32
changes them less."""


def require_one_schedule(
    step: Callable[..., Any], denoise: Callable[..., Any], grid: Tensor
) -> None:
    """Raise ValueError if a step and a denoiser were made on schedules that differ on the grid.

    Schedules are compared by alpha_t and sigma_t. A function of the user's own may be made on any,
    or convert between two, so it is not asked.
    """
    for one in made_on(step):
        for other in made_on(denoise):
            same = one is other or _alike(one, other, grid)
            require(same, "denoise", f"a denoiser on the schedule of the step, {one}", other)


def made_on(made: object) -> Iterator[Schedule]:
    """The schedules of a step or a denoiser of this package, and of those that it calls."""
    waiting, seen = [made], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Schedule):
            yield one
        elif id(one) not in seen:
            seen.add(id(one))
            waiting += _held(one)


def _held(made: object) -> list[object]:
    """What a function of this package was made from."""
    function = made.func if isinstance(made, partial) else made
    if str(getattr(function, "__module__", "")).partition(".")[0] != __package__:
        return []
    if isinstance(made, partial):
        return [made.func, *made.args, *made.keywords.values()]
    if not callable(function):
        return []
    found = []
    for cell in getattr(inspect.unwrap(function), "__closure__", None) or ():
        with suppress(ValueError):  # a variable without a value
            found.append(cell.cell_contents)
    return found


def _alike(one: Schedule, other: Schedule, grid: Tensor) -> bool:
    """Whether two schedules have the same alpha and sigma at all nodes that are times of both."""
    try:
        pairs = zip(one(grid), other(grid), strict=True)
    except ValueError:  # a node is no time of one of them, which the step or the denoiser says
        return True
    return all(torch.allclose(a, b, rtol=SAME, atol=0.0) for a, b in pairs)
