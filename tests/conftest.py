"""Settings of the whole suite. Nothing here seeds, reads or restores a global random state.

Hypothesis profiles (`HYPOTHESIS_PROFILE=name`; without it `ci` where CI is set, else `default`):

- `default`: new examples on every run, so that the suite goes on searching; a failure prints the
  blob that repeats it.
- `ci`: examples are a function of the test, so that the verdict is a function of the commit.
- `thorough`: fifty times the examples, for an audit by hand.
- `flaky`: `default` without a memory, so that the seed alone tells the examples (tests/flaky.py).

A test marked `claim(id, function)` proves a claim of `docs/claims.md`. It calls `measured` once in
its text, and the worst value of all its calls goes to the report as a property of the test, where
`experiments.verify.run` reads it (`--junitxml`).

A test marked `chance(rate, against)` is a Monte Carlo test (tests/support/chance.py): what all
its cases spend of false alarms may not pass its rate, and a test that is not marked may spend
nothing (tests/ledger.py).
"""

import gc
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import jaxtyping
import mpmath
import pytest
import torch.distributed.tensor  # noqa: F401  (lazy in torch.testing; it can be imported once)
from hypothesis import HealthCheck, settings

from tests import shapes  # noqa: F401  (pyproject.toml names it to the hook)
from tests.support.measuring import Measured

pytest_plugins = ("tests.ledger", "pytester")

# Digits of every reference in mpmath: its precision is one for the whole process.
mpmath.mp.dps = 60

# A first call pays for torch's warm-up, a busy machine for the rest: time is no property here.
_SHARED = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.register_profile("default", _SHARED)
settings.register_profile("ci", _SHARED, derandomize=True, database=None)
settings.register_profile("thorough", _SHARED, max_examples=2500)
settings.register_profile("flaky", _SHARED, database=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "default")
)


# Modules and tests stay to the end: no round of the collector need visit them, now or later.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


# What the running test has measured: one test runs at a time in a process.
_figure: dict[str, float | str] = {}


@pytest.fixture(scope="session")
def measured() -> Measured:
    """`measured(value, tolerance, reason)` asserts value <= tolerance and records the figure.

    A session's fixture, since a property-based test calls it once an example; the worst is kept.
    """

    def record(value: float, tolerance: float, reason: str) -> None:
        value, tolerance = float(value), float(tolerance)
        known = (_figure.get("tolerance", tolerance), _figure.get("reason", reason))
        if known != (tolerance, reason):
            raise ValueError(
                f"measured: wanted one tolerance and reason a test, got {tolerance}, {reason!r} "
                f"after {known[0]}, {known[1]!r}"
            )
        assert value <= tolerance, f"{value} > {tolerance}: {reason}"
        worst = max(value, float(_figure.get("value", value)))
        _figure.update(value=worst, tolerance=tolerance, reason=reason)

    return record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Attach to a test's report what it measured."""
    _figure.clear()
    yield
    if _figure and item.get_closest_marker("claim") is not None:
        item.user_properties += [(key, repr(value)) for key, value in _figure.items()]


@contextmanager
def _without_checks() -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The package as users run it: the suite's checker of shapes is off, its own guards are not.

    It multiplies the time of long walks; where one is the subject, shapes have tests of their own.
    """
    with _without_checks():
        yield


@pytest.fixture(scope="module")
def module_unchecked() -> Iterator[None]:
    """`unchecked` for a whole file, what its fixtures make included."""
    with _without_checks():
        yield


@pytest.fixture(scope="session", autouse=True)
def _computes_in_bfloat16() -> Iterator[None]:
    """No machine warns of its slow bfloat16, which would fail a test there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sd.device.slow_bfloat16", lambda device: False)
        yield
