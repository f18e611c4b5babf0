"""Runs the claims' tests and writes the verification page."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from experiments.output.files import to_json, write_files
from experiments.output.page import markdown_table
from experiments.verify import Config, mutation
from experiments.verify.claims import (
    AWAITED,
    ROOT,
    Claim,
    ClaimTest,
    Rejection,
    claim_tests,
    claims,
    place,
    rejections,
)
from experiments.verify.sources import digest, imported

VERIFIED, OPEN = "verified", "open"
HEAD = (
    "`diffusion-math verify` writes this page: it runs the tests named here and records what"
    " they measure. A claim is verified if each of its tests compares our function with an"
    " independent truth, within its tolerance; else it is open. Below each table are wrong versions"
    " of the functions: `tests/claims` runs each claim's own test on them, and the test must fail."
)
HEADER = (
    "id", "claim", "function", "test", "measured", "tolerance", "what is measured", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class ClaimRow:
    """A claim and one of its tests; `bound` is the tolerance as the test writes it."""

    id: str
    claim: str
    function: str | None
    test: str | None
    measured: float | None
    tolerance: float | None
    bound: str | None
    reason: str
    verdict: str


Figures = Mapping[str, tuple[float, float]]
"""For a test that passed in all its cases: its worst value, and the tolerance."""


@dataclass(frozen=True)
class Record:
    """What was measured, and of which code.

    Attributes:
        rows: a row for each test of a claim.
        commit: the commit that was checked out, with "+" where files had been changed since.
        sources: the digest of the code that the tests import, and of the embedded weights.
    """

    rows: list[ClaimRow]
    commit: str
    sources: str


def run(config: Config) -> Record:
    """Run the claims' tests, or read their last record; ValueError where there is none."""
    if config.tests:
        found = claim_tests()
        before = state(ROOT, found)
        return Record(rows(claims(), found, measure(ROOT, found)), commit(ROOT), before)
    return stored(config.out)


def state(root: Path, found: Sequence[ClaimTest]) -> str:
    """The digest of all that the figures depend on: a stored one that differs is stale."""
    tests = {root / case.test.split("::")[0] for case in found}
    assets = (path for path in (root / "sd" / "assets").rglob("*") if path.is_file())
    return digest([*imported(tests, root), *assets], root)


def commit(root: Path) -> str:
    """The short name of the commit that is checked out; "unknown" outside of a repository."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True)
        return done.stdout.strip()

    name = git("rev-parse", "--short=10", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--", "*.py", "sd/assets")
    return f"{name}+" if changed else name


def stored(folder: Path) -> Record:
    """What verification.json holds; ValueError if there is none."""
    path = folder / "verification.json"
    if not path.is_file():
        raise ValueError(f"--no-tests: wanted a verification.json in {folder}, got none")
    said = json.loads(path.read_text(encoding="utf-8"))
    return Record([ClaimRow(**row) for row in said["rows"]], said["commit"], said["sources"])


def measure(root: Path, found: Sequence[ClaimTest]) -> Figures:
    """Run the marked tests in a fresh process, and read off its report what they measured."""
    files = sorted({case.test.split("::")[0] for case in found})
    if not files:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-m", "claim and not gpu and not weights", "-q", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=root, check=False)
        if not report.is_file():
            raise ValueError("the tests: wanted a report of their run, got none")
        return figures(report.read_text(encoding="utf-8"))


def figures(report: str) -> Figures:
    """What each test measured, from pytest's JUnit report.

    A test with a case that failed, was skipped or measured nothing is left out.
    """
    cases: dict[str, list[tuple[float, float] | None]] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        path = case.get("classname", "").replace(".", "/") + ".py"
        test = f"{path}::{case.get('name', '').split('[')[0]}"
        said = {one.get("name"): one.get("value", "") for one in case.iter("property")}
        passed = all(case.find(word) is None for word in ("failure", "error", "skipped"))
        good = passed and "value" in said and "tolerance" in said
        figure = (float(said["value"]), float(said["tolerance"])) if good else None
        cases.setdefault(test, []).append(figure)
    worst = {}
    for test, seen in cases.items():
        whole = [one for one in seen if one is not None]
        if len(whole) == len(seen):
            worst[test] = max(whole)
    return worst


def rows(
    all_claims: Sequence[Claim], found: Sequence[ClaimTest], measured: Figures
) -> list[ClaimRow]:
    """A row for each test of a claim, and a row with a reason only for a claim without tests."""
    lines = []
    for claim in all_claims:
        own = [case for case in found if case.id == claim.id]
        for case in own:
            value, tolerance = measured.get(case.test, (None, None))
            awaited = AWAITED.get(claim.id)
            reason = case.reason if value is not None else f"Its test failed: {case.reason}"
            good = value is not None and awaited is None
            line = ClaimRow(
                claim.id, claim.text, case.function, case.test, value, tolerance,
                case.tolerance, reason if awaited is None else f"{reason}. {awaited}",
                VERIFIED if good else OPEN,
            )  # fmt: skip
            lines.append(line)
        if not own:
            reason = AWAITED.get(claim.id, "No test proves it yet.")
            lines.append(ClaimRow(claim.id, claim.text, *(None,) * 5, reason, OPEN))
    return lines


def page(record: Record, root: Path = ROOT) -> str:
    """The record as Markdown whose links lead from `docs/` to the functions' and tests' lines."""
    known, lines, refused = claims(root), record.rows, rejections(root)
    open_ids = {row.id for row in lines if row.verdict != VERIFIED}
    ids = {row.id for row in lines}
    blocks = ["# Verification", HEAD, f"**{len(ids - open_ids)} of {len(ids)} verified.**"]
    if open_ids:
        blocks.append(f"Open: {', '.join(sorted(open_ids))}.")
    tests, code = len({row.test for row in lines if row.test}), record.sources
    blocks.append(f"Measured by {tests} tests at commit `{record.commit}`, code digest `{code}`.")
    blocks += mutation.lines(root)
    for theme in dict.fromkeys(claim.theme for claim in known):
        table, here = [], [claim for claim in known if claim.theme == theme]
        for claim in here:
            own = [row for row in lines if row.id == claim.id]
            table += [_cells(row, claim, first=row is own[0], root=root) for row in own]
        blocks += [f"## {theme}", markdown_table(HEADER, table)]
        wrong = [line for claim in here if (line := _rejected(claim.id, refused))]
        blocks += ["Wrong versions that these tests reject:", "\n".join(wrong)] if wrong else []
    return "\n\n".join(blocks) + "\n"


def _cells(row: ClaimRow, claim: Claim, first: bool, root: Path) -> tuple[str, ...]:
    text = row.claim
    if claim.printed:
        text = f"*Printed* ({claim.of}): {claim.printed} *True:* {row.claim}"
    return (
        f"**{row.id}**" if first else row.id,
        text if first else "″",
        _link(row.function, root, ".".join((row.function or "").split(".")[-2:])),
        _link(row.test, root, (row.test or "").rpartition("::")[2]),
        _number(row.measured),
        _number(row.tolerance),
        row.reason,
        row.verdict if row.verdict == VERIFIED else f"**{row.verdict}**",
    )


def _rejected(id: str, found: Sequence[Rejection]) -> str:
    """The wrong versions of one claim, as an item of a list; empty where there are none."""
    own = [one for one in found if one.claim == id]
    said = [f"[{one.what.rstrip('.')}](../{one.path}#L{one.line})" for one in own]
    return f"- **{id}**: {'; '.join(said)}." if said else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _link(name: str | None, root: Path, shown: str) -> str:
    if name is None:
        return "–"
    where = place(name, root)
    return f"[`{shown}`](../{where[0]}#L{where[1]})" if where else f"`{name}`"


def write(record: Record, folder: Path) -> list[Path]:
    """Write verification.md and verification.json."""
    data = to_json(asdict(record))
    return write_files(
        folder, {"verification.md": page(record).encode(), "verification.json": data}
    )
