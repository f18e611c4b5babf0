"""Wrong versions of what the claims are about, each of which its claim's own test must reject.

A wrong version is written as the function it replaces, under `@wrong(claim, test, place)`; its
docstring says in one sentence what it does wrong. The test runs with the version in `place`: a
name of the test's module, or "package.module:name.attribute" for what the test reaches from afar.
The verification page lists the sentences, read off the files by `experiments.verify.claims`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.support.chance import LEDGER

Version = TypeVar("Version", bound=Callable[..., Any])


@dataclass(frozen=True)
class Wrong:
    """A wrong version: of which claim, and how the claim's test meets it."""

    claim: str
    test: Callable[..., None]
    place: str
    name: str
    version: Any
    arguments: Mapping[str, Any]

    @property
    def id(self) -> str:
        return f"{self.claim}-{self.name}-{self.test.__name__}"


CORPUS: list[Wrong] = []
"""Every wrong version, in the order of the files."""


def wrong(
    claim: str,
    test: Callable[..., None],
    place: str,
    put: Callable[[Any], Any] = lambda version: version,
    **arguments: Any,
) -> Callable[[Version], Version]:
    """Enter the decorated function in the corpus: `put(it)` stands in `place` while `test` runs."""

    def enter(version: Version) -> Version:
        CORPUS.append(Wrong(claim, test, place, version.__name__, put(version), arguments))
        return version

    return enter


def rejected(one: Wrong) -> None:
    """Run the claim's test on the wrong version; AssertionError unless the test fails on it."""
    with pytest.MonkeyPatch.context() as patch:
        if ":" in one.place:
            module, _, path = one.place.partition(":")
            owner, _, name = path.rpartition(".")
            holder = import_module(module)
            patch.setattr(attrgetter(owner)(holder) if owner else holder, name, one.version)
        else:
            module = inspect.unwrap(one.test).__module__
            patch.setattr(import_module(module), one.place, one.version)
        with pytest.raises(AssertionError):
            run(one.test, one.arguments)


def run(test: Callable[..., None], arguments: Mapping[str, Any]) -> None:
    """A marked test as a function; what it spends of chance is its own and not the caller's."""
    wanted = inspect.signature(test).parameters
    with _searching(test), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LEDGER, "account", "a test run by hand")
        fixtures = {"measured": within, "monkeypatch": patch}
        test(**{name: value for name, value in fixtures.items() if name in wanted}, **arguments)


def within(value: float, tolerance: float, reason: str) -> None:
    """What the fixture `measured` asserts, without its record."""
    assert float(value) <= float(tolerance), f"{float(value)} > {float(tolerance)}: {reason}"


@contextmanager
def _searching(test: Callable[..., None]) -> Iterator[None]:
    """A property-based test looks for a counterexample, the same in every run, and keeps it big."""
    name = "_hypothesis_internal_use_settings"
    if not hasattr(test, name):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        eager = settings(
            getattr(test, name),
            phases=[Phase.explicit, Phase.generate],
            derandomize=True,
            database=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        patch.setattr(test, name, eager)
        yield
