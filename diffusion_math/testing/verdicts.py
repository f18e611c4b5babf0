"""The audit of one sampler: every check, with its verdict; and the same as assertions."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import final

from diffusion_math.checks import described, require, whole
from diffusion_math.schedule import Discrete
from diffusion_math.testing import conformance, order, times_told
from diffusion_math.testing.conformance import FEW, Finding
from diffusion_math.testing.convergence import Fit
from diffusion_math.testing.noise_use import noise_use
from diffusion_math.testing.report import Check, Report, Verdict
from diffusion_math.testing.rounding import rounded
from diffusion_math.testing.sampler import Sampler, UnsupportedError

__all__ = ["CHECKS", "SLACK", "Origin", "assert_order", "assert_sound", "audit"]

SLACK = 0.35
"""How far below the claimed order a measured one may lie: what ladders of such steps leave."""

TELLING = 0.01
"""A tolerance beyond which a level that is within it says nothing of the sampler."""


CHECKS = (
    "grid",
    "idle steps",
    "finite",
    "noise",
    "levels",
    "image-to-image",
    "times told",
    "last noise",
    *(f"{kind}{where}" for kind in ("order", "weak order") for where in ("", ", uneven steps")),
    "order of a step",
)
"""Every row that an audit may have."""

INEXACT = "exact=False is for a method that is not exact where x0 is constant"


@final
@dataclass(frozen=True)
class Origin:
    """Where a sampler comes from, and what is known of it.

    Attributes:
        limits: check, one of `CHECKS` -> why it is no defect that it fails.
    """

    library: str = ""
    version: str = ""
    setting: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)


def audit(
    sampler: Sampler,
    who: Origin = Origin(),
    counts: tuple[int, ...] = FEW,
    sweep: tuple[int, ...] | None = None,
    ladder: tuple[int, ...] = order.COUNTS,
) -> Report:
    """Grids, levels, image-to-image, times told, last noise, and orders against exact solutions.

    Args:
        sampler: what is audited, with what it claims. Unless it declares a `precision` or a
            `level_tolerance` of its own, they are those of the dtype that it is seen to compute in.
        who: for the report's rows.
        counts: numbers of steps that are sampled with on data without spread; those that a discrete
            schedule has, one at least.
        sweep: numbers of steps whose grids are looked at, one at least; by default 1..1000 as far
            as the schedule has them.
        ladder: numbers of steps of the order's ladder, at least three, rising.

    Returns:
        A `Report`; `print` it, or ask it whether it is `sound`. A sampler that refuses every number
        of steps is not.

    Raises ValueError for a wrong argument.
    """
    _valid(sampler, ladder)
    require(isinstance(who, Origin), "who", "an Origin", described(who))
    for name in who.limits:
        require(name in CHECKS, "limits", f"names among {'; '.join(CHECKS)}", repr(name))
    _numbers("counts", counts)
    sampler = rounded(sampler)
    most = int(sampler.schedule.T) if isinstance(sampler.schedule, Discrete) else sys.maxsize
    if sweep is None:
        sweep = tuple(range(1, min(most, 1000) + 1))
    _numbers("sweep", sweep)
    wanted = "a number of steps" if most == sys.maxsize else f"a number of steps up to {most}"
    require(any(n <= most for n in counts), "counts", wanted, counts)
    require(len(sweep) > 0, "sweep", "a number of steps", sweep)
    counts = tuple(n for n in counts if n <= most)
    runs = len(counts)
    look = partial(conformance.grid_faults, sampler, sweep)
    rows = _conformance(sampler, who, "grid", look, 0.0, len(sweep))
    idle = conformance.idle(sampler, counts)
    if idle.worst:
        note = f"n = {idle.steps}: {idle.words}"
        expected = f"0 of {len(counts)} grids"
        rows.append(_row(sampler, who, "idle steps", expected, idle.worst, "limit", note))
    look = partial(conformance.finite, sampler, counts)
    rows += _conformance(sampler, who, "finite", look, 0.0, runs)
    use = noise_use(sampler)
    if use is not None:
        expected = "noise(x, t, s) alone" if sampler.noisy else "none"
        verdict: Verdict = "defect" if use.fault else "sound"
        note = use.detail if use.judged else f"{use.detail}; levels and orders are not judged"
        measured = use.fault or expected
        rows.append(_row(sampler, who, "noise", expected, measured, verdict, note))
        if not use.judged:
            return Report(tuple(rows))
    most_off, parts = sampler.level_tolerance, conformance.PARTS
    if sampler.exact:
        look = partial(conformance.levels, sampler, counts)
        rows += _conformance(sampler, who, "levels", look, most_off, runs)
        look = partial(conformance.image_to_image, sampler, min(20, most), parts)
        rows += _conformance(sampler, who, "image-to-image", look, most_off, len(parts))
    on_level = sampler.exact and all(r.verdict == "sound" for r in rows if r.check == "levels")
    told = partial(times_told.times_told, sampler, counts, every=on_level)
    most_told = max(most_off, times_told.TOLERANCE)
    rows += _conformance(sampler, who, "times told", told, most_told, runs)
    left = partial(conformance.residual_noise, sampler, counts)
    rows += _conformance(sampler, who, "last noise", left, most_off, runs)
    return Report((*rows, *_orders(sampler, who, ladder)))


def assert_order(sampler: Sampler, nominal: int, ladder: tuple[int, ...] = order.COUNTS) -> None:
    """AssertionError unless the sampler shows this order; for a test of your own.

    Of the flow's solution, or weak order where the sampler is `noisy`. What the sampler raises is
    an AssertionError too. Raises ValueError for a wrong argument.
    """
    _valid(sampler, ladder)
    whole("nominal", nominal, 1, 8)
    use = noise_use(sampler)
    assert use is None or use.judged, f"{sampler.name}: {use.detail}"
    wanted = f"{sampler.name}: wanted order {nominal}, got"
    try:
        found = _fit(rounded(sampler), ladder, uneven=False)
    except Exception as crash:  # code that is audited may raise anything
        raise AssertionError(f"{wanted} {conformance.crashed(crash)}") from crash
    assert found.order > nominal - SLACK, (
        f"{wanted} {found}; errors {', '.join(f'{e:.3g}' for e in found.errors)} at {ladder} steps"
    )


def assert_sound(sampler: Sampler, who: Origin = Origin()) -> None:
    """AssertionError with the table of defects unless `audit` finds none."""
    found = audit(sampler, who)
    assert found.sound, f"{sampler.name}\n{Report(found.defects)}"


def _valid(sampler: Sampler, ladder: Sequence[int]) -> None:
    """ValueError unless these are a sampler and a ladder of steps."""
    wanted = "a diffusion_math.testing.Sampler"
    require(isinstance(sampler, Sampler), "sampler", wanted, described(sampler))
    _numbers("ladder", ladder)
    rises = len(ladder) >= 3 and list(ladder) == sorted(set(ladder))
    require(rises, "ladder", "three numbers of steps or more, rising", ladder)


def _numbers(argument: str, counts: Sequence[int]) -> None:
    require(isinstance(counts, Sequence), argument, "numbers of steps", described(counts))
    for n in counts:
        whole(argument, n, 1)


def _fit(sampler: Sampler, ladder: tuple[int, ...], uneven: bool) -> Fit:
    measure = order.weak_order if sampler.noisy else order.flow_order
    return measure(sampler, ladder, uneven)


def _orders(sampler: Sampler, who: Origin, ladder: tuple[int, ...]) -> list[Check]:
    """The order; where it is too low, whether the start alone is to blame; on uneven steps too."""
    check = "weak order" if sampler.noisy else "order"
    even = _measured(sampler, who, check, ladder, uneven=False)
    if isinstance(even, Check):
        return [even]
    verdict, note = _judged(sampler, even, ladder)
    first = _row(sampler, who, check, sampler.order, even, verdict, note)
    rows = [first]
    rows += [] if sampler.noisy else _running(sampler, who, ladder)
    if sampler.any_grid:
        rows.append(_uneven(sampler, who, ladder, first))
    return rows


def _measured(
    sampler: Sampler, who: Origin, check: str, ladder: tuple[int, ...], uneven: bool
) -> Fit | Check:
    """The order, or the row that says why there is none."""
    try:
        return _fit(sampler, ladder, uneven)
    except UnsupportedError as refused:
        return _row(sampler, who, check, sampler.order, "refused", "limit", str(refused))
    except Exception as crash:  # code that is audited may raise anything
        note = conformance.crashed(crash)
        return _row(sampler, who, check, sampler.order, "crashed", "defect", note)


def _uneven(sampler: Sampler, who: Origin, ladder: tuple[int, ...], even: Check) -> Check:
    """The order on a grid whose steps alternate, against the claim.

    Where it is too low on even steps too, the verdict is the one that it has there. Where unequal
    steps alone lower it, that is a limit as long as the errors fall.
    """
    check = f"{even.check}, uneven steps"
    found = _measured(sampler, who, check, ladder, uneven=True)
    if isinstance(found, Check):
        return found
    verdict: Verdict = "sound"
    note = ""
    if not found.order > sampler.order - SLACK:
        verdict, note = "limit", "neighbouring steps that stay unequal lower the order"
        if even.verdict != "sound" and found.order >= min(even.value or 0.0, 1) - SLACK:
            verdict, note = even.verdict, f"on even steps it is {even.shown}"
        elif not found.order > 1 - SLACK:
            verdict, note = "defect", "does not converge where steps are unequal"
    return _row(sampler, who, check, sampler.order, found, verdict, note)


def _running(sampler: Sampler, who: Origin, ladder: tuple[int, ...]) -> list[Check]:
    """The order of single steps once under way: no start-up and no chance hides it."""
    check = "order of a step"
    try:
        found = order.running_order(sampler, tuple(n // 2 for n in ladder))
    except ValueError:  # the last state alone is shown
        return []
    except Exception as crash:  # code that is audited may raise anything
        note = conformance.crashed(crash)
        return [_row(sampler, who, check, sampler.order, "crashed", "defect", note)]
    verdict: Verdict = "sound" if _reaches(found, sampler.order) else "defect"
    note = ""
    if verdict == "defect":
        note = f"local errors {', '.join(f'{e:.2g}' for e in found.errors)}"
    return [_row(sampler, who, "order of a step", sampler.order, found, verdict, note)]


def _reaches(found: Fit, order: int) -> bool:
    """Whether a local order is as claimed, or on its way there: coarse ladders rise to it."""
    return max(found.order, found.trend) > order - SLACK


def _judged(sampler: Sampler, found: Fit, ladder: tuple[int, ...]) -> tuple[Verdict, str]:
    if found.order > sampler.order - SLACK:
        return "sound", ""
    errors = f"errors {', '.join(f'{e:.2g}' for e in found.errors)} at {ladder} steps"
    if not sampler.noisy:
        try:
            half = tuple(n // 2 for n in ladder)
            running, start = (f(sampler, half) for f in (order.running_order, order.start_order))
        except Exception:  # the last state alone is shown, or `_running` tells of it
            return "defect", errors
        if _reaches(running, sampler.order) and found.order > start.order + 1 - SLACK:
            return "limit", f"the first step's order {start.order:.1f} caps the whole; {errors}"
    return "defect", errors


def _conformance(
    sampler: Sampler,
    who: Origin,
    check: str,
    look: Callable[[], Finding | None],
    most: float,
    runs: int,
) -> list[Check]:
    """A conformance check as a row, sound where no more than `most` was found; none if no run.

    A sampler that refuses all runs has a limit, and a defect where they are of the first checks.
    """
    found = look()
    if found is None:
        return []
    expected = "0 faults" if most == 0 else f"at most {most:.2g}"
    if found.refused >= runs:
        note = f"all of {runs} runs are refused openly, so that nothing was run"
        refused: Verdict = "defect" if most == 0 else "limit"
        return [_row(sampler, who, check, expected, "refused", refused, note)]
    verdict: Verdict = "sound" if found.worst <= most else "defect"
    note = found.words if found.steps is None else f"n = {found.steps}: {found.words}"
    if most > 0 and sampler.rounding:
        expected += f", rounding of {sampler.rounding}"
        if most > TELLING and 0 < found.worst <= most:
            verdict, note = "limit", f"{sampler.rounding} is too coarse to tell ({note})"
    if verdict == "defect" and check in ("levels", "image-to-image") and found.worst < math.inf:
        note += f"; {INEXACT}"
    if found.refused:
        note += f"; {found.refused} refused openly"
    return [_row(sampler, who, check, expected, found.worst, verdict, note)]


def _row(
    sampler: Sampler,
    who: Origin,
    check: str,
    expected: int | str,
    measured: Fit | float | str,
    verdict: Verdict,
    note: str,
) -> Check:
    """A row; a defect that is a known limitation is a limit, but not a crash."""
    if verdict == "defect" and check in who.limits and measured != "crashed":
        verdict, note = "limit", f"{who.limits[check]} ({note})"
    where = (who.library, who.version, sampler.name, who.setting)
    return Check(*where, check, expected, measured, verdict, note)
