"""The suite's checker of shapes: jaxtyping's annotations, checked by beartype at every call.

pyproject.toml gives jaxtyping's import hook to the packages, and the hook decorates each function
of theirs with `jaxtyping.jaxtyped`. This module puts its own `jaxtyped` there. It checks what
jaxtyping's checks, arguments before the call and the value after it under one binding of the
dimensions, at a small part of the price:

- The checks are compiled once for all copies of a local function, and for all values of one type.
- A call's arguments are not bound to names. Only an axis in braces would read them (`"{n}"`).
- The arguments are not checked again with the value: the bindings they made are still there.
- A call that looks like one that passed is not checked again: the same types, of tensors and arrays
  the same shapes and dtypes, and the same strings, which a Literal tells apart.

A call with wrong arguments goes to jaxtyping's own function, which names the wrong one.
"""

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from inspect import Parameter
from types import FunctionType
from typing import Any, NamedTuple

import jaxtyping
import jaxtyping._decorator as original
import numpy as np
from beartype import beartype
from jaxtyping._storage import get_shape_memo, pop_shape_memo, push_shape_memo, set_shape_memo
from torch import Tensor

_jaxtyped = original.jaxtyped
_VALUE = original._gensym(frozenset(), prefix="ret")
_Check = Callable[..., object]
_MOST = 1000
"""Looks of calls that are kept for a function."""


class _Checks(NamedTuple):
    """Of arguments and of a value; what looks that passed have bound, and those with a value's."""

    arguments: _Check
    value: _Check
    passed: dict[object, tuple[dict[Any, Any], ...]]
    returned: set[object]


_checks: dict[object, _Checks] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype's check of the calls of `function`: pyproject.toml names it to the hook."""
    return beartype(function)


def _compiled(function: FunctionType) -> _Checks:
    """The check of the arguments and the check of the value."""
    signature = inspect.signature(function)
    space = function.__globals__
    parameters = [
        one.replace(annotation=original._destring_annotation(one.annotation, space))
        for one in signature.parameters.values()
    ]
    names = function.__name__, function.__qualname__, function.__module__
    value = original._destring_annotation(signature.return_annotation, space)
    try:
        return _Checks(_stand_in(*names, parameters), _of_value(value), {}, set())
    except TypeError:  # an annotation that has no hash
        return _Checks(_stand_in(*names, parameters), _of_value.__wrapped__(value), {}, set())


def _stand_in(name: str, qualname: str, module: str, parameters: list[Parameter]) -> _Check:
    """A function without a body that checks its arguments."""
    signature = inspect.Signature(parameters, return_annotation=Any)
    return checked(
        original._make_fn_with_signature(name, qualname, module, signature, output=False)
    )


@functools.cache
def _of_value(annotation: object) -> _Check:
    """A function of the keyword `_VALUE` that checks it as what a function returns."""
    signature = inspect.Signature(return_annotation=annotation)
    made, name = original._make_fn_with_signature(
        "value", "value", __name__, signature, output=True
    )
    assert name == _VALUE
    return checked(made)


def checks(function: FunctionType) -> _Checks:
    """`_compiled`, once for all functions of one text and one signature."""
    key = (
        function.__module__,
        function.__qualname__,
        function.__code__,
        function.__defaults__,
        tuple((function.__kwdefaults__ or {}).items()),
        tuple(function.__annotations__.items()),
    )
    try:
        if key not in _checks:
            _checks[key] = _compiled(function)
        return _checks[key]
    except TypeError:  # a default or an annotation that has no hash
        return _compiled(function)


def _hold(x: object) -> object:
    raise TypeError(f"{type(x)} may hold others")


class _Readers(dict[type, Callable[[Any], object]]):
    """Of each type what reads off its objects all that a check sees of them.

    It raises TypeError for what holds others and is no NamedTuple: a check may look at one of many.
    """

    def __missing__(self, kind: type) -> Callable[[Any], object]:
        self[kind] = read = self._reader(kind)
        return read

    def _reader(self, kind: type) -> Callable[[Any], object]:
        if issubclass(kind, Tensor | np.ndarray):
            return lambda x: (kind, x.dtype, x.shape)
        if issubclass(kind, str | Enum | type):
            return lambda x: (kind, x)
        if hasattr(kind, "_fields"):  # a NamedTuple
            return lambda x: (kind, *[self[type(one)](one) for one in x])
        if hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"):
            return _hold
        return lambda x: kind


_readers = _Readers()


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """`function` with its shapes checked; a class goes to jaxtyping, which checks a dataclass."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(function, FunctionType):
        return _jaxtyped(function, typechecker=typechecker)
    if function.__globals__ is globals():  # the inherited __init__ of a dataclass is checked
        return function
    arguments, value, passed, returned = checks(function)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        try:
            look = [_readers[type(x)](x) for x in args]
            if kwargs:
                look += [*kwargs, *(_readers[type(x)](x) for x in kwargs.values())]
            look = tuple(look)
        except TypeError:
            look = None
        push_shape_memo({})
        try:
            memo = passed.get(look)
            if memo is None:
                try:
                    arguments(*args, **kwargs)
                except Exception:  # jaxtyping's own function says what is wrong
                    return _jaxtyped(function, typechecker=typechecker)(*args, **kwargs)
                if look is not None and len(passed) < _MOST:
                    passed[look] = tuple(map(dict, get_shape_memo()))
            out = function(*args, **kwargs)
            try:
                whole = None if look is None else (look, _readers[type(out)](out))
            except TypeError:
                whole = None
            if whole in returned:
                return out
            if memo is not None:
                set_shape_memo(*map(dict, memo))
            try:
                value(**{_VALUE: out})
            except Exception as wrong:
                name = f"{function.__module__}.{function.__qualname__}"
                raise jaxtyping.TypeCheckError(f"the value of {name}: {wrong}") from wrong
            if whole is not None and len(returned) < _MOST:
                returned.add(whole)
            return out
        finally:
            pop_shape_memo()

    return wrapped


original.jaxtyped = jaxtyping.jaxtyped = jaxtyped
