"""The tutorials run, and are stored as a run left them."""

from pathlib import Path

import pytest

from tests.support.notebook import STORED, code, execute, ill, read

TUTORIALS = sorted(path for path in STORED.parent.glob("*.ipynb") if path != STORED)
LARGEST = 250_000  # bytes


def test_all_parts_of_the_lecture_have_one() -> None:
    names = {path.stem for path in TUTORIALS}
    assert names == {"forward_process", "guidance", "reverse_process", "score_and_langevin"}


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_stored_outputs_are_those_of_one_run(path: Path) -> None:
    stored = read(path)
    assert path.stat().st_size < LARGEST
    assert [cell.execution_count for cell in code(stored)] == list(range(1, len(code(stored)) + 1))
    assert ill(stored) == []
    assert any("image/png" in one.get("data", ()) for cell in code(stored) for one in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_they_run(path: Path, tmp_path: Path) -> None:
    assert ill(execute(read(path), tmp_path)) == []
