"""Coefficients of code that is affine in its arguments, read off with a few vectors."""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from textwrap import shorten
from traceback import walk_tb
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from diffusion_math.checks import Number, require

__all__ = [
    "called",
    "coefficients",
    "events",
    "fields",
    "first",
    "guarded",
    "moments",
    "name_of",
    "one_by_one",
    "parts",
    "snapped",
    "tensor",
    "time_batch",
    "unchanged",
]

VECTORS = (1.0, -2.0, 0.5, 3.0)
"""The entries of an event: different, so that a mixture of entries shows; exact in any dtype."""

MIXED = "rows of the batch are mixed: a row changes with the other rows"
"""What is said where a row's result depends on other rows."""

CANCELLED = 1024
"""Roundings of an argument that may be left where terms of its size cancel."""

LARGE = 64
"""The factor of a second look, at large events: few bounds are hidden beyond it."""

Call = Callable[[Mapping[str, Tensor]], Any]
"""Arguments by name, each `(rows, 4)`, to the result of that shape."""


def coefficients(
    subject: str,
    call: Call,
    names: Sequence[str],
    rows: int,
    dtype: torch.dtype,
    rounding: float = 0.0,
) -> tuple[dict[str, Tensor], float]:
    """Result = sum of coefficient x argument + offset: each coefficient `(rows,)`, in float64.

    Returns them with the relative rounding of the result's dtype. Raises AssertionError where the
    result is of another shape, or is no such sum, entry by entry and row by row: every row has
    events of its own. The result may be in dtype, or as coarse as `rounding`, that of the levels.
    """
    vector = torch.tensor(VECTORS, dtype=dtype, device="cpu").expand(rows, -1)
    zero = torch.zeros_like(vector)
    offset, eps = tensor(subject, call(dict.fromkeys(names, zero)), vector, rounding)
    found, left = {}, min(CANCELLED * eps, 1e-3)
    for name in names:
        given = {**dict.fromkeys(names, zero), name: vector}
        result, _ = tensor(subject, call(given), vector, rounding)
        each = (result - offset) / vector.double()
        found[name] = each[:, 0]
        slack = 64 * eps * (each.abs().amax(1) + offset.abs().amax(1))
        slack = slack + left
        mixed = ~((each - each[:, :1]).abs().amax(1) <= slack) & each.isfinite().all(1)
        assert not bool(mixed.any()), (
            f"{subject}: {name} does not act entry by entry: an event of {VECTORS} gives "
            f"{result[int(mixed.int().argmax())].tolist()}"
        )
    own = {name: events(rows, 5 * k).to(dtype) for k, name in enumerate(names)}
    size = sum((found[name].abs() for name in names), offset.abs().amax(1))

    def off(given: Mapping[str, Tensor], factor: int = 1) -> Tensor:
        """The rows that are not the sum of these multiples, of events of 3 times this factor."""
        given = {name: factor * each for name, each in given.items()}
        result, _ = tensor(subject, call(given), vector, rounding)
        total = sum((found[name][:, None] * given[name].double() for name in names), offset)
        straight = (result - total).abs().amax(1) <= factor * (256 * eps * 3 * size + left)
        return ~straight & result.isfinite().all(1) & total.isfinite().all(1)

    broken = off(own)
    if bool(broken.any()):
        k = int(broken.int().argmax())
        alone = {name: own[name][k].expand(rows, -1).clone() for name in names}
        assert bool(off(alone)[k]), f"{subject}: {MIXED} (row {k})"
        raise AssertionError(f"{subject}: wanted a sum of multiples of {', '.join(names)}")
    assert not bool(off(own, LARGE).any()), (
        f"{subject}: a sum of multiples of {', '.join(names)} for entries of up to 3, but not for "
        f"{3 * LARGE}: is one clamped?"
    )
    if bool(offset.any()):
        found["offset"] = offset[:, 0]
    return found, eps


def events(rows: int, shift: int = 0) -> Tensor:
    """An event for each row, `(rows, 4)`: `VECTORS` in all orders and signs, none like the next."""
    orders = torch.tensor(list(permutations(VECTORS)), dtype=torch.float64, device="cpu")
    every = torch.cat([orders, -orders])
    return every[
        (7 * torch.arange(rows, device="cpu") + shift) % len(every)
    ]  # 7 has no factor of 48


def fields(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `coefficients` found, under the names that messages use."""
    return {
        name if name == "offset" else f"coefficient of {name}": each for name, each in found.items()
    }


def tensor(subject: str, value: Any, like: Tensor, rounding: float = 0.0) -> tuple[Tensor, float]:
    """What was returned, in float64 and `like`'s shape, with the relative rounding of its dtype.

    Raises AssertionError for a dtype coarser than that of `like`, unless `rounding` is as coarse.
    """
    full = _broadcast(subject, value, like)
    eps = float(torch.finfo(full.dtype).eps) if full.is_floating_point() else 2.0**-52
    got, wanted = str(full.dtype), str(like.dtype)
    assert eps <= max(torch.finfo(like.dtype).eps, rounding), (
        f"{subject}: wanted a result in {wanted[6:]}, got {got[6:]} (dtype={got} allows it)"
    )
    return full.double(), eps


def snapped(value: Tensor, candidates: Sequence[Tensor], rounding: float | Tensor) -> Tensor:
    """The last of `candidates` that is within `rounding` of `value`, else `value` itself.

    For a difference of numbers near 1: its relative error says nothing. The right value stands
    last: where it is as near as a mistake's, it is taken.
    """
    result = value
    for candidate in candidates:
        result = torch.where((value - candidate).abs() <= rounding, candidate, result)
    return result


def guarded(subject: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Code under test, whose exceptions are AssertionErrors of one line that name it.

    It is given tensors of its own; AssertionError where it changes one of them in place.
    """

    def call(*arguments: Any) -> Any:
        own = [each.clone() if isinstance(each, Tensor) else each for each in arguments]
        try:
            result = function(*own)
        except (Exception, SystemExit) as error:
            raise AssertionError(_said(subject, error, arguments)) from error
        for k, (one, given) in enumerate(zip(own, arguments, strict=True)):
            assert unchanged(one, given), f"{subject}: {CHANGED.format(k + 1)}"
        return result

    return call


CHANGED = "argument {} is changed in place: whoever calls it goes on with other values"


def unchanged(value: Any, given: Any) -> bool:
    """Whether a tensor is as it was given; other arguments are not looked at."""
    return not isinstance(value, Tensor) or (
        value.shape == given.shape and bool(((value == given) | given.isnan()).all())
    )


LONG = 200
"""Characters of an exception of code under test that are told."""


def _said(subject: str, error: BaseException, arguments: Sequence[Any]) -> str:
    """What was raised, in one line: by code under test, or by the kit about its result."""
    line = shorten(str(error), LONG, placeholder=" ...")
    where = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    if isinstance(error, AssertionError) and where[-1].startswith("diffusion_math.testing"):
        return line if line.startswith(subject.split(",")[0]) else f"{subject}: {line}"
    shapes = [str(tuple(each.shape)) for each in arguments if isinstance(each, Tensor)]
    given = f" (given arrays of shapes {', '.join(shapes)})" if shapes else ""
    return f"{subject}: raised {type(error).__name__}: {line}{given}"


def called(subject: str, function: Callable[..., Any], batched: bool) -> Callable[..., Any]:
    """Code under test as a function of a batch, whose exceptions are AssertionErrors."""
    safe = guarded(subject, function)
    return safe if batched else one_by_one(subject, safe)


def parts(subject: str, result: Any, count: int) -> Sequence[Any]:
    """The first results of several; AssertionError where there are fewer."""
    several = isinstance(result, Sequence) and len(result) >= count
    assert several, f"{subject}: wanted {count} results, got {_kind(result)}"
    found: Sequence[Any] = result[:count]
    return found


MOMENTS: Mapping[str, tuple[str, ...]] = {
    "variance": ("variance", "var"),
    "log-variance": ("log_variance", "logvar"),
    "deviation": ("stddev", "std"),
}
"""The names that people's results have for what is beside a `mean`."""


def moments(result: Any, *spreads: str) -> Any:
    """(mean, spread, ...) of a dict or an object that has these by name; else the result itself."""
    of = result if isinstance(result, Mapping) else _Attributes(result)
    if isinstance(result, Sequence | Tensor | np.ndarray) or "mean" not in of:
        return result
    names = (next((name for name in MOMENTS[each] if name in of), None) for each in spreads)
    found = [of[name] for name in names if name is not None]
    return (of["mean"], *found)


@final
class _Attributes:
    """An object's attributes, as those of a mapping."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __contains__(self, name: str) -> bool:
        return hasattr(self.of, name)

    def __getitem__(self, name: str) -> Any:
        return getattr(self.of, name)


def one_by_one(subject: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one time and an event `(1, 4)`, as a function of a batch: one call a row.

    Times are given as plain numbers.
    """

    def batch(*arguments: Tensor) -> Any:
        rows = [
            function(*(each[k].item() if each.ndim == 1 else each[k : k + 1] for each in arguments))
            for k in range(len(arguments[0]))
        ]
        like = next(each for each in arguments if each.ndim > 1)[:1]
        if not isinstance(rows[0], tuple):
            return torch.cat([_broadcast(subject, row, like) for row in rows])
        count = len(rows[0])
        columns = zip(*(parts(subject, row, count) for row in rows), strict=True)
        return tuple(
            torch.cat([_broadcast(subject, one, like) for one in each]) for each in columns
        )

    return batch


def name_of(function: Callable[..., Any], otherwise: str) -> str:
    """A function's name in messages; `otherwise` for what has none."""
    name = getattr(function, "__name__", otherwise)
    return otherwise if name == "<lambda>" else str(name)


def _broadcast(subject: str, value: Any, like: Tensor) -> Tensor:
    """What was returned, in its dtype and `like`'s shape."""
    value = first(value)
    try:
        found = value if isinstance(value, Tensor) else torch.tensor(np.array(value), device="cpu")
    except (TypeError, ValueError):
        raise AssertionError(f"{subject}: wanted an array, got {_kind(value)}") from None
    assert not found.is_complex(), f"{subject}: wanted real numbers, got {found.dtype}"
    given = tuple(found.shape)
    if found.ndim == 1 and given == tuple(like.shape[:1]):
        found = found[:, None]
    try:
        return found.detach().cpu().broadcast_to(like.shape)
    except RuntimeError:
        images = " (see `adaptors.shaped` for a function of images)" if len(given) > 2 else ""
        raise AssertionError(
            f"{subject}: wanted a result of shape {tuple(like.shape)}, got {given}{images}"
        ) from None


def first(value: Any) -> Any:
    """The array of a result that has more beside it: a tuple's first, or what is a loss."""
    if isinstance(value, tuple) and any(isinstance(one, Tensor | np.ndarray) for one in value):
        return value[0]
    if isinstance(value, Mapping) and (len(value) == 1 or "loss" in value):
        return value["loss"] if "loss" in value else next(iter(value.values()))
    return value


def _kind(value: Any) -> str:
    count = f" of {len(value)}" if isinstance(value, Sequence) else ""
    count = f" with {', '.join(map(str, value))}" if isinstance(value, Mapping) else count
    return f"{type(value).__name__}{count}"


def time_batch(times: Sequence[Number | None]) -> Tensor:
    """Their times as a batch: int64 where all are whole numbers, else float64."""
    given = [time for time in times if time is not None]
    require(len(given) == len(times), "times", "times of their own", "clean data, which has none")
    whole = all(isinstance(time, int) for time in given)
    return torch.tensor(given, dtype=torch.int64 if whole else torch.float64, device="cpu")
