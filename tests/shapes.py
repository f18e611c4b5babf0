"""The suite's checker of shapes: jaxtyping's annotations, checked by beartype at every call.

pyproject.toml gives jaxtyping's import hook to the packages, and the hook decorates each function
of theirs with `jaxtyping.jaxtyped`. This module puts its own `jaxtyped` there. It checks what
jaxtyping's checks, arguments before the call and the value after it under one binding of the
dimensions, at a small part of the price:

- The checks are compiled once for all copies of a local function, and for all values of one type.
- A call's arguments are not bound to names. Only an axis in braces would read them (`"{n}"`).
- The arguments are not checked again with the value: the bindings they made are still there.

A call with wrong arguments goes to jaxtyping's own function, which names the wrong one.
"""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from types import FunctionType
from typing import Any

import jaxtyping
import jaxtyping._decorator as original
from beartype import beartype
from jaxtyping._storage import pop_shape_memo, push_shape_memo

_jaxtyped = original.jaxtyped
_VALUE = original._gensym(frozenset(), prefix="ret")
_Check = Callable[..., object]
_checks: dict[object, tuple[_Check, _Check]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype's check of the calls of `function`: pyproject.toml names it to the hook."""
    return beartype(function)


def _compiled(function: FunctionType) -> tuple[_Check, _Check]:
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
        return _stand_in(*names, parameters), _of_value(value)
    except TypeError:  # an annotation that has no hash
        return _stand_in(*names, parameters), _of_value.__wrapped__(value)


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


def checks(function: FunctionType) -> tuple[_Check, _Check]:
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


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """`function` with its shapes checked; a class goes to jaxtyping, which checks a dataclass."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not isinstance(function, FunctionType):
        return _jaxtyped(function, typechecker=typechecker)
    if function.__globals__ is globals():  # the inherited __init__ of a dataclass is checked
        return function
    arguments, value = checks(function)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        push_shape_memo({})
        try:
            try:
                arguments(*args, **kwargs)
            except Exception:  # jaxtyping's own function says what is wrong
                return _jaxtyped(function, typechecker=typechecker)(*args, **kwargs)
            out = function(*args, **kwargs)
            try:
                value(**{_VALUE: out})
            except Exception as wrong:
                name = f"{function.__module__}.{function.__qualname__}"
                raise jaxtyping.TypeCheckError(f"the value of {name}: {wrong}") from wrong
            return out
        finally:
            pop_shape_memo()

    return wrapped


original.jaxtyped = jaxtyping.jaxtyped = jaxtyped
