"""Methods called by the names of their parameters, with arrays of the shape that they take."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from diffusion_math.testing.mistakes.probes import VECTORS, moments, one_by_one, tensor
from diffusion_math.testing.objects.names import PARAMETERS

__all__ = ["Method", "Style"]


class Style(NamedTuple):
    """How a method wants to be called.

    Attributes:
        batched: with t of shape `(batch,)`, or with one plain number and a batch of one.
        numpy: with arrays of numpy in the place of torch's.
        event: the shape of an event; four entries in all.
    """

    batched: bool
    numpy: bool
    event: tuple[int, ...]

    def shaped(self, value: Any) -> Any:
        """An argument: events in this shape, all arrays of this library."""
        if not isinstance(value, Tensor):
            return value
        value = value.reshape(len(value), *self.event) if value.ndim == 2 else value
        return value.numpy() if self.numpy else value

    def flat(self, value: Any) -> Any:
        """A result: arrays of events as `(batch, 4)`, or `(batch, 1)` where that is all."""
        value = moments(value, "variance", "log-variance")
        if isinstance(value, tuple | list):
            return tuple(self.flat(one) for one in value)
        shape: Any = getattr(value, "shape", ())
        return value.reshape(shape[0], -1) if len(shape) == 1 + len(self.event) > 2 else value


STYLES = [
    Style(*one) for one in product((True, False), (False, True), ((4,), (1, 2, 2), (1, 1, 2, 2)))
]
"""In the order in which they are tried."""


@final
@dataclass(frozen=True)
class Method:
    """A method as a function of what it takes, in that order.

    Attributes:
        takes: of `PARAMETERS`; without the noise where the method has no parameter for it.
    """

    name: str
    takes: tuple[str, ...]
    call: Callable[..., Any]
    style: Style = STYLES[0]

    @classmethod
    def named(cls, name: str, method: Callable[..., Any], takes: Sequence[str]) -> "Method | str":
        """By the names of its parameters; why not, where they say nothing."""
        try:
            parameters = list(inspect.signature(method).parameters.values())
        except (TypeError, ValueError):
            return "its parameters can't be read"
        free = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        names = [one.name for one in free]
        found: dict[str, str] = {}
        for what in takes:
            known = [one for one in PARAMETERS[what] if one in names and one not in found.values()]
            if known:
                found[what] = known[0]
            elif what != "eps":
                return f"it has no parameter for {what} among {', '.join(names) or 'none'}"
        for one in free:
            if one.name not in found.values() and one.default is one.empty:
                return f"its parameter {one.name} is not known"
        by_place = [one.name for one in free if one.kind is one.POSITIONAL_ONLY]

        def call(*arguments: Any) -> Any:
            given = {found[what]: one for what, one in zip(found, arguments, strict=True)}
            first = [given.pop(one) for one in by_place if one in given]
            return method(*first, **given)

        return cls(name, tuple(found), call)

    def __call__(self, *arguments: Any) -> Any:
        """In its style, with events as the kit has them, `(batch, 4)`."""
        return self.style.flat(self.call(*(self.style.shaped(one) for one in arguments)))

    @property
    def __name__(self) -> str:
        return self.name

    def styled(self, *sample: Tensor) -> "Method":
        """In the first style that gives an event for each row; the plain one if none does."""
        like = torch.zeros(len(sample[0]), len(VECTORS), device="cpu")
        for style in STYLES:
            one = replace(self, style=style)
            run = one if style.batched else one_by_one(self.name, one)
            try:
                result = run(*sample)
                tensor(self.name, result[0] if isinstance(result, tuple) else result, like)
            except Exception:  # code under test may raise anything: try the next
                continue
            return one
        return self
