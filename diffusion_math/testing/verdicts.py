"""The audit of one sampler: every check, with its verdict; and the same as assertions."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from diffusion_math.schedule import Discrete
from diffusion_math.testing import conformance, order
from diffusion_math.testing.conformance import FEW, Finding
from diffusion_math.testing.convergence import Fit
from diffusion_math.testing.report import Check, Report, Verdict
from diffusion_math.testing.rounding import rounded
from diffusion_math.testing.sampler import Sampler, UnsupportedError

__all__ = ["SLACK", "Origin", "assert_order", "assert_sound", "audit"]

SLACK = 0.35
"""How far below the claimed order a measured one may lie: what ladders of such steps leave."""

TELLING = 0.01
"""A tolerance beyond which a level that is within it says nothing of the sampler."""


@final
@dataclass(frozen=True)
class Origin:
    """Where a sampler comes from, and what is known of it.

    Attributes:
        limits: check -> why it is no defect that it fails.
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
    """Grids, levels, last noise, image-to-image, and orders against exact solutions.

    Args:
        sampler: what is audited, with what it claims. Unless it declares a `precision` or a
            `level_tolerance` of its own, they are those of the dtype that it is seen to compute in.
        who: for the report's rows.
        counts: numbers of steps that are sampled with on data without spread; those that a discrete
            schedule has.
        sweep: numbers of steps whose grids are looked at, by default 1..1000 as far as the
            schedule has them.
        ladder: numbers of steps of the order's ladder, at least three, rising.

    Returns:
        A `Report`; `print` it, or ask it whether it is `sound`.
    """
    sampler = rounded(sampler)
    tolerance = sampler.level_tolerance
    most = int(sampler.schedule.T) if isinstance(sampler.schedule, Discrete) else sys.maxsize
    if sweep is None:
        sweep = tuple(range(1, min(most, 1000) + 1))
    counts = tuple(n for n in counts if n <= most)
    rows = [
        _conformance_row(sampler, who, "grid", lambda: conformance.grid_faults(sampler, sweep), 0.0)
    ]
    idle = conformance.idle(sampler, counts)
    if idle.worst:
        note = f"n = {idle.steps}: {idle.words}"
        expected = f"0 of {len(counts)} grids"
        rows.append(_row(sampler, who, "idle steps", expected, idle.worst, "limit", note))
    checks: list[tuple[str, Callable[[], Finding], float]] = [
        ("finite", lambda: conformance.finite(sampler, counts), 0.0)
    ]
    if sampler.exact:
        checks += [
            ("levels", lambda: conformance.levels(sampler, counts), tolerance),
            (
                "image-to-image",
                lambda: conformance.image_to_image(sampler, min(20, most)),
                tolerance,
            ),
            ("last noise", lambda: conformance.residual_noise(sampler, counts), tolerance),
        ]
    rows += [_conformance_row(sampler, who, *one) for one in checks]
    return Report((*rows, *_orders(sampler, who, ladder)))


def assert_order(sampler: Sampler, nominal: int, ladder: tuple[int, ...] = order.COUNTS) -> None:
    """AssertionError unless the sampler shows this order; for a test of your own.

    Of the flow's solution, or weak order where the sampler is `noisy`.
    """
    found = _fit(rounded(sampler), ladder, uneven=False)
    assert found.order > nominal - SLACK, (
        f"{sampler.name}: wanted order {nominal}, got {found}; "
        f"errors {', '.join(f'{e:.3g}' for e in found.errors)} at {ladder} steps"
    )


def assert_sound(sampler: Sampler, who: Origin = Origin()) -> None:
    """AssertionError with the table of defects unless `audit` finds none."""
    found = audit(sampler, who)
    assert found.sound, f"{sampler.name}\n{Report(found.defects)}"


def _fit(sampler: Sampler, ladder: tuple[int, ...], uneven: bool) -> Fit:
    measure = order.weak_order if sampler.noisy else order.flow_order
    return measure(sampler, ladder, uneven)


def _orders(sampler: Sampler, who: Origin, ladder: tuple[int, ...]) -> list[Check]:
    """The order; where it is too low, whether the start alone is to blame; on uneven steps too."""
    check = "weak order" if sampler.noisy else "order"
    try:
        found = _fit(sampler, ladder, uneven=False)
    except UnsupportedError as refused:
        return [_row(sampler, who, check, sampler.order, "refused", "limit", str(refused))]
    except Exception as crash:  # code that is audited may raise anything
        note = conformance.crashed(crash)
        return [_row(sampler, who, check, sampler.order, "crashed", "defect", note)]
    verdict, note = _judged(sampler, found, ladder)
    if verdict == "defect" and check in who.limits:
        verdict, note = "limit", who.limits[check]
    rows = [_row(sampler, who, check, sampler.order, found, verdict, note)]
    rows += [] if sampler.noisy else _running(sampler, who, ladder)
    if sampler.any_grid:
        rows.append(_uneven(sampler, who, ladder, found))
    return rows


def _uneven(sampler: Sampler, who: Origin, ladder: tuple[int, ...], even: Fit) -> Check:
    """The order on a grid whose steps alternate, beside that on even steps."""
    check = f"{'weak order' if sampler.noisy else 'order'}, uneven steps"
    try:
        found = _fit(sampler, ladder, uneven=True)
    except UnsupportedError as refused:
        return _row(sampler, who, check, sampler.order, "refused", "limit", str(refused))
    except Exception as crash:  # code that is audited may raise anything
        note = conformance.crashed(crash)
        return _row(sampler, who, check, sampler.order, "crashed", "defect", note)
    verdict: Verdict = "sound"
    note = ""
    if not found.order > min(sampler.order, even.order) - SLACK:
        verdict, note = "limit", "neighbouring steps that stay unequal lower the order"
        if found.order < 1 - SLACK:
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
        if check in who.limits:
            verdict, note = "limit", f"{who.limits[check]}; {note}"
    return [_row(sampler, who, check, sampler.order, found, verdict, note)]


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


def _conformance_row(
    sampler: Sampler, who: Origin, check: str, look: Callable[[], Finding], most: float
) -> Check:
    """A conformance check as a row: sound where no more than `most` was found."""
    found = look()
    expected = "0 faults" if most == 0 else f"at most {most:g}"
    verdict: Verdict = "sound" if found.worst <= most else "defect"
    note = found.words if found.steps is None else f"n = {found.steps}: {found.words}"
    if most > 0 and sampler.rounding:
        expected += f", rounding of {sampler.rounding}"
        if most > TELLING and 0 < found.worst <= most:
            verdict, note = "limit", f"{sampler.rounding} is too coarse to tell ({note})"
    if found.refused:
        note += f"; {found.refused} refused openly"
    if verdict == "defect" and check in who.limits:
        verdict, note = "limit", f"{who.limits[check]} ({note})"
    return _row(sampler, who, check, expected, found.worst, verdict, note)


def _row(
    sampler: Sampler,
    who: Origin,
    check: str,
    expected: int | str,
    measured: Fit | float | str,
    verdict: Verdict,
    note: str,
) -> Check:
    where = (who.library, who.version, sampler.name, who.setting)
    return Check(*where, check, expected, measured, verdict, note)
