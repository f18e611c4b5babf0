"""Argument checks: a ValueError names the argument, the wanted value and the given one."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Number: TypeAlias = int | float
"""A float or an int: run-time type checkers do not accept an int as a float."""


def require(condition: bool, argument: str, wanted: str, got: object) -> None:
    """Raise `ValueError("argument: wanted ..., got ...")` unless the condition holds."""
    if not condition:
        raise ValueError(f"{argument}: wanted {wanted}, got {got}")


def finite(argument: str, value: Number) -> None:
    """Raise ValueError unless the number is neither NaN nor infinite."""
    require(math.isfinite(value), argument, "a finite number", value)


def between(argument: str, value: Number, low: Number, high: Number) -> None:
    """Raise ValueError unless low <= value <= high (so NaN raises)."""
    require(low <= value <= high, argument, f"a number in [{low:g}, {high:g}]", value)


def interval(argument: str, ends: Sequence[Number]) -> None:
    """Raise ValueError unless the ends are two numbers, 0 <= low < high (high may be infinite)."""
    valid = len(ends) == 2 and 0 <= ends[0] < ends[1]
    require(valid, argument, "two numbers, 0 <= low < high", tuple(ends))


def whole(argument: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ValueError unless the value is an int (bool is none) with low <= value <= high."""
    wanted = f"a whole number of at least {low}"
    wanted += "" if high is None else f" and at most {high}"
    require(isinstance(value, int) and not isinstance(value, bool), argument, wanted, repr(value))
    assert isinstance(value, int)  # for the type checker: the line above has raised otherwise
    require(low <= value and (high is None or value <= high), argument, wanted, value)


def all_between(argument: str, values: Tensor, low: Number, high: Number) -> None:
    """Raise ValueError unless every entry lies in [low, high] (so NaN raises)."""
    inside = (values >= low) & (values <= high)
    if not bool(inside.all()):
        wanted = f"every entry in [{low:g}, {high:g}]"
        require(False, argument, wanted, values[~inside].flatten()[0].item())


def same_shape(argument: str, value: Tensor, reference: Tensor) -> None:
    """Raise ValueError unless both tensors have one shape."""
    wanted = f"shape {tuple(reference.shape)}"
    require(value.shape == reference.shape, argument, wanted, f"shape {tuple(value.shape)}")


def symmetric(argument: str, matrices: Tensor) -> None:
    """Raise ValueError unless each matrix equals its transpose up to a covariance's rounding.

    An entry's tolerance is relative to its two standard deviations. By Cauchy-Schwarz that bounds
    the rounding of a sum of products, whatever the size of other entries.
    """
    deviations = matrices.diagonal(dim1=-2, dim2=-1).double().abs().sqrt()
    eps = torch.finfo(torch.promote_types(matrices.dtype, torch.float32)).eps
    allowed = max(1e-12, matrices.shape[-1] * eps)
    off = (matrices.double() - matrices.mT.double()).abs()
    even = off <= allowed * deviations[..., :, None] * deviations[..., None, :]
    require(bool(even.all()), argument, "a symmetric matrix", matrices)


def differentiable(argument: str, value: Tensor) -> None:
    """Raise ValueError for a dtype too coarse for finite differences."""
    fine = value.dtype in (torch.float32, torch.float64)
    require(fine, argument, "float32 or float64", value.dtype)


def scalar_or_batch(argument: str, value: Tensor, x: Tensor) -> None:
    """Raise ValueError unless the shape is () or (batch,), the batch being x's first axis."""
    valid = value.ndim == 0 or (x.ndim > 0 and value.shape == x.shape[:1])
    wanted = f"shape () or (batch,) = {tuple(x.shape[:1])}"
    require(valid, argument, wanted, f"shape {tuple(value.shape)}")


def strictly_decreasing(argument: str, grid: Tensor) -> None:
    """Raise ValueError unless the tensor is 1-D, non-empty, and each entry is below the last."""
    wanted = "a non-empty, strictly decreasing 1-D tensor"
    require(grid.ndim == 1 and grid.numel() > 0, argument, wanted, f"shape {tuple(grid.shape)}")
    rises = ~(grid[1:] < grid[:-1])
    if bool(rises.any()):
        i = int(rises.nonzero()[0])
        pair = f"{grid[i].item():g} then {grid[i + 1].item():g} at index {i}"
        require(False, argument, wanted, pair)
    require(not bool(grid.isnan().any()), argument, wanted, "NaN")


def earlier(s: Tensor, t: Tensor) -> None:
    """Raise ValueError unless s < t everywhere: s is the time closer to clean data."""
    if not bool(torch.as_tensor(s < t).all()):
        require(False, "s", f"s < t = {t.tolist()}", s.tolist())
