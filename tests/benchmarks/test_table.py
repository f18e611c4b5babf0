"""The benchmarks' table: kept as JSON, compared with the one before."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.compare import Row
from benchmarks.output import write_results
from benchmarks.table import RED, Table

ROW = Row("a step", "diffusers", 0.1, 0.2, 0.45, 0.5, 0.55, 3)
OTHER = Row("a pass", "diffusers", 7.0, 7.0, 0.9, 1.0, 1.1, 5)


def test_a_table_is_read_back(tmp_path: Path) -> None:
    table = Table.of([ROW, OTHER])
    assert write_results(tmp_path, "table", asdict(table), ()) == tmp_path / "table.json"
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


@pytest.mark.parametrize(
    "text",
    ['{"machine": "x"', '{"machine": "x"}', "[]", '{"machine": "x", "versions": {}, "rows": [1]}'],
)
def test_a_damaged_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"table\.json: wanted a table that python -m benchmarks"):
        Table.read(path)
