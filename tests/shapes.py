"""beartype and what jaxtyping prepares for it, made once a function.

The suite's checker of shapes decorates local functions on every call of the function around them.
jaxtyping then compiles two stand-ins without a body, functions of name and signature alone, and
beartype compiles their checks: a millisecond, longer than most of what they check. Both are
functions of the signature, so they are kept here by it. A function with a body or a closure must
not come this way.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jaxtyping._decorator as jaxtyped
from beartype import beartype

_stand_in = jaxtyped._make_fn_with_signature
_evaluated = jaxtyped._destring_annotation
_kept_stand_in = cache(_stand_in)
_checked = cache(beartype)
_hints: dict[tuple[object, int], object] = {}


def stand_in(
    name: str, qualname: str, module: str, signature: inspect.Signature, output: bool
) -> Any:
    """jaxtyping's function of that name and signature, compiled at the first call."""
    try:
        return _kept_stand_in(name, qualname, module, signature, output)
    except TypeError:  # a default that has no hash
        return _stand_in(name, qualname, module, signature, output)


def evaluated(annotation: object, module: Mapping[str, object]) -> object:
    """An annotation as jaxtyping evaluates it in a module's namespace."""
    try:
        key = annotation, id(module)
        if key not in _hints:
            _hints[key] = _evaluated(annotation, module)
        return _hints[key]
    except TypeError:  # an annotation that has no hash
        return _evaluated(annotation, module)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype's check of the calls of `function`: pyproject.toml names it to the hook."""
    return _checked(function)


jaxtyped._make_fn_with_signature = stand_in
jaxtyped._destring_annotation = evaluated
