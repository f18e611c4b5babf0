"""The catalogue of mistakes: what people write in the place of a formula.

Most entries are generated. A value may be that of another index, be squared, rooted, inverted, a
factor off, or be another of the schedule's quantities. An assertion adds the mistakes of its own
subject, each with the place where it is found or ruled out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from diffusion_math.testing.mistakes.levels import Levels, Rows, Step

__all__ = [
    "FACTORS",
    "INDICES",
    "QUANTITIES",
    "TRANSFORMS",
    "Formula",
    "Mistake",
    "altered",
    "generated",
    "generated_together",
    "likely",
    "power",
]

Formula: TypeAlias = Callable[[Any], Mapping[str, Tensor]]
"""The value of each field, `(rows,)`, from the levels of t and s, or a `Table`'s columns."""

Evaluated: TypeAlias = Callable[[Any, Rows], Mapping[str, Tensor]]


@final
@dataclass(frozen=True)
class Mistake:
    """Something that is computed in the place of a formula.

    Attributes:
        name: one clause, `the variance is beta~ of index t - 1`.
        values: what it gives for the fields that it is about.
        cost: how many things it changes; among entries that fit, the least is named.
        source: a paper, documentation or thread that states the right formula or the mistake.

    >>> from diffusion_math.testing import Mistake
    >>> one = Mistake.of("sigma is doubled", lambda step: {"deviation": 2 * step.sigma_t})
    >>> one.name, one.cost
    ('sigma is doubled', 1)
    """

    name: str
    values: Evaluated
    cost: int = 1
    source: str = ""

    @classmethod
    def of(cls, name: str, formula: Formula, source: str = "", cost: int = 1) -> "Mistake":
        """A mistake in the formula itself: the levels are the right ones."""
        return cls(name, lambda levels, rows: formula(levels.at(rows)), cost, source)


def _variance(step: Step) -> Tensor:
    """sigma_{t|s}^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2: beta_t between neighbours."""
    return step.sigma_t**2 - (step.alpha_t / step.alpha_s * step.sigma_s) ** 2


QUANTITIES: Mapping[str, Callable[[Step], Tensor]] = {
    "beta": _variance,
    "beta~": lambda step: _variance(step) * (step.sigma_s / step.sigma_t) ** 2,
    "abar": lambda step: step.alpha_t**2,
    "1 - abar": lambda step: step.sigma_t**2,
    "1 - beta": lambda step: (step.alpha_t / step.alpha_s) ** 2,
    "SNR": lambda step: (step.alpha_t / step.sigma_t) ** 2,
}
"""What a formula may hold in the place of another: squares, as the tables of DDPM are."""

TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "{}": lambda value: value,
    "sqrt({})": torch.sqrt,
    "({})^2": torch.square,
    "1 / ({})": torch.reciprocal,
    "1 / sqrt({})": torch.rsqrt,
    "log({})": torch.log,
    "exp({})": torch.exp,
    "exp({} / 2)": lambda value: torch.exp(value / 2),
}

FACTORS: Mapping[str, float] = {
    "{}": 1.0,
    "2 {}": 2.0,
    "{} / 2": 0.5,
    "sqrt(2) {}": 2**0.5,
    "{} / sqrt(2)": 2**-0.5,
    "-{}": -1.0,
}


def _both_at_t(rows: Rows, last: int) -> Rows:
    return Rows(rows.t, rows.t)


def _both_at_s(rows: Rows, last: int) -> Rows:
    return Rows(rows.s, rows.s)


def _wrapped(rows: Rows, last: int) -> Rows:
    return Rows(rows.t, torch.where(rows.t < last, rows.t, 0))


def _exchanged(rows: Rows, last: int) -> Rows:
    return Rows(rows.s, rows.t)


INDICES: Mapping[str, Callable[[Rows, int], Rows]] = {
    "": lambda rows, last: rows,
    " of index t - 1": lambda rows, last: Rows((rows.t - 1).clamp(1), (rows.s - 1).clamp(0)),
    " of index t + 1": lambda rows, last: Rows(
        (rows.t + 1).clamp(max=last), (rows.s + 1).clamp(max=last - 1)
    ),
    " of index t - 1, where -1 is the last": lambda rows, last: Rows(
        torch.where(rows.t > 1, rows.t - 1, last), torch.where(rows.t > 1, (rows.s - 1), last - 1)
    ),
    " of the last index": lambda rows, last: Rows(
        torch.full_like(rows.t, last), torch.full_like(rows.s, last - 1)
    ),
    " of the index counted from the other end": lambda rows, last: Rows(
        last + 1 - rows.t, last - rows.t
    ),
    ", with t's level where that of s, the earlier time, belongs": _both_at_t,
    ", with the level of s, the earlier time, where t's belongs": _both_at_s,
    ", with t's level where that of s, the earlier time, belongs, clean data at the last": _wrapped,
    ", with the first level where clean data belongs": lambda rows, last: Rows(
        rows.t, rows.s.clamp(min=1)
    ),
    ", with the last level where clean data belongs": lambda rows, last: Rows(
        rows.t, torch.where(rows.s > 0, rows.s, last)
    ),
    ", with the level before s where that of s, the earlier time, belongs": lambda rows, last: Rows(
        rows.t, (rows.s - 1).clamp(0)
    ),
    ", with the levels of t and of s, the earlier time, exchanged": _exchanged,
}
"""Which levels are read. Position 0 is clean data, `last` the most noise."""


Likely: TypeAlias = Callable[[Callable[[Rows, int], Rows], list[Callable[[Step], Tensor]]], Tensor]


def generated(field: str, formula: Formula) -> Iterator[Mistake]:
    """Mistakes in one field: the right formula and other quantities, each altered in each way."""
    shape = len(QUANTITIES) + 1, len(TRANSFORMS), len(FACTORS)
    yield from _generated(
        field, formula, lambda index, values: torch.ones(shape, dtype=torch.bool, device="cpu")
    )


def likely(
    field: str, formula: Formula, levels: Levels, rows: Rows, near: Callable[[Tensor], Tensor]
) -> Iterator[Mistake]:
    """Those of `generated` whose values `(..., rows)` are near, as the caller decides, on all rows.

    All values are found at once, many times faster than by making each mistake.
    """
    factors = torch.tensor(list(FACTORS.values()), dtype=torch.float64, device="cpu")[:, None]

    def which(index: Callable[[Rows, int], Rows], values: list[Callable[[Step], Tensor]]) -> Tensor:
        step = levels.at(index(rows, len(levels.times) - 1))
        table = torch.stack([value(step) for value in values])
        forms = torch.stack([transform(table) for transform in TRANSFORMS.values()], 1)
        return near(factors * forms[:, :, None]).all(-1)

    yield from _generated(field, formula, which)


def _generated(field: str, formula: Formula, which: Likely) -> Iterator[Mistake]:
    for name, constant in (("NaN", torch.nan), ("0", 0.0), ("1", 1.0)):
        yield Mistake(f"the {field} is {name}", _constant(field, constant))
    bases: list[tuple[str, Callable[[Step], Tensor]]] = [
        ("its right value", lambda step: formula(step)[field]),
        *QUANTITIES.items(),
    ]
    forms, factors = list(TRANSFORMS.items()), list(FACTORS.items())
    for at, (index, moved) in enumerate(INDICES.items()):
        for base, form, by in which(moved, [value for _, value in bases]).nonzero().tolist():
            cost = sum(map(bool, (base, at, form, by)))
            if cost:
                said = factors[by][0].format(forms[form][0].format(bases[base][0]))
                values = _altered(field, bases[base][1], moved, forms[form][1], factors[by][1])
                yield Mistake(f"the {field} is {said}{index}", values, cost)


def altered(field: str, formula: Formula) -> Iterator[Mistake]:
    """Mistakes in one field of a `Table`: a constant, or the right value altered in each way."""
    for name, constant in (("NaN", torch.nan), ("0", 0.0), ("1", 1.0)):
        yield Mistake(f"the {field} is {name}", _constant(field, constant))
    for form, (named, transform) in enumerate(TRANSFORMS.items()):
        for by, (factor, number) in enumerate(FACTORS.items()):
            if form or by:
                said = factor.format(named.format("its right value"))
                values = _transformed(field, formula, transform, number)
                yield Mistake.of(f"the {field} is {said}", values, cost=bool(form) + bool(by))


def generated_together(formula: Formula) -> Iterator[Mistake]:
    """Mistakes in which levels are read, the same for all fields."""
    for index, moved in list(INDICES.items())[1:]:
        yield Mistake(f"every coefficient is its right value{index}", _read(formula, moved))


def power(field: str, measured: Tensor, formula: Formula, step: Step) -> Mistake | None:
    """The right value times a product of powers of the levels, if that is what was measured.

    log(measured / right) = sum of p log(level) over alpha_t, sigma_t, alpha_s, sigma_s, sigma_{t|s}
    by least squares over all rows, each p rounded to a multiple of 1/2. Whether it fits is for the
    caller to see.
    """
    logs = torch.stack([value(step).log() for value in LEVELS.values()], 1)
    ratio = (measured / formula(step)[field]).log()
    good = logs.isfinite().all(1) & ratio.isfinite()
    if int(good.sum()) <= len(LEVELS):
        return None
    found = torch.linalg.lstsq(logs[good], ratio[good, None], driver="gelsd").solution[:, 0]
    powers = ((2 * found).round() / 2).tolist()
    if not any(powers) or max(map(abs, powers)) > 4:
        return None
    named = list(zip(LEVELS, powers, strict=True))
    up, down = ([(name, abs(p)) for name, p in named if p * sign > 0] for sign in (1, -1))
    over, under = (" ".join(n if p == 1 else f"{n}^{p:g}" for n, p in each) for each in (up, down))
    factor = f"{over or 1} / {f'({under})' if len(down) > 1 else under}" if down else over

    def values(step: Step) -> Mapping[str, Tensor]:
        right = formula(step)[field]
        for value, p in zip(LEVELS.values(), powers, strict=True):
            right = right * value(step) ** p if p else right
        return {field: right}

    return Mistake.of(f"the {field} is its right value times {factor}", values, cost=3)


LEVELS: Mapping[str, Callable[[Step], Tensor]] = {
    "alpha_t": lambda step: step.alpha_t,
    "sigma_t": lambda step: step.sigma_t,
    "alpha_s": lambda step: step.alpha_s,
    "sigma_s": lambda step: step.sigma_s,
    "sigma_{t|s}": lambda step: _variance(step).sqrt(),
}


def _read(formula: Formula, moved: Callable[[Rows, int], Rows]) -> Evaluated:
    return lambda levels, rows: formula(levels.at(moved(rows, len(levels.times) - 1)))


def _altered(
    field: str,
    value: Callable[[Step], Tensor],
    moved: Callable[[Rows, int], Rows],
    transform: Callable[[Tensor], Tensor],
    factor: float,
) -> Evaluated:
    def values(levels: Levels, rows: Rows) -> Mapping[str, Tensor]:
        step = levels.at(moved(rows, len(levels.times) - 1))
        return {field: factor * transform(value(step))}

    return values


def _transformed(
    field: str, formula: Formula, transform: Callable[[Tensor], Tensor], factor: float
) -> Formula:
    return lambda step: {field: factor * transform(formula(step)[field])}


def _constant(field: str, constant: float) -> Evaluated:
    return lambda levels, rows: {
        field: torch.full(rows.t.shape, constant, dtype=torch.float64, device="cpu")
    }
