"""The tutorials run, in two minutes at most, and are stored as a run left them."""

import re
from pathlib import Path
from time import monotonic

import pytest

from tests.notebook import STORED, code, execute, read
from tests.test_notebook import ill

TUTORIALS = sorted(path for path in STORED.parent.glob("*.ipynb") if path != STORED)
LONGEST = 120  # seconds
LARGEST = 250_000  # bytes
DEEP = re.compile(r"^\s*(?:from diffusion_math\S*|import diffusion_math\.)", re.M)


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


@pytest.mark.parametrize("path", [*TUTORIALS, STORED], ids=lambda path: path.stem)
def test_they_import_the_public_names_alone(path: Path) -> None:
    source = "\n".join(cell.source for cell in code(read(path)))
    assert "import diffusion_math as dm" in source
    assert DEEP.findall(source) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_they_run(path: Path, tmp_path: Path) -> None:
    began = monotonic()
    done = execute(read(path), tmp_path)
    assert monotonic() - began < LONGEST
    assert ill(done) == []
