"""One sum of chance, whoever runs the cases: in one process, and over xdist's workers."""

from pathlib import Path

import pytest

from tests import ledger
from tests.support import chance

ROOT = Path(__file__).parents[1]

HEAD = """
import pytest
from tests.support.chance import Count, spend

@pytest.fixture
def own():
    return Count(10, 0.5, 1e-9)

@pytest.fixture(scope="module")
def shared():
    return Count(10, 0.5, 1e-9)

@pytest.fixture(scope="session", params=["a", "b"])
def every(request):
    return spend(1e-9)

@pytest.fixture(scope="module")
def nested(shared):
    return spend(1e-9)

@pytest.fixture
def late():
    yield
    spend(1e-9)

def test_that_spends_nothing():
    pass

def test_unmarked_fails():
    spend(1e-9)

def test_unmarked_by_its_fixture_fails(shared):
    pass
"""

CASES = """
@pytest.mark.chance({declared}, "whatever else")
@pytest.mark.parametrize("case", [0, 1, 2])
def test_{name}(case{uses}):
    spend(1e-9)
"""

SPENT = {
    "": 3e-9,
    "own": 6e-9,
    "shared": 4e-9,
    "every": 8e-9,  # six cases, two fixtures
    "nested": 5e-9,
    "late": 6e-9,
}
"""The fixture that three cases of 1e-9 use, and what they spend in all."""


def ran(pytester: pytest.Pytester, text: str, workers: int) -> pytest.RunResult:
    """pytest's run of one file, here, with a ledger of its own and no other plugin than xdist."""
    pytester.makepyfile(test_inner=text)
    pytester.makeini("[pytest]\nmarkers =\n    chance: rate\n")
    plugins = ["-p", "tests.ledger", "-p", "xdist.plugin", "-p", "no:cacheprovider"]
    with pytest.MonkeyPatch.context() as patch:
        own = chance.Ledger()
        for module in (chance, ledger):
            patch.setattr(module, "LEDGER", own)
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        return pytester.runpytest_inprocess(*plugins, f"-n{workers}", "-q", "-rfE")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_one_sum_over_cases_and_fixtures_however_many_processes_run_them(
    pytester: pytest.Pytester, workers: int
) -> None:
    """A test that declares what it spends passes; one that declares a quarter less fails.

    Each of three cases is within its mark on its own; every test that uses a fixture pays for it.
    """
    text = HEAD
    for used, spent in SPENT.items():
        uses = f", {used}" if used else ""
        text += CASES.format(declared=spent, name=f"{used}_passes", uses=uses)
        text += CASES.format(declared=0.75 * spent, name=f"{used}_fails", uses=uses)
    done = ran(pytester, text, workers)
    lines = [line for line in done.outlines if line.startswith(("FAILED", "ERROR"))]
    # The first name of a line: where CI is set, pytest prints the whole message after it.
    failed = {line.partition("test_inner.py::")[2].split("[")[0].split(" ")[0] for line in lines}
    wanted = {f"test_{used}_fails" for used in SPENT}
    assert failed == wanted | {"test_unmarked_fails", "test_unmarked_by_its_fixture_fails"}
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert "test__fails: declares 2.25e-09, has spent 3" in done.stdout.str()
    assert "test_unmarked_by_its_fixture_fails: declares 0.0, has spent 1e-09" in done.stdout.str()


def test_a_bound_of_nobody_is_refused(pytester: pytest.Pytester) -> None:
    """Made as a file is imported, it would be no test's."""
    done = ran(pytester, HEAD + "\nLIMIT = spend(1e-9)\n", 0)
    assert done.ret != 0 and "chance is spent by a test or its fixture" in done.stdout.str()
