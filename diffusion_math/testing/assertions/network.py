"""Our network in the place of theirs: what it may predict, and how code under test may call it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from diffusion_math import prediction

__all__ = ["KINDS", "Kind", "Network"]

Kind: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""alpha and sigma to (a, b)."""

KINDS: Mapping[str, Kind] = {
    **prediction.KINDS,
    "velocity": lambda alpha, sigma: (torch.ones_like(alpha), -torch.ones_like(alpha)),
}
"""(a, b) of what a network predicts, a x0 + b eps; a velocity is a flow of the other sign."""


@final
class Network(nn.Module):
    """`answer(x_t, *others)` as a module: x_t and the rest by place or by any name."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *given: Any, **named: Any) -> Any:
        """The answer; in a tuple, or as its own `sample`, for code in diffusers' way."""
        plain = named.pop("return_dict", True)
        events = (name for name, value in named.items() if getattr(value, "ndim", 0) > 1)
        first = next(events, None) if not given else None
        if first is not None:
            given = (named.pop(first),)
        found = self.answer(*given, *named.values())
        if isinstance(found, Tensor):
            result: Any = found
            result.sample = found.view_as(found)
        return found if plain else (found,)
