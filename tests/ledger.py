"""The sum of chance over a whole run: each test, its fixtures included, spends what it declares.

Every process counts what its own cases spend and sends it along with their reports; the process
that gathers the reports, the only one there is or the one that xdist's workers report to, adds them
up and fails the report with which a test has spent more than its mark `chance(rate, against)`
declares (but for the rounding of the sum).

A fixture's bounds count for every test that uses it, once however many of its cases do so: so the
sum depends neither on which test came first nor on which worker made the fixture again.
"""

import math
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from tests.support.chance import LEDGER


@contextmanager
def _account(name: str) -> Iterator[None]:
    """Whatever is spent meanwhile is entered under this name."""
    before, LEDGER.account = LEDGER.account, name
    yield
    LEDGER.account = before


def _name(item: pytest.Item, fixture: pytest.FixtureDef) -> str:
    """Whose account a fixture's bounds are entered in: the case's own, or one that cases share."""
    if fixture.scope == "function":
        return item.nodeid
    index = getattr(item, "callspec", None) and item.callspec.indices.get(fixture.argname)
    return f"{fixture.baseid}::{fixture.argname}[{index}]"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A case that runs again spends no more."""
    LEDGER.spent[item.nodeid] = 0.0
    with _account(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """A fixture of a wider scope has an account of its own, which it begins anew."""
    name = _name(request._pyfuncitem, fixturedef)
    if fixturedef.scope != "function":
        LEDGER.spent[name] = 0.0
    with _account(name):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send along what the case has spent so far, by account, and what its test declares."""
    report = yield
    used = getattr(item, "_request", None)
    names = {_name(item, one) for one in (used._fixture_defs.values() if used else ())}
    mark = item.get_closest_marker("chance")
    declared = float(mark.args[0]) if mark is not None else 0.0
    spent = {name: LEDGER.spent.get(name, 0.0) for name in sorted({item.nodeid, *names})}
    report.chance = (declared, spent)
    return report


class Sum:
    """What all reports of a run say that each test has spent."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, dict[str, float]] = defaultdict(dict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        declared, spent = getattr(report, "chance", (0.0, {}))  # none of a worker that crashed
        name = report.nodeid.partition("[")[0]
        before = math.fsum(self.spent[name].values())
        self.spent[name] |= spent
        total = math.fsum(self.spent[name].values())
        if total > max(before, declared * (1 + 1e-12)) and report.outcome == "passed":
            report.outcome = "failed"
            report.longrepr = f"{name}: declares {declared}, has spent {total}"
        yield


def pytest_configure(config: pytest.Config) -> None:
    """The sum is that of the process that gathers the reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Sum())
