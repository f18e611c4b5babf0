"""`assert_guided`: guidance that evaluates the network itself, and how often it does."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import Number, checked, require
from diffusion_math.testing.assertions.guidance import (
    SCALES,
    compare_weights,
    scale_table,
)
from diffusion_math.testing.mistakes.probes import guarded, name_of, tensor

__all__ = ["assert_guided"]


@checked
def assert_guided(
    guided: Callable[..., Any],
    scales: Sequence[Number] = SCALES,
    *,
    convention: str = "w",
    evaluations: int = 2,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `guided(network, x, w)`, guidance that evaluates the network itself.

    `network(x, conditional)` takes x of shape `(rows, 4)` and a bool, or bools of shape `(rows,)`
    where one call holds both halves. The batch has 1, 2 and 3 rows. The two predictions are told
    apart by unit vectors, so a half in another order than its conditions shows.

    Args:
        guided: gives the guided prediction, like x.
        scales: the w to try; `convention` says what w means.
        evaluations: how often each row may be evaluated at most, for each w.
        dtype: that of x.

    Raises MistakeError, AssertionError for a row that is evaluated more often, and ValueError for
    arguments that are none. Source: arXiv:2207.12598, eq. 6.

    >>> from diffusion_math.testing import assert_guided
    >>> def guided(network, x, w):
    ...     return network(x, False) + w * (network(x, True) - network(x, False))
    >>> assert_guided(guided)
    Traceback (most recent call last):
    ...
    AssertionError: guided: evaluates the network 3 times a row at w = 0, wanted at most 2
    """
    require(evaluations > 0, "evaluations", "at least 1", evaluations)
    table, subject = scale_table(scales), name_of(guided, "guided")
    for rows in (1, 2, 3):
        found: dict[str, Tensor] = {}
        for name, wanted in (("cond", True), ("uncond", False)):
            results = []
            for w in scales:
                seen = [0]
                x = 1.0 + torch.arange(4 * rows, dtype=dtype, device="cpu").reshape(rows, 4)
                network = partial(_network, wanted, seen)
                result, _ = tensor(subject, guarded(subject, guided)(network, x, w), x)
                assert seen[0] <= evaluations * rows, (
                    f"{subject}: evaluates the network {seen[0] / rows:g} times a row at w = {w:g},"
                    f" wanted at most {evaluations}"
                )
                results.append((result / x.double()).flatten())
            each = torch.stack(results)
            same = (each - each[:, :1]).abs() <= 64 * torch.finfo(dtype).eps * each.abs().amax()
            assert bool(same.all()), (
                f"{subject}: in a batch of {rows} the coefficient of {name} differs from row to "
                f"row: {[round(v, 6) for v in each[-1, ::4].tolist()]} at w = {scales[-1]:g}"
            )
            found[f"coefficient of {name}"] = each[:, 0]
        compare_weights(subject, found, table, convention, torch.finfo(dtype).eps)


def _network(wanted: bool, seen: list[int], x: Tensor, conditional: Any, *_: Any) -> Tensor:
    """x where the condition is the wanted one, else 0; counts the rows."""
    seen[0] += len(x)
    on = torch.as_tensor(conditional, device="cpu").reshape(-1).bool() == wanted
    return torch.where(on[:, None], x, torch.zeros_like(x))
