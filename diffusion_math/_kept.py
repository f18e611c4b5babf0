"""Coefficients of single times, computed once."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["kept", "numbers", "scalar"]

MOST = 2**12
"""Values kept of each function; those not used for longest are computed again."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kept(function: _Function) -> _Function:
    """A function of a schedule, times and settings, whose values are kept for single times.

    The coefficients of a step depend on its two times alone, so a sampler's second run on a grid
    finds them all. Times of shape (batch,) are computed in each call, and so is everything for a
    schedule that is not `fixed`. What is returned is the caller's own: tensors are copies.
    """

    signature = inspect.signature(function)

    @functools.lru_cache(MOST)
    def at(*key: Any) -> tuple[Any, bool]:
        value = function(*key)
        parts = value if isinstance(value, tuple) else (value,)
        return value, any(isinstance(one, Tensor) for one in parts)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            key = _key(signature.bind(*given, **named).args if named else given)
            found = None if key is None else at(*key)
        except (TypeError, ValueError):  # the message names what was given
            found = None
        if found is None:
            return function(*given, **named)
        value, has_tensors = found
        if not has_tensors:
            return value
        if isinstance(value, tuple):
            return tuple(one.clone() if isinstance(one, Tensor) else one for one in value)
        return value.clone()

    return cast(_Function, call)


def _key(given: Sequence[Any]) -> list[Any] | None:
    """Arguments with numbers for single times, or None if their values are not kept."""
    key = []
    for one in given:
        if isinstance(one, Tensor):
            if one.ndim:
                return None
            key.append(one.item())
        elif isinstance(one, float) or getattr(one, "fixed", True):
            key.append(one)
        else:
            return None
    return key


@functools.lru_cache(MOST)
@torch.inference_mode(False)  # usable outside too
def scalar(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor `()` on the CPU, made once; it must not be changed."""
    return torch.scalar_tensor(value, dtype=dtype, device="cpu")


def numbers(*coefficients: Tensor) -> tuple[float | Tensor, ...]:
    """Coefficients of shape () as floats, others as they are."""
    return tuple(one if one.ndim else one.item() for one in coefficients)
