"""Anything that can be checked, as checks by name: what the pytest plugin makes items of."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any
from unittest import SkipTest

from diffusion_math.testing.report import Report
from diffusion_math.testing.sampler import Sampler
from diffusion_math.testing.verdicts import audit

__all__ = ["named_checks", "run_check"]

Run = Callable[[], Any]

WANTED = "a check, a Sampler, checks by name, several of these, or an object with methods"


def named_checks(subject: Any) -> dict[str, Run]:
    """The checks of a subject, each a callable without arguments that raises where it fails.

    Args:
        subject: a mapping of names to callables; a `Sampler`, for the checks of its `audit`; an
            iterable of callables, of (name, callable) and of Samplers, such as `of(...)` gives;
            a callable; or any other object, whose public methods are the checks. A callable is
            called by its `name`, else its `__name__`.

    Raises ValueError for another subject, for no check, for two of one name, and for a callable
    that has no name or wants arguments.

    >>> from diffusion_math.testing.named_checks import named_checks
    >>> list(named_checks({"a": lambda: None, "b": lambda: None}))
    ['a', 'b']
    """
    pairs = list(_pairs(subject))
    if not pairs:
        raise ValueError(f"checks: wanted {WANTED}, got none")
    found: dict[str, Run] = {}
    for name, run in pairs:
        if not isinstance(name, str) or not name or "::" in name:
            raise ValueError(f"checks: wanted a name without '::', got {name!r}")
        if name in found:
            raise ValueError(f"checks: wanted each name once, got {name!r} twice")
        _without_arguments(name, run)
        found[name] = run
    return found


def run_check(run: Run) -> str:
    """Run a check; what is a known limitation, or nothing.

    A check that returns a `Report` fails with its defects, and its limits are known limitations.
    Raises what the check raises; AssertionError for defects, and for another result than None;
    `unittest.SkipTest` for a check of which its maker says that nothing can run it.

    >>> from diffusion_math.testing.named_checks import run_check
    >>> run_check(lambda: None)
    ''
    >>> run_check(lambda: 1 == 2)
    Traceback (most recent call last):
    ...
    AssertionError: wanted a check that raises AssertionError or returns a Report, got False
    """
    if getattr(run, "run", run) is None:  # of `of`: a known name that nothing checks
        raise SkipTest(f"not checked: {getattr(run, 'reason', '')}")
    result = run()
    if isinstance(result, Report):
        assert result.sound, f"\n{Report(result.defects)}"
        limits = [row for row in result.rows if row.verdict == "limit"]
        return "; ".join(f"{row.check}: {row.shown}, {row.note}" for row in limits)
    wanted = "a check that raises AssertionError or returns a Report"
    assert result is None, f"wanted {wanted}, got {result!r}"
    return ""


def _pairs(subject: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(subject, Mapping):
        yield from subject.items()
    elif isinstance(subject, Sampler):
        yield from _of_sampler(subject).items()
    elif callable(subject):
        yield _name(subject), subject
    elif isinstance(subject, Iterable) and not isinstance(subject, str | bytes):
        for one in subject:
            if isinstance(one, tuple) and len(one) == 2:
                yield one
            elif isinstance(one, Sampler):
                yield from ((f"{one.name}: {name}", run) for name, run in _of_sampler(one).items())
            elif callable(one):
                yield _name(one), one
            else:
                raise ValueError(f"checks: wanted {WANTED}, got {one!r} among them")
    elif type(subject).__module__ != "builtins":
        yield from _methods(subject)
    else:
        raise ValueError(f"checks: wanted {WANTED}, got {subject!r}")


def _name(run: Any) -> Any:
    """How a callable is called; ValueError where it has no name."""
    while isinstance(run, partial):
        run = run.func
    name = getattr(run, "name", None) or getattr(run, "__name__", None)
    if name is None or name == "<lambda>":
        raise ValueError(f"checks: wanted a function with a name, or (name, function), got {run!r}")
    return name


SETUP = ("setup_method", "teardown_method", "setup_class", "teardown_class", "setUp", "tearDown")
"""Methods that test runners call around others, and this one does not."""


def _methods(subject: Any) -> Iterable[tuple[str, Run]]:
    """Public methods by their names, those of base classes first, in the order of definition.

    Raises ValueError for one of `SETUP`.
    """
    names = dict.fromkeys(name for kind in reversed(type(subject).__mro__) for name in vars(kind))
    for name in names:
        if name in SETUP:
            raise ValueError(f"checks: wanted __init__ for what comes before them, got {name}")
        if not name.startswith("_") and inspect.isroutine(getattr(type(subject), name)):
            yield name, getattr(subject, name)


def _without_arguments(name: str, run: Any) -> None:
    """Raise ValueError for what can't be called without arguments."""
    if not callable(run):
        raise ValueError(f"checks: wanted a callable of {name!r}, got {run!r}")
    try:
        inspect.signature(run).bind()
    except TypeError as error:
        wanted = f"a callable of {name!r} that takes no argument (or `of(...)` of an object)"
        raise ValueError(f"checks: wanted {wanted}, got one with a {error}") from None
    except ValueError:  # a builtin without a signature
        pass


def _of_sampler(sampler: Sampler) -> dict[str, Run]:
    """The checks of a sampler's audit, which runs once, when the first of them runs."""
    report = cache(lambda: audit(sampler))
    order = "weak order" if sampler.noisy else "order"
    names = ["grid", "finite", "noise"]
    names += ["levels", "image-to-image"] if sampler.exact else []
    names += ["times told", "last noise"]
    names += [order] if sampler.noisy else [order, "order of a step"]
    names += [f"{order}, uneven steps"] if sampler.any_grid else []

    def rows(name: str) -> Report:
        found = Report(tuple(row for row in report().rows if row.check == name))
        if not found.rows:
            raise SkipTest("not measured, for the sampler shows its last state alone or can't run")
        return found

    def others() -> Report:
        return Report(tuple(row for row in report().rows if row.check not in names))

    return {**{name: partial(rows, name) for name in names}, "other checks": others}
