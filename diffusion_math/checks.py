"""Argument checks: a ValueError names the argument, the wanted value and the given one.

`checked` reads types off a function's annotations; the rest are called for ranges and shapes.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from types import FunctionType, NoneType, UnionType
from typing import (
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import jaxtyping
import numpy as np
import torch
from torch import Tensor

Number: TypeAlias = int | float
"""A float or an int: run-time type checkers do not accept an int as a float."""

_Value = TypeVar("_Value")
_Checked = TypeVar("_Checked", bound=Callable[..., Any])


class _Rule(NamedTuple):
    """What an annotation accepts: in words, as a test, and types whose every value passes it."""

    wanted: str
    valid: Callable[[Any], bool]
    types: set[type]


def checked(function: _Checked) -> _Checked:
    """The function (or dataclass), with the types of its arguments checked before its body runs.

    A call raises ValueError for the first argument whose type is not its annotation's: a list for a
    tensor, whole numbers where a tensor is `Float`, a number for a function, a schedule's class for
    a schedule. Shapes and ranges are left to the body; an annotation that is unknown, to nobody.

    >>> import diffusion_math as dm
    >>> dm.ddim(0.5)
    Traceback (most recent call last):
        ...
    ValueError: schedule: wanted a Schedule, got 0.5
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return cast(_Checked, function)
    rules = {
        name: _rule(one.annotation) for name, one in inspect.signature(function).parameters.items()
    }
    in_order = tuple(rules.items())

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        for (name, rule), value in zip(in_order, given, strict=False):
            if type(value) not in rule.types and not rule.valid(value):
                require(False, name, rule.wanted, shown(value))
        for name, value in named.items():
            rule = rules.get(name, _ANYTHING)  # a name that is no parameter's: Python says so
            if type(value) not in rule.types and not rule.valid(value):
                require(False, name, rule.wanted, shown(value))
        return function(*given, **named)

    return cast(_Checked, call)


def described(value: object) -> str:
    """What a value is, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype)[6:]}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def shown(value: object) -> str:
    """A value itself where it is short, what it is elsewhere, for a message."""
    if isinstance(value, NoneType | bool | int | float | str | torch.dtype):
        return repr(value)
    return described(value)


class Registry(dict[str, _Value]):
    """A dict whose KeyError for an unknown name says which names there are, or one that is near.

    >>> import diffusion_math as dm
    >>> dm.SOLVERS["ddimm"]
    Traceback (most recent call last):
        ...
    KeyError: 'ddimm: no such name; did you mean ddim?'
    """

    def __missing__(self, name: object) -> NoReturn:
        near = get_close_matches(str(name), self, n=1)
        said = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(self)}"
        raise KeyError(f"{name}: no such name; {said}")


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
    if values.ndim == 0 and low <= values.item() <= high:
        return
    inside = (values >= low) & (values <= high)
    if not bool(inside.all()):
        wanted = f"every entry in [{low:g}, {high:g}]"
        require(False, argument, wanted, values[~inside].flatten()[0].item())


def real(argument: str, value: Any) -> Tensor:
    """The value as a float64 CPU tensor; ValueError for what is no number and no tensor."""
    try:
        return torch.as_tensor(value, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{argument}: wanted numbers, got {shown(value)}") from None


def as_floats(frozen: Any) -> None:
    """Turn all fields of a frozen dataclass, numbers of any type, into floats.

    Of a coarser type, as `np.float16`, equal objects would compute different results.
    """
    for field in fields(frozen):
        object.__setattr__(frozen, field.name, float(getattr(frozen, field.name)))


def same_shape(argument: str, value: Any, reference: Tensor) -> None:
    """Raise ValueError unless both are tensors of one shape, floating-point as the reference is."""
    if not isinstance(value, Tensor):
        require(False, argument, f"a tensor of shape {tuple(reference.shape)}", shown(value))
    if value.shape != reference.shape:
        wanted, got = f"shape {tuple(reference.shape)}", f"shape {tuple(value.shape)}"
        require(False, argument, wanted, got)
    if reference.is_floating_point() and not value.is_floating_point():
        require(False, argument, _FLOATING.wanted, shown(value))


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
    if not (value.ndim == 0 or (x.ndim > 0 and value.shape == x.shape[:1])):
        wanted = f"shape () or (batch,) = {tuple(x.shape[:1])}"
        require(False, argument, wanted, f"shape {tuple(value.shape)}")


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
    if not bool(torch.as_tensor(s < t, device="cpu").all()):
        require(False, "s", f"s < t = {t.tolist()}", s.tolist())


def _rule(annotation: Any) -> _Rule:
    """What a value must be for an annotation: anything, for one that is unknown."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _any_of([_rule(part) for part in parts])
    if origin is Literal:
        wanted = f"one of {', '.join(map(str, parts))}" if len(parts) > 1 else repr(parts[0])
        return _Rule(wanted, lambda value: value in parts, set())
    if origin is Callable or getattr(annotation, "_is_protocol", False):
        return _function(len(parts[0]) if parts and isinstance(parts[0], list) else None)
    if origin in (Sequence, list, tuple):
        return _SEQUENCE
    if origin is Iterable:
        return _ITERABLE
    return _of_class(origin or annotation) if isinstance(origin or annotation, type) else _ANYTHING


def _any_of(rules: list[_Rule]) -> _Rule:
    if _ANYTHING in rules:
        return _ANYTHING
    words = dict.fromkeys(rule.wanted for rule in rules)
    if _NUMBER.wanted in words:  # a whole number is one
        words.pop(_WHOLE.wanted, None)
    types = set[type]().union(*(rule.types for rule in rules))
    return _Rule(" or ".join(words), lambda value: any(rule.valid(value) for rule in rules), types)


def _of_class(kind: type) -> _Rule:
    if issubclass(kind, jaxtyping.AbstractArray):
        floating = any(str(dtype).startswith("float") for dtype in kind.dtypes)
        return _FLOATING if floating else _TENSOR
    if kind in _CLASSES:
        return _CLASSES[kind]
    name = f"torch.{kind.__name__}" if kind.__module__ == "torch" else kind.__name__
    types = set[type]()

    def valid(value: Any) -> bool:
        if isinstance(value, kind):
            types.add(type(value))  # it is slow to ask an abstract class
            return True
        return False

    return _Rule(f"a {name}", valid, types)


def _function(count: int | None) -> _Rule:
    """Anything that can be called with so many arguments, as far as its signature tells."""

    def valid(value: Any) -> bool:
        if not callable(value):
            return False
        if count is not None and _plainly_takes(value, count):
            return True
        try:
            signature = inspect.signature(value)
        except ValueError:  # a built-in function that has none
            return True
        try:
            signature.bind(*[None] * (count or 0))
        except TypeError:
            return count is None
        return True

    wanted = "a function" if count is None else f"a function of {count} arguments"
    return _Rule(wanted.replace("1 arguments", "one argument"), valid, set())


def _plainly_takes(value: Any, count: int) -> bool:
    """Whether it is a plain function of so many arguments: a signature is slow to ask for."""
    if type(value) is not FunctionType or value.__dict__:  # which may name another signature
        return False
    code = value.__code__
    least = code.co_argcount - len(value.__defaults__ or ())
    return least <= count <= code.co_argcount and code.co_kwonlyargcount == 0


def _is_number(value: Any) -> bool:
    plain = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return plain or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | Tensor | np.ndarray) and not isinstance(value, str)


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) and not (isinstance(value, str) or _is_number(value))


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


_ANYTHING = _Rule("anything", lambda _: True, set())
_SEQUENCE = _Rule("a sequence", _is_sequence, set())
_ITERABLE = _Rule("a sequence", _is_iterable, {range, list, tuple})
_TENSOR = _Rule("a tensor", lambda value: isinstance(value, Tensor), {Tensor})
_FLOATING = _Rule("a floating-point tensor", _is_floating, set())
_NUMBER = _Rule("a number", _is_number, {int, float})
_WHOLE = _Rule("a whole number", lambda value: _is_number(value) and value == value // 1, {int})
_CLASSES: dict[type, _Rule] = {
    Any: _ANYTHING,  # a class in Python 3.11
    object: _ANYTHING,
    inspect.Parameter.empty: _ANYTHING,
    Tensor: _TENSOR,
    float: _NUMBER,
    int: _WHOLE,
    bool: _Rule("True or False", lambda value: isinstance(value, bool | np.bool_), {bool}),
    str: _Rule("a string", lambda value: isinstance(value, str), {str}),
    torch.dtype: _Rule(
        "torch.float64, float32, float16 or bfloat16",
        lambda value: value in (torch.float64, torch.float32, torch.float16, torch.bfloat16),
        set(),
    ),
    NoneType: _Rule("None", lambda value: value is None, {NoneType}),
}
