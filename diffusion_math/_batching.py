"""Row-wise functions in blocks that fit the cache, and grouped by time."""

from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math._kept import scalar
from diffusion_math.schedule import shape_like

__all__ = [
    "Part", "Rows", "Sum", "Term", "by_time", "combined", "in_blocks", "inner", "length",
    "normalised", "over_event", "parts", "places", "softmax", "sums", "wide",
]  # fmt: skip

Rows: TypeAlias = Callable[[Tensor], Tensor]
"""A function of `(n, D)`, row by row."""

BLOCK = 2**18
"""Entries in a block of intermediate results: 2 MiB in float64, a core's cache."""


FEW = 8
"""Up to this many columns, column operations are up to ten times faster than row reductions."""


def sums(x: Tensor) -> Tensor:
    """`x.sum(1)` of `(n, D)`."""
    return sum(x.unbind(1)[1:], x[:, 0]) if 1 <= x.shape[1] <= FEW else x.sum(1)


def softmax(x: Tensor) -> Tensor:
    """`x.softmax(1)` of `(n, K)`."""
    return x.mT.softmax(0).mT if x.shape[1] <= 4 * FEW else x.softmax(1)


def normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """`(x.logsumexp(1), x.softmax(1))` of `(n, K)`, with one exponential for both."""
    highest = x.detach().amax(1, keepdim=True)
    shares = (x - highest).exp()
    total = sums(shares)[:, None]
    return (highest + total.log())[:, 0], shares / total


def wide(x: Tensor) -> Tensor:
    """x in float32 or wider: float16 ends at 65504, where 2048 + 1 is 2048."""
    if x.dtype in (torch.float32, torch.float64):
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def over_event(each: Tensor) -> Tensor:
    """The sum over all but the first axis, `(batch,)`, in float32 or wider."""
    each = wide(each)
    return sums(each.flatten(1)) if each.ndim > 1 else each


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum of a b over the event, `(batch,)`, products and sum in float32 or wider."""
    return over_event(wide(a) * wide(b))


def length(x: Tensor) -> Tensor:
    """The root of the sum of squares over the event, `(batch,)`, in float32 or wider.

    Computed in units of the largest entry, so no square overflows or underflows.
    """
    each = wide(x)[:, None].flatten(1)
    largest = each.detach().abs().amax(1, keepdim=True)
    squares = sums((each / torch.where(largest > 0, largest, 1)).square())
    return largest[:, 0] * squares.clamp(min=1).sqrt()  # below 1, it is all zeros: no slope there


Part: TypeAlias = tuple[float | Tensor, Tensor]
"""A coefficient, `()` or `(batch,)`, and the tensor that it multiplies."""
Sum: TypeAlias = Tensor | tuple[Part, ...]
"""A tensor, or the parts of a sum that is not computed yet."""
Term: TypeAlias = tuple[float | Tensor, Sum]


def combined(*terms: Term) -> Float[Tensor, "*shape"]:
    """sum_i c_i x_i of coefficients as in `shape_like`: in float32 or wider, then like the first x.

    Rounded once, to the nearest: in float16 a coefficient may be too large (1 / alpha_t) or too
    small (sigma_t^2), and products may overflow where their sum does not. An x that is a sum itself
    is not computed: its parts are added. One pass over the data for each tensor; numbers are not
    copied to a device.
    """
    (c, like), *others = parts(*terms)
    first = wide(like)
    total = first * _factor(c, first)
    for c, x in others:
        if like.is_cpu or isinstance(c, Tensor):  # the same bits as by a number for each row
            total = torch.addcmul(total, wide(x), _factor(c, first))
        else:
            total = torch.add(total, wide(x), alpha=c)
    return total.to(like)


def parts(*terms: Term) -> tuple[Part, ...]:
    """The same sum without sums in it: these are multiplied out, and each tensor is named once."""
    if tuple not in {type(x) for _, x in terms}:
        return cast(tuple[Part, ...], terms)
    found: dict[int, Part] = {}
    for c, x in terms:
        for share, part in x if isinstance(x, tuple) else ((1.0, x),):
            before = found[id(part)][0] if id(part) in found else 0.0
            found[id(part)] = (before + c * share, part)
    return tuple(found.values())


def _factor(c: float | Tensor, x: Tensor) -> Tensor:
    """A coefficient as a tensor that multiplies x."""
    if isinstance(c, Tensor):
        return shape_like(c, x)
    if type(x) is Tensor:
        return scalar(c, x.dtype)
    return torch.scalar_tensor(c, dtype=x.dtype, device="cpu")  # a FakeTensor wants its own


def in_blocks(function: Rows, x: Tensor, width: int) -> Tensor:
    """`function(x)`, for intermediate results of `width` numbers a row, a block at a time."""
    blocks = torch.chunk(x, 1 + len(x) * width // BLOCK)
    return function(x) if len(blocks) == 1 else torch.cat([function(block) for block in blocks])


def by_time(at: Callable[[Tensor], Rows], x: Tensor, t: Tensor, width: int) -> Tensor:
    """`at(t)(x)` in blocks, t of shape `()` or `(batch,)`; rows that share a time go together."""
    if t.ndim == 0:
        return in_blocks(at(t), x, width)
    times, which = torch.unique(t, return_inverse=True)
    parts = [in_blocks(at(time), x[which == i], width) for i, time in enumerate(times)]
    return torch.cat(parts)[places(which)]


def places(group: Tensor) -> Tensor:
    """The inverse permutation of a grouping of rows: gathered[places] is in the old order.

    Derivation: (mixture.18).
    """
    return group.argsort(stable=True).argsort()
