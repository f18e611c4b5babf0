"""Coefficients of single times, computed once."""

import functools
import inspect
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["forget", "kept", "numbers", "scalar"]

MOST = 2**12
"""Values kept of each function; those not used for longest are computed again."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


_CACHES: list[Callable[[], None]] = []


def _cached(function: _Function) -> _Function:
    """The function with the values that were used last; not those for which it raises."""
    cached = functools.lru_cache(MOST)(function)
    _CACHES.append(cached.cache_clear)
    return cast(_Function, cached)


def forget() -> None:
    """Compute every coefficient again, as in a new process."""
    for clear in _CACHES:
        clear()


def kept(function: _Function) -> _Function:
    """A function of a schedule, times and settings, whose values are kept for single times.

    The coefficients of a step depend on its two times alone, so a sampler's second run on a grid
    finds them all. Times of shape (batch,) are computed in each call, and so is everything for a
    schedule that is not `fixed`. What is returned is the caller's own: tensors are copies. A
    table of levels does not live longer for that.
    """

    signature = inspect.signature(function)

    @_cached
    def at(*key: Any) -> tuple[Any, bool]:
        value = function(*(one() if isinstance(one, weakref.ref) else one for one in key))
        parts = value if isinstance(value, tuple) else (value,)
        tensors = [one for one in parts if isinstance(one, Tensor)]
        _require_plain(*tensors)
        return value, bool(tensors)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():  # what is traced has no cache
            return function(*given, **named)
        try:
            key = _key(signature.bind(*given, **named).args if named else given)
            found = None if key is None else at(*key)
        except (TypeError, ValueError):  # the message names what was given; or it is not plain
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
    key: list[Any] = []
    for one in given:
        if isinstance(one, Tensor):
            if one.ndim:
                return None
            key.append(one.item())
        elif isinstance(one, float) or not hasattr(one, "fixed"):
            key.append(one)
        elif one.fixed:
            # The values of a schedule that equals itself alone are of no use after its end.
            kind: Any = type(one)
            alone = kind.__hash__ is object.__hash__
            key.append(weakref.ref(one) if alone else one)
        else:
            return None
    return key


def _require_plain(*tensors: Tensor) -> None:
    """Raise TypeError for what stands for a tensor and ends with it, as in a `FakeTensorMode`."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # by torch.func
    if any(type(one) is not Tensor or wrapped(one) for one in tensors):
        raise TypeError("wanted plain tensors")


def scalar(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor `()` on the CPU, made once; it must not be changed."""
    if not torch.compiler.is_compiling():
        with suppress(TypeError):
            return _scalar(value, dtype)
    return torch.scalar_tensor(value, dtype=dtype, device="cpu")


@_cached
@torch.inference_mode(False)  # usable outside too
def _scalar(value: float, dtype: torch.dtype) -> Tensor:
    made = torch.scalar_tensor(value, dtype=dtype, device="cpu")
    _require_plain(made)
    return made


def numbers(*coefficients: Tensor) -> tuple[float | Tensor, ...]:
    """Coefficients of shape () as floats, others as they are."""
    return tuple(one if one.ndim else one.item() for one in coefficients)
