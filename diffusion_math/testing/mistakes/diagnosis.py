"""Exact values beside measured ones; where they differ, the mistake that explains every row."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import final

import torch
from torch import Tensor

from diffusion_math.testing.mistakes.catalogue import (
    Evaluated,
    Formula,
    Mistake,
    altered,
    generated_together,
    likely,
    power,
)
from diffusion_math.testing.mistakes.coarse import COARSE, warn_of_coarse
from diffusion_math.testing.mistakes.levels import Levels, Rows
from diffusion_math.testing.mistakes.table import Table

__all__ = ["Difference", "MistakeError", "compare", "diagnosis"]

ROUNDINGS = 16
"""Roundings of the levels, and of a value itself, by which a right value may be off."""

SINGLE = 2.0**-23
"""The relative rounding of float32."""

SINGLE_NAME = (
    "right to float32's rounding, as where the levels, the times or the tables are in float32 "
    "(dtype=torch.float32 allows it)"
)

NO_NUMBER = "it is not a number there: 0 / 0, or a root or logarithm of a negative number"

FEW = 12
"""Rows on which an entry of the catalogue is tried before all of them."""


@final
@dataclass(frozen=True)
class Difference:
    """A field that is not what it should be: where most, and by how much.

    >>> from diffusion_math.testing import Difference
    >>> print(Difference("variance", 3, 10, "t = 4", 0.5, 0.25, 1e-6))
    the variance differs at 3 of 10 indices, most at t = 4: got 0.5, expected 0.25 (tolerance 1e-06)
    """

    field: str
    rows: int
    of: int
    time: object
    got: float
    expected: float
    tolerance: float

    def __str__(self) -> str:
        digits = 6 if abs(self.got - self.expected) > 1e-5 * abs(self.expected) else 15
        return (
            f"the {self.field} differs at {self.rows} of {self.of} indices, most at "
            f"{self.time}: got {self.got:.{digits}g}, expected {self.expected:.{digits}g} "
            f"(tolerance {self.tolerance:.2g})"
        )


class MistakeError(AssertionError):
    """Code under test is wrong: what differs, and the catalogue's name of the mistake.

    Attributes:
        subject: what was checked.
        differences: a `Difference` for each field that is wrong.
        mistakes: the catalogue's entries that explain them at every index; may be empty.

    >>> from diffusion_math.testing import MistakeError, assert_guidance
    >>> try:
    ...     assert_guidance(lambda cond, uncond, w: cond + w * (cond - uncond))
    ... except MistakeError as error:
    ...     print(error.subject, [one.name for one in error.mistakes])
    combine ['1 + w is in the place of w']
    """

    def __init__(
        self,
        subject: str,
        differences: tuple[Difference, ...],
        mistakes: tuple[Mistake, ...],
        right: str = "",
    ) -> None:
        self.subject, self.differences, self.mistakes = subject, differences, mistakes
        lines = [f"{subject}: wrong", *(f"  {one}" for one in differences)]
        lines += [
            f"  diagnosis: {one.name}{f' ({one.source})' if one.source else ''}" for one in mistakes
        ]
        if not mistakes:
            lines.append("  diagnosis: no entry of the catalogue fits at every index")
        lines += [f"  right: {right}"] if right else []
        super().__init__("\n".join(lines))


def compare(
    subject: str,
    measured: Mapping[str, Tensor],
    formula: Formula,
    levels: Levels | Table,
    rows: Rows,
    *,
    eps: float,
    known: Iterable[Mistake] = (),
    right: str = "",
) -> None:
    """Raise MistakeError unless every measured field is the formula's value to rounding.

    Args:
        measured: `(rows,)` for each field.
        formula: the exact fields; see `Formula`.
        eps: the relative rounding of what was measured.
        known: mistakes of the subject, tried before those that are generated.
        right: the right formula, in words.
    """
    eps = max(eps, levels.eps)
    found = _differences(measured, formula, levels, rows, eps)
    near = bool(found) and eps < SINGLE
    near = near and not _differences(measured, formula, levels, rows, SINGLE)
    if near and _may_be_single(levels, measured.values()):
        raise MistakeError(subject, found, (Mistake(SINGLE_NAME, lambda levels, rows: {}),), right)
    if found:
        wrong = {one.field: measured[one.field] for one in found}
        known = list(known)
        names: tuple[Mistake, ...] = ()
        coarser = () if near else (max(eps, SINGLE),)  # in tables of float32 it has a name too
        for rounding in (eps, *coarser):
            names = names or diagnosis(
                wrong, measured, formula, levels, rows, eps=rounding, known=known
            )
        right_values = formula(levels.at(rows))
        numbers = {f: torch.where(v.isnan(), right_values[f], v) for f, v in measured.items()}
        nowhere_else = not _differences(numbers, formula, levels, rows, eps)
        if nowhere_else and not _covers(names, wrong, levels, rows):
            names = (Mistake(NO_NUMBER, lambda levels, rows: {}),)
        raise MistakeError(subject, found, names, right)
    if eps * ROUNDINGS > COARSE:
        untold = _untold(known, measured, formula, levels, rows, eps)
        warn_of_coarse(subject, eps * ROUNDINGS, untold)


def _may_be_single(levels: Levels | Table, measured: Iterable[Tensor]) -> bool:
    """Whether all values of a table, or what is left to 1, are float32 numbers in float64."""

    def held(value: Tensor) -> Tensor:
        return (value - value.float().double()).abs() <= 2.0**-46

    return isinstance(levels, Levels) or all(
        bool((held(value) | held(1 - value)).all()) for value in measured
    )


def _untold(
    known: Iterable[Mistake],
    measured: Mapping[str, Tensor],
    formula: Formula,
    levels: Levels | Table,
    rows: Rows,
    eps: float,
) -> Iterator[str]:
    """The mistakes that would pass in arithmetic of rounding eps, and not in float64."""
    for one in known:
        values = {f: v for f, v in one.values(levels, rows).items() if f in measured}
        coarse, fine = (
            not _differences(values, formula, levels, rows, rounding) for rounding in (eps, 2**-52)
        )
        if coarse and not fine:
            yield one.name


def _covers(
    names: Iterable[Mistake], wrong: Mapping[str, Tensor], levels: Levels | Table, rows: Rows
) -> bool:
    """Whether mistakes explain fields that are wrong only where they are no numbers.

    A value that is not a number fits much by chance: one row of one field says nothing.
    """
    named = {field for one in names for field in one.values(levels, rows)}
    nowhere = all(bool(values.isnan().all()) for values in wrong.values())
    return wrong.keys() <= named and (len(wrong) > 1 or nowhere)


def _differences(
    measured: Mapping[str, Tensor],
    formula: Formula,
    levels: Levels | Table,
    rows: Rows,
    eps: float,
) -> tuple[Difference, ...]:
    exact = _Exact(levels, rows, eps)
    expected, tolerance = exact(lambda levels, rows: formula(levels.at(rows)))
    found = []
    for field, values in measured.items():
        off = _off(values, expected[field], tolerance[field])
        if bool(off.any()):
            found.append(_difference(field, values, expected, tolerance, off, levels, rows))
    return tuple(found)


def diagnosis(
    wrong: Mapping[str, Tensor],
    measured: Mapping[str, Tensor],
    formula: Formula,
    levels: Levels | Table,
    rows: Rows,
    *,
    eps: float,
    known: Iterable[Mistake] = (),
) -> tuple[Mistake, ...]:
    """Entries that explain the wrong fields at every index: one for all, else one for each.

    The least change is named. A mistake that says something of a field that is right is none.
    """
    exact = _Exact(levels, rows, eps)
    few = torch.linspace(0, len(rows.t) - 1, min(FEW, len(rows.t)), device="cpu").round().long()
    there = Rows(rows.t[few], rows.s[few])

    def near(field: str, values: Tensor) -> Tensor:
        return ~_off(measured[field][few], values, _coarse(values, eps))

    def least(candidates: Iterable[Mistake], fields: Mapping[str, Tensor]) -> Mistake | None:
        for one in sorted(candidates, key=lambda one: one.cost):
            given = {f: v for f, v in one.values(levels, there).items() if f in measured}
            if not fields.keys() <= given.keys():
                continue
            if all(bool(near(field, value).all()) for field, value in given.items()):
                values, tolerance = exact(one.values)
                if not any(bool(_off(measured[f], values[f], tolerance[f]).any()) for f in given):
                    return one
        return None

    known = list(known)
    alone = isinstance(levels, Table) or len(measured) == 1
    same = () if alone else generated_together(formula)
    together = least(chain(known, same), wrong)
    if together is not None:
        return (together,)
    found = []
    for field, values in wrong.items():
        if isinstance(levels, Table):
            made = altered(field, formula)
        else:
            last = power(field, values, formula, levels.at(rows))
            likely_ones = likely(field, formula, levels, there, partial(near, field))
            made = chain(likely_ones, [last] if last else [])
        mistake = least(chain(known, made), {field: values})
        found += [] if mistake is None or mistake in found else [mistake]
    return tuple(found)


def _coarse(value: Tensor, eps: float) -> Tensor:
    """More than rounding of any entry comes to: what is further off needs no closer look."""
    return 0.1 * value.abs() + 64 * eps


@final
class _Exact:
    """Values, and what rounding of the levels and of the values themselves can do to them."""

    def __init__(self, levels: Levels | Table, rows: Rows, eps: float) -> None:
        self.levels, self.rows, self.nudged = levels, rows, levels.nudged(eps)
        self.relative, self.eps = levels.rounding(eps)[rows.t], eps
        if isinstance(levels, Levels) and not levels.divides:
            self.relative = torch.full_like(self.relative, eps)

    def __call__(self, values: Evaluated) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        middle = values(self.levels, self.rows)
        moved = [values(one, self.rows) for one in self.nudged]
        tolerance = {}
        read = [v.abs() for field, v in middle.items() if field.startswith("coefficient of")]
        whole = torch.stack(read).amax(0) if read else None  # of terms that may cancel
        for field, value in middle.items():
            reach = torch.stack([one[field] for one in moved]).sub(value).abs().amax(0)
            own = ROUNDINGS * (reach.nan_to_num(0.0, 0.0) + self.relative * value.abs())
            if whole is not None and field.startswith("coefficient of"):
                own = own + ROUNDINGS * self.eps * whole
            tolerance[field] = own.nan_to_num(0.0, 0.0) + torch.finfo(torch.float64).tiny
        return middle, tolerance


def _off(got: Tensor, expected: Tensor, tolerance: Tensor) -> Tensor:
    """Where two values are not the same; both infinite, or both NaN, is the same."""
    same = (got == expected) | (got.isnan() & expected.isnan())
    return ~(same | ((got - expected).abs() <= tolerance))


def _difference(
    field: str,
    got: Tensor,
    expected: Mapping[str, Tensor],
    tolerance: Mapping[str, Tensor],
    off: Tensor,
    levels: Levels | Table,
    rows: Rows,
) -> Difference:
    wanted, allowed = expected[field], tolerance[field]
    by = ((got - wanted).abs() / wanted.abs().clamp(min=torch.finfo(torch.float64).tiny)).clone()
    k = int(torch.where(off, by.nan_to_num(torch.inf), -1.0).argmax())
    t, s = levels.times[int(rows.t[k])], levels.times[int(rows.s[k])]
    time = f"t = {t}"
    if isinstance(levels, Table):
        time = str(t)
    elif int(rows.s[k]) != int(rows.t[k]) - 1:
        time += f", s = {'clean data' if s is None else s}"
    return Difference(
        field, int(off.sum()), len(got), time, float(got[k]), float(wanted[k]), float(allowed[k])
    )
