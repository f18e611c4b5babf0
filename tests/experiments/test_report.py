"""The report: written as it goes, in several processes, whole after each experiment."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from experiments.common import sweep
from experiments.common.model_options import Model
from experiments.output.result import Measurement, Result
from experiments.report import Config, model_sections, sections
from experiments.report import run as report


def section(name: str, config: Config) -> Result:
    """In place of `sections.make`."""
    return Result(name, f"Title of {name}", (Measurement(name, "c", 1.0, None, "holds"),), (), {})


def broken(name: str, config: Config, at: str, error: BaseException) -> Result:
    """One section raises."""
    if name == at:
        raise error
    return section(name, config)


def here(work: Any, names: Any, *_: Any) -> Any:
    """In place of `sweep.each`: one after the other, in this process."""
    return sweep.each(work, names, None)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(report, "each", here)
    monkeypatch.setattr(report, "make", section)
    return monkeypatch


def pages(folder: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """report.html, report.md and report.json; no temporary file lies beside them."""
    assert not list(folder.glob(".*.tmp"))
    html, text, rows = (folder / f"report.{end}" for end in ("html", "md", "json"))
    return html.read_text(), text.read_text(), json.loads(rows.read_text())


def test_pages_have_all_sections_and_their_seconds(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = report.run(Config(out=tmp_path))
    assert [path.name for path in report.write(made, tmp_path)] == [
        "report.html",
        "report.md",
        "report.json",
    ]
    html, text, rows = pages(tmp_path)
    assert html.count("<h2 ") == text.count("\n## Title of ") == len(sections.SECONDS)
    assert "to come" not in html + text
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert {f"report-seconds-{name}" for name in sections.SECONDS} <= set(names)
    assert text.count(report.LECTURE_PROMPT) == 1


def test_pages_are_whole_after_each_section(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def look(name: str, config: Config) -> Result:
        html, text, rows = pages(tmp_path)
        left = html.count("has not run yet")
        assert left == text.count("has not run yet") == len(sections.SECONDS) - len(seen)
        assert (f"{left} of {len(sections.SECONDS)} sections are still to come." in text) == (
            left > 0
        )
        assert sum(row["name"] in seen for row in rows) == len(seen)
        seen.append(name)
        return section(name, config)

    alone.setattr(report, "make", look)
    report.run(Config(out=tmp_path))
    assert seen[0] == "pictures"
    assert seen[-1] == "timing"  # with the machine to itself, when all others have ended
    assert sorted(seen) == sorted(sections.SECONDS)


def test_an_experiment_that_fails_leaves_the_others(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.setattr(report, "make", partial(broken, at="errata", error=ZeroDivisionError("no 1/0")))
    with pytest.raises(ZeroDivisionError):
        report.run(Config(out=tmp_path))
    html, _, rows = pages(tmp_path)
    assert "This experiment failed: ZeroDivisionError: no 1/0." in html
    assert {row["name"] for row in rows} >= set(sections.SECONDS) - {"errata"}


def test_a_model_that_does_not_load_ends_the_report_at_once(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.setattr(report, "make", partial(broken, at="pictures", error=ValueError("--model")))
    with pytest.raises(ValueError, match="--model"):
        report.run(Config(out=tmp_path))
    assert pages(tmp_path)[0].count("has not run yet") == len(sections.SECONDS) - 1


def test_an_interrupted_report_leaves_what_was_done(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.setattr(report, "make", partial(broken, at="timing", error=KeyboardInterrupt()))
    every = len(sections.SECONDS)
    said = rf"{every - 1} of {every} sections are in .*report\.html"
    with pytest.raises(KeyboardInterrupt, match=said):
        report.run(Config(out=tmp_path))
    html, _, rows = pages(tmp_path)
    assert html.count("has not run yet") == 1
    assert {row["name"] for row in rows} >= set(sections.SECONDS) - {"timing"}


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_and_leaves_the_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments", "report", "--quick", "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()  # ends when no child holds the pipe any more
        assert process.wait(60) == 130
    assert "pictures" in first
    assert "interrupted; " in told and "report.html" in told and "Traceback" not in told
    assert "has not run yet" in pages(tmp_path)[0]


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # shapes have tests of their own
def test_quick_report(tiny: Path, tmp_path: Path) -> None:
    report.run(Config(quick=True, out=tmp_path, model=Model(weights=tiny), workers=2))
    html, text, rows = pages(tmp_path)
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.rpartition("(")[2].rstrip(")")).is_file()
    assert html.count("<img ") == text.count("![") > 20
    assert 'src="http' not in html
    assert "loss 0.25" in text  # the figures in the weights' metadata
    failed = {row["name"] for row in rows if row["verdict"] == "does not hold"}
    # Random weights give nothing back, and their sampling is far from its end in so few steps;
    # every other experiment has too few samples to say so.
    of_weights = {"autoencoder", "autoencoder-reader", "tradeoff-reference"}
    assert failed <= of_weights | {"cfg-seen-guided", "cfg-held-out-guided"}
    assert {row["verdict"] for row in rows} >= {"too few samples", "holds", "measured"}


def test_every_section_is_an_experiment_or_the_reports_own() -> None:
    assert set(sections.SECONDS) == {*sections.QUICK, "pictures", "weights"}
    assert set(sections.SHORTER) <= set(sections.QUICK)


def test_the_report_says_how_often_the_weights_were_right() -> None:
    figures = '{"judged": 200, "seen_guided": 0.955, "seen_unguided": 0.5, '
    figures += '"held_out_guided": 0.0, "held_out_unguided": 1.0}'
    (table,) = model_sections.judged({"figures": figures})
    # Wilson's interval of 191 of 200.
    assert table.rows[0][1:] == ("95.5% [91.7%, 97.6%]", "50.0% [43.1%, 56.9%]")
    assert table.rows[1][1:] == ("0.0% [0.0%, 1.9%]", "100.0% [98.1%, 100.0%]")
    assert model_sections.judged({}) == ()
    assert model_sections.judged({"figures": '{"loss": 0.1}'}) == ()
    few = {"figures": '{"judged": 200, "seen": 0.955, "held_out": 0.5}'}
    (table,) = model_sections.judged(few)
    assert table.header[1:] == ("right",) and table.rows[0][1:] == ("95.5% [91.7%, 97.6%]",)
