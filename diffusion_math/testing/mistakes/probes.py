"""Coefficients of code that is affine in its arguments, read off with a few vectors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_math.checks import require

__all__ = ["coefficients", "tensor", "time_batch"]

VECTORS = (1.0, -2.0, 0.5, 3.0)
"""The entries of an event: different, so that a mixture of entries shows; exact in any dtype."""

Call = Callable[[Mapping[str, Tensor]], Any]
"""Arguments by name, each `(rows, 4)`, to the result of that shape."""


def coefficients(
    subject: str, call: Call, names: Sequence[str], rows: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], float]:
    """Result = sum of coefficient x argument + offset: each coefficient `(rows,)`, in float64.

    Returns them with the relative rounding of the result's dtype. Raises AssertionError where the
    result is of another shape, or is no such sum, entry by entry.
    """
    vector = torch.tensor(VECTORS, dtype=dtype).expand(rows, -1)
    zero = torch.zeros_like(vector)
    offset, eps = tensor(subject, call(dict.fromkeys(names, zero)), vector)
    found, total = {}, offset.clone()
    for name in names:
        result, _ = tensor(subject, call({**dict.fromkeys(names, zero), name: vector}), vector)
        each = (result - offset) / vector.double()
        found[name] = each[:, 0]
        slack = 64 * eps * (each.abs().amax(1) + offset.abs().amax(1))
        mixed = ~((each - each[:, :1]).abs().amax(1) <= slack)
        assert not bool(mixed.any() & each.isfinite().all()), (
            f"{subject}: {name} does not act entry by entry: an event of {VECTORS} gives "
            f"{result[int(mixed.int().argmax())].tolist()}"
        )
        total += result - offset
    result, _ = tensor(subject, call(dict.fromkeys(names, vector)), vector)
    size = sum((found[name].abs() for name in names), offset.abs().amax(1))
    straight = (result - total).abs().amax(1) <= 256 * eps * 3 * size
    broken = ~straight & result.isfinite().all(1)
    assert not bool(broken.any()), f"{subject}: wanted a sum of multiples of {', '.join(names)}"
    if bool(offset.any()):
        found["offset"] = offset[:, 0]
    return found, eps


def tensor(subject: str, value: Any, like: Tensor) -> tuple[Tensor, float]:
    """What was returned, in float64 and `like`'s shape, with the relative rounding of its dtype."""
    found = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
    eps = torch.finfo(found.dtype).eps if found.is_floating_point() else 2.0**-52
    given = tuple(found.shape)
    if found.ndim == 1 and given == tuple(like.shape[:1]):
        found = found[:, None]
    try:
        full = found.detach().cpu().double().broadcast_to(like.shape)
    except RuntimeError:
        raise AssertionError(
            f"{subject}: wanted a result of shape {tuple(like.shape)}, got {given}"
        ) from None
    return full, float(eps)


def time_batch(times: Sequence[int | float | None]) -> Tensor:
    """Their times as a batch: int64 where all are whole numbers, else float64."""
    given = [time for time in times if time is not None]
    require(len(given) == len(times), "times", "times of their own", "clean data, which has none")
    whole = all(isinstance(time, int) for time in given)
    return torch.tensor(given, dtype=torch.int64 if whole else torch.float64)
