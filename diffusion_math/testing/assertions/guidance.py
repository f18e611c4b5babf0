"""`assert_guidance`: both coefficients of classifier-free guidance at every scale."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from diffusion_math.checks import Number, checked, real, require
from diffusion_math.testing.assertions import rescaling
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.probes import (
    coefficients,
    guarded,
    name_of,
    one_by_one,
    tensor,
)
from diffusion_math.testing.mistakes.table import Table

__all__ = [
    "CFG",
    "SCALES",
    "assert_guidance",
    "compare_weights",
    "scale_table",
    "weights",
]

SCALES = (0.0, 0.5, 1.0, 2.0, 7.5)


CFG = "arXiv:2207.12598, eq. 6"
THREAD = "github.com/huggingface/diffusers/issues/5882"


@checked
def assert_guidance(
    combine: Callable[..., Any],
    scales: Sequence[Number] = SCALES,
    *,
    convention: str = "w",
    share: Number = 0.0,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `combine(cond, uncond, w)`, classifier-free guidance, at every scale.

    uncond + w (cond - uncond), or cond + w (cond - uncond) by the convention "1 + w" of the paper.
    With a share phi > 0 the result g is then phi (std cond / std g) g + (1 - phi) g, with std over
    the entries of each event. Rows of a batch of 2 and 3 must be what each is alone.

    Args:
        combine: takes cond and uncond of shape `(batch, 4)` and a plain number w.
        scales: the w to try.
        convention: what w means.
        share: phi of the rescaling, in [0, 1].
        dtype: that of cond and uncond.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it, and
    ValueError for arguments that are none.
    Source: arXiv:2207.12598, eq. 6; rescaling: arXiv:2305.08891, eq. 15 and 16.

    >>> from diffusion_math.testing import assert_guidance
    >>> assert_guidance(lambda cond, uncond, w: uncond + w * (cond - uncond))
    >>> assert_guidance(lambda cond, uncond, w: cond + w * (cond - uncond))
    Traceback (most recent call last):
    ...
    diffusion_math.testing.mistakes.diagnosis.MistakeError: combine: wrong
      the coefficient of cond differs at 5 of 5 indices, most at w = 0: got 1, expected 0 ...
      diagnosis: 1 + w is in the place of w ...
    """
    require(convention in ("w", "1 + w"), "convention", "'w' or '1 + w'", repr(convention))
    require(0 <= share <= 1, "share", "a number in [0, 1]", share)
    table = scale_table(scales)
    subject = name_of(combine, "combine")
    call = guarded(subject, combine)
    _rows_alone(subject, call, scales, dtype)
    if share:
        prediction = partial(_guided, convention)
        rescaling.check(subject, call, table, scales, prediction, float(share), dtype)
        return

    rows = one_by_one(subject, call)

    def everywhere(given: Mapping[str, Tensor]) -> Any:
        return rows(given["cond"], given["uncond"], table.columns["w"])

    found, eps = coefficients(subject, everywhere, ("cond", "uncond"), len(scales), dtype)
    compare_weights(
        subject, {_of(name): value for name, value in found.items()}, table, convention, eps
    )


def scale_table(scales: Sequence[Number]) -> Table:
    """The scales as a table; ValueError for none, or for one that is not finite."""
    require(len(scales) > 0, "scales", "at least one w", "none")
    column = torch.stack([real("scales", w) for w in scales])
    finite = column.ndim == 1 and bool(column.isfinite().all())
    require(finite, "scales", "finite numbers", tuple(scales))
    return Table(tuple(f"w = {w:g}" for w in scales), {"w": column})


def _of(name: str) -> str:
    return name if name == "offset" else f"coefficient of {name}"


def _linear(on_cond: Tensor, on_uncond: Tensor) -> dict[str, Tensor]:
    return {
        "coefficient of cond": on_cond,
        "coefficient of uncond": on_uncond,
        "offset": torch.zeros_like(on_cond),
    }


def weights(convention: str, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The right weights of cond and of uncond."""
    w = columns["w"] + (convention == "1 + w")
    return _linear(w, 1 - w)


Pair: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]

KNOWN: Mapping[str, tuple[Pair, str]] = {
    "1 + w is in the place of w": (lambda w: (1 + w, -w), THREAD),
    "w is in the place of 1 + w": (lambda w: (w - 1, 2 - w), THREAD),
    "cond and uncond are exchanged": (lambda w: (1 - w, w), CFG),
    "the difference is uncond - cond": (lambda w: (-w, 1 + w), CFG),
    "uncond is left out: the scaled difference alone": (lambda w: (w, -w), CFG),
    "a sign is lost: w cond + (w - 1) uncond": (lambda w: (w, w - 1), CFG),
    "the scale is not used: cond alone": (lambda w: (0 * w + 1, 0 * w), CFG),
    "guidance is off where w <= 1: cond alone": (
        lambda w: (w.clamp(min=1), 1 - w.clamp(min=1)),
        THREAD,
    ),
}
"""Weights of cond and of uncond, from the right weight of cond."""


def compare_weights(
    subject: str,
    found: Mapping[str, Tensor],
    table: Table,
    convention: str,
    eps: float,
) -> None:
    """Raise MistakeError unless these are the weights of cond and of uncond at each w."""

    def known(pair: Pair) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
        return lambda at: _linear(*pair(at["w"] + (convention == "1 + w")))

    exact = weights(convention, table.columns)
    slack = 16 * eps * (1 + table.columns["w"].abs())  # of the sum, whatever each weight's size
    found = {
        name: torch.where((value - exact[name]).abs() <= slack, exact[name], value)
        for name, value in found.items()
    }
    right = "uncond + w (cond - uncond)" if convention == "w" else "cond + w (cond - uncond)"
    compare(
        subject,
        found,
        partial(weights, convention),
        table,
        table.rows,
        eps=eps,
        known=[Mistake.of(name, known(pair), of) for name, (pair, of) in KNOWN.items()],
        right=f"{right} ({CFG})",
    )


def _guided(convention: str, columns: Mapping[str, Tensor], cond: Tensor, uncond: Tensor) -> Tensor:
    weight = weights(convention, columns)
    return (
        weight["coefficient of cond"][:, None] * cond.double()
        + weight["coefficient of uncond"][:, None] * uncond.double()
    )


def _rows_alone(
    subject: str, call: Callable[..., Any], scales: Sequence[Number], dtype: torch.dtype
) -> None:
    """AssertionError unless the rows of a batch are what each is alone."""
    size = torch.tensor([[1.0], [-3.0], [10.0]], dtype=dtype, device="cpu")
    cond, uncond = (
        size * torch.tensor([row], dtype=dtype, device="cpu")
        for row in (rescaling.COND, rescaling.UNCOND)
    )
    cond[1] = cond[1].flip(0)
    for rows, w in ((rows, w) for rows in (2, 3) for w in scales):
        whole, eps = tensor(subject, call(cond[:rows], uncond[:rows], w), cond[:rows])
        for k in range(rows):
            one = slice(k, k + 1)
            alone, _ = tensor(subject, call(cond[one], uncond[one], w), cond[one])
            off = float((whole[one] - alone).abs().max())
            limit = (
                256 * eps * (1 + abs(w)) * float(cond[one].abs().max() + uncond[one].abs().max())
            )
            assert off <= limit, (
                f"{subject}: row {k} of a batch of {rows} at w = {w:g} is {off:.3g} from what it "
                f"is alone (tolerance {limit:.2g}): events of a batch are mixed"
            )
