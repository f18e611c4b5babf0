"""The verification page: complete, true to the files it names, and made again by one command."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.verify.claims import AWAITED, IDS, ROOT, ClaimTest, claim_tests, claims, place
from experiments.verify.run import (
    OPEN,
    VERIFIED,
    ClaimRow,
    Config,
    Record,
    figures,
    measure,
    page,
    rows,
    run,
    state,
)
from experiments.verify.sources import digest, imported
from tests.support.verification import faults

AGAIN = "run `diffusion-math verify` (or `verify --no-tests` if only the page is old)"


def stored() -> Record:
    return run(Config(tests=False, out=ROOT / "docs"))


def without_lines(text: str) -> str:
    """The page without the line numbers of its links, which move with every edit."""
    return re.sub(r"(\.py)#L\d+\)", r"\1)", text)


def test_the_page_is_complete_and_fresh() -> None:
    """Every id; functions and tests that exist; claims, bounds and verdicts as they are now."""
    assert faults(ROOT, stored()) == [], AGAIN
    text = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    assert without_lines(text) == without_lines(page(stored())), AGAIN


def test_all_claims_are_known() -> None:
    assert tuple(claim.id for claim in claims()) == IDS
    assert len(IDS) == 33 + 8
    assert set(AWAITED) <= set(IDS)


def test_nothing_awaited_or_unproved_is_called_proven() -> None:
    known = {case.id for case in claim_tests()}
    for row in stored().rows:
        if row.verdict == VERIFIED:
            assert row.id in known - set(AWAITED)
            assert row.measured is not None and row.tolerance is not None
            assert row.measured <= row.tolerance
        else:
            assert row.verdict == OPEN and row.reason


def changed(old: list[ClaimRow], index: int, **fields: object) -> list[ClaimRow]:
    return [replace(row, **fields) if i == index else row for i, row in enumerate(old)]  # type: ignore[arg-type]


def test_every_kind_of_fault_is_found() -> None:
    """What the freshness test would miss, it would not be worth having."""
    record = stored()
    old = record.rows
    i = next(i for i, row in enumerate(old) if row.verdict == VERIFIED)
    row = old[i]
    assert row.test is not None and row.measured is not None and row.tolerance is not None
    wrong = {
        "no row": [one for one in old if one.id != row.id],
        "there is no": changed(old, i, function=f"{row.function}_not"),
        "there is no tests": changed(old, i, test=f"{row.test}_not"),
        "no longer so": changed(old, i, claim="Something else."),
        "not on the page": changed(old, i, verdict=OPEN),
        "on the page": changed(old, i, bound="1e-3"),
        "not <=": changed(old, i, measured=2 * row.tolerance + 1),
    }
    for said, lines in wrong.items():
        found = faults(ROOT, replace(record, rows=lines))
        assert any(said in fault for fault in found), said
    assert any("stale" in one for one in faults(ROOT, replace(record, sources="0" * 16)))
    # Another machine's last digits are no fault, nor is a commit that changed no code.
    other = replace(record, rows=changed(old, i, measured=row.tolerance / 2), commit="another")
    assert faults(ROOT, other) == []


def test_the_digest_is_of_code_and_of_all_that_a_test_imports(tmp_path: Path) -> None:
    """A changed sign in a module of a module counts; a docstring and a comment do not."""
    test, near, far = (tmp_path / name for name in ("tests/test_a.py", "sd/a.py", "sd/b/c.py"))
    for path in (test, near, far):
        path.parent.mkdir(parents=True, exist_ok=True)
    test.write_text('"""Test."""\nfrom sd import a\nimport numpy\n')
    near.write_text("from sd.b.c import f\n\ndef g():\n    import sd.never\n    return f(1)\n")
    far.write_text('def f(x):\n    """f."""\n    return -x\n')
    (tmp_path / "sd" / "never.py").write_text("")
    files = imported([test], tmp_path)
    assert files == sorted([test, near, far])
    before = digest(files, tmp_path)
    far.write_text('# A comment.\ndef f(x):\n    """Of x."""\n\n    return -x\n')
    assert digest(files, tmp_path) == before
    far.write_text('def f(x):\n    """f."""\n    return +x\n')
    assert digest(files, tmp_path) != before


def test_the_digest_reaches_what_the_claims_are_about() -> None:
    """Of each claim's function, the module is among the files whose code is in the digest."""
    found = claim_tests()
    files = imported({ROOT / case.test.split("::")[0] for case in found}, ROOT)
    for case in found:
        where = place(case.function)
        assert where is not None and ROOT / where[0] in files, case
    assert state(ROOT, found) != state(ROOT, found[:1])


CASES = """
import math
import pytest
from tests.support.measuring import Measured

@pytest.mark.claim("C01", "package.thing.f")
@pytest.mark.parametrize("error", [0.1, 0.4, 0.2])
def test_good(measured: Measured, error: float) -> None:
    measured(error, 0.5, "error")

@pytest.mark.claim("C02", "package.thing.f")
@pytest.mark.parametrize("error", [0.1, 0.6])
def test_one_case_fails(measured: Measured, error: float) -> None:
    measured(error, 0.5, "error")

@pytest.mark.claim("C03", "package.thing.f")
def test_not_a_number(measured: Measured) -> None:
    measured(math.nan, 0.5, "error")

@pytest.mark.claim("C04", "package.thing.f")
def test_skipped(measured: Measured) -> None:
    pytest.skip("not here")
    measured(0.1, 0.5, "error")

@pytest.mark.claim("C05", "package.thing.f")
def test_never_measures(measured: Measured) -> None:
    if False:
        measured(0.1, 0.5, "error")

@pytest.mark.claim("C06", "package.thing.f")
def test_two_bounds(measured: Measured) -> None:
    for bound in (0.5, 0.6):
        measured(0.1, bound, "error")

def test_unmarked() -> None:
    raise AssertionError("not a test of a claim: not to be run")
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project of one test file under this suite's conftest."""
    (tmp_path / "tests" / "support").mkdir(parents=True)
    for name in ("conftest.py", "support/measuring.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    (tmp_path / "tests" / "test_cases.py").write_text(CASES, encoding="utf-8")
    settings = (
        '[tool.pytest.ini_options]\npythonpath = ["."]\nmarkers = ["claim", "gpu", "weights"]\n'
    )
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    return tmp_path


def test_only_what_passed_in_all_cases_counts(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst case is the figure; a test that fails, is skipped or measures nothing has none."""
    found = claim_tests(small)
    assert [case.id for case in found] == ["C01", "C02", "C03", "C04", "C05", "C06"]
    assert found[0] == ClaimTest(
        "C01", "package.thing.f", "tests/test_cases.py::test_good", "0.5", "error"
    )
    measured = measure(small, found)
    assert measured == {"tests/test_cases.py::test_good": (0.4, 0.5)}
    lines = {row.id: row for row in rows(claims(), found, measured)}
    assert set(lines) == set(IDS)
    assert {id for id in IDS if lines[id].verdict == VERIFIED} == {"C01"}
    assert "failed" in lines["C02"].reason
    monkeypatch.setitem(AWAITED, "C01", "A picture.")
    (line,) = (row for row in rows(claims(), found, measured) if row.id == "C01")
    assert (line.verdict, line.measured, line.reason) == (OPEN, 0.4, "error. A picture.")


def test_a_marked_test_measures_exactly_once(small: Path) -> None:
    path = small / "tests" / "test_cases.py"
    mark = 'import pytest\n@pytest.mark.claim("C01", "a.b")\ndef test_a(measured):\n    '
    for body in ("pass", 'measured(1, 2, "a")\n    measured(1, 2, "a")', "measured(1, 2, reason)"):
        path.write_text(mark + body + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match="test_a: wanted one measured"):
            claim_tests(small)
    path.write_text('import pytest\n@pytest.mark.claim("C01")\ndef test_a(measured): ...\n')
    with pytest.raises(ValueError, match=r"wanted claim\(id, function\)"):
        claim_tests(small)


def test_a_report_that_was_cut_short_proves_nothing() -> None:
    assert figures("<testsuites><testsuite/></testsuites>") == {}


def test_places() -> None:
    here = Path(__file__).resolve().relative_to(ROOT).as_posix()
    path, line = place(f"{here}::test_places") or ("", 0)
    assert (
        Path(__file__)
        .read_text(encoding="utf-8")
        .splitlines()[line - 1]
        .startswith("def test_places")
    )
    assert path == here
    assert place("diffusion_math.densities.mixture.GaussianMixture.score", ROOT) is not None
    for name in (
        "diffusion_math.densities.mixture.nothing",
        "diffusion_math.densities.mixture",
        "no.such",
        f"{here}::a",
    ):
        assert place(name) is None


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"verification\.json"):
        run(Config(tests=False, out=tmp_path))
    with pytest.raises(ValueError, match=r"docs/claims\.md: wanted a checkout"):
        claims(tmp_path)
