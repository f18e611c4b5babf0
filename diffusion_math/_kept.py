"""Coefficients of single times, computed once."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

__all__ = ["kept", "numbers"]

MOST = 2**12
"""Values kept of each function; those not used for longest are computed again."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kept(function: _Function) -> _Function:
    """A function of a schedule, times and settings, whose values are kept for single times.

    The coefficients of a step depend on its two times alone, so a sampler's second run on a grid
    finds them all. Times of shape (batch,) are computed in each call, and so is everything for a
    schedule that is not `fixed`. What is returned is the caller's own: tensors are copies.
    """

    @functools.lru_cache(MOST)
    def at(*key: Any) -> Any:
        return function(*key)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        key = []
        for one in given:
            if isinstance(one, Tensor):
                if one.ndim:
                    return function(*given, **named)
                one = one.item()
            elif not getattr(one, "fixed", True):
                return function(*given, **named)
            key.append(one)
        try:
            value = at(*key, **named)
        except (TypeError, ValueError):  # the message names what was given
            return function(*given, **named)
        if isinstance(value, tuple):
            return tuple(one.clone() if isinstance(one, Tensor) else one for one in value)
        return value.clone() if isinstance(value, Tensor) else value

    return cast(_Function, call)


def numbers(*coefficients: Tensor) -> tuple[float | Tensor, ...]:
    """Coefficients of shape () as floats, others as they are."""
    return tuple(one if one.ndim else one.item() for one in coefficients)
