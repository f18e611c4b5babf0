"""The benchmarks' table: kept as JSON, put into a page, compared with the one before."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import write
from benchmarks.compare import Row, compare
from benchmarks.table import BEGIN, END, RED, Table

ROW = Row("a step", "diffusers", 0.1, 0.2, 0.45, 0.5, 0.55, 3)
OTHER = Row("a pass", "diffusers", 7.0, 7.0, 0.9, 1.0, 1.1, 5)


def test_a_table_is_read_back(tmp_path: Path) -> None:
    table = Table.of([ROW, OTHER])
    table.write(tmp_path / "table.json")
    assert Table.read(tmp_path / "table.json") == table
    assert Table.read(tmp_path / "none.json") is None
    assert "torch" in table.versions and "cores" in table.machine


@pytest.mark.parametrize(("ratio", "worse"), [(0.54, False), (0.56, True), (0.3, False)])
def test_a_ratio_worse_by_a_tenth_is_red(ratio: float, worse: bool) -> None:
    before = Table.of([ROW, OTHER])
    now = Table.of([replace(ROW, ratio=ratio), OTHER])
    lines = now.lines(before, colour=True)
    assert [RED in line for line in lines] == [False, False, worse, False]
    assert ("worse: was 0.50" in lines[2]) == worse
    assert not any(RED in line for line in now.lines(before, colour=False))
    assert not any("worse" in line for line in now.lines(None, colour=True))


def test_a_page_gets_the_new_table_and_keeps_its_text(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    before = Table.of([OTHER])
    write(Table.of([ROW]), before, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n") and text.endswith("\n\nAfter.\n") and "old" not in text
    assert "| a step | diffusers | 0.1 | 0.2 | 0.50 [0.45, 0.55] |  |" in text
    held = replace(ROW, memory="ours 1 MiB, peer 2 MiB")
    assert "| ours 1 MiB, peer 2 MiB |" in Table.of([held]).page(text)
    assert Table.of([held]).lines(None, colour=False)[-1].endswith("peer 2 MiB")
    kept = Table.read(tmp_path / "benchmarks.json")
    assert kept is not None and kept.rows == (ROW, OTHER)  # what was not timed now stays
    assert "medians of 3 to 5 rounds" in text
    write(Table.of([ROW]), replace(before, machine="another"), tmp_path)
    kept = Table.read(tmp_path / "benchmarks.json")
    assert kept is not None and kept.rows == (ROW,)


def test_units_may_differ() -> None:
    import torch

    row = compare("a", "b", lambda: torch.ones(1), lambda: torch.ones(1), 2, (1, 1000), 0.0)
    assert row.ratio > 10
    with pytest.raises(ArithmeticError, match="differ by"):
        compare("a", "b", lambda: torch.ones(1), lambda: torch.zeros(1) + 2, 2, 1, 0.1)
