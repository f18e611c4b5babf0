"""The notebook runs, shows what it says, and is stored as a run left it."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nbformat import NotebookNode, v4
from PIL import Image

from sd.shapes import accuracy
from tests.support.notebook import STORED, code, execute, ill, read

EMBEDDED, OTHER = 'MODEL = "shapes"', "MODEL = {!r}"
LARGEST = 1_500_000  # bytes
OF_THE_MACHINE = re.compile(r" *\d+(\.\d+)?|( (cuda|mps|cpu)\b)+")


def outline(notebook: NotebookNode) -> list[tuple[int, int, str, str]]:
    """Every output: its cell and that cell's count, its kind, its text but for the machine's."""
    return [
        (number, cell.execution_count, output.output_type, masked(output.get("text", "")))
        for number, cell in enumerate(code(notebook))
        for output in cell.outputs
    ]


def masked(text: str) -> str:
    """The text without its numbers and devices."""
    return OF_THE_MACHINE.sub("#", text)


def keeping(notebook: NotebookNode, *names: str) -> NotebookNode:
    """The notebook with a cell more, which saves images of those names."""
    longer = deepcopy(notebook)
    saves = "\n".join(f"{name}.save('{name}.png')" for name in names)
    longer.cells.append(v4.new_code_cell(saves))
    return longer


def stale(notebook: NotebookNode) -> list[str]:
    """What tells that the outputs are not those of one run from top to bottom."""
    found = []
    for count, cell in enumerate(code(notebook), 1):
        if cell.execution_count != count:
            found.append(f"cell {count}: run as number {cell.execution_count}")
        if "show(" in cell.source and "def show" not in cell.source:
            kinds = [kind for output in cell.outputs for kind in output.get("data", ())]
            if "image/png" not in kinds:
                found.append(f"cell {count}: no image")
    return found


def test_stored_outputs_are_those_of_one_run() -> None:
    stored = read()
    assert STORED.stat().st_size < LARGEST
    assert len(code(stored)) > 10
    assert stale(stored) == []
    assert ill(stored) == []
    for change in (
        lambda cells: cells.insert(0, cells.pop()),
        lambda cells: cells[-1].update(execution_count=None),
        lambda cells: next(one for one in cells if "show([[by_hand" in one.source).update(
            outputs=[]
        ),
    ):
        other = deepcopy(stored)
        other.cells = code(other)
        change(other.cells)
        assert stale(other) != []


@pytest.mark.slow
def test_it_runs_and_its_images_show_their_prompts(tmp_path: Path) -> None:
    stored = read()
    done = execute(keeping(stored, "image", "by_hand"), tmp_path)
    assert ill(done) == []
    assert outline(done) == outline(stored), "stale: python -m tests.support.notebook"
    prompt = re.search(r'    PROMPT = "(.+)"', "\n".join(cell.source for cell in code(stored)))
    assert prompt is not None
    for name in ("image", "by_hand"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert accuracy.matches_prompt(np.asarray(image), prompt[1]), name
            assert not accuracy.matches_prompt(
                np.asarray(image), prompt[1].replace("red", "green")
            ), name


@pytest.mark.slow
def test_one_line_makes_it_run_on_a_checkpoint(tmp_path: Path) -> None:
    """A small Stable Diffusion v1 of random weights, its folder written by diffusers."""
    from sd.text.tokenizer import word_level
    from tests.support import small_models

    notebook = read()
    (cell,) = (cell for cell in code(notebook) if cell.source.startswith(EMBEDDED))
    words = sorted(
        {word for one in code(notebook) for word in re.findall(r"\w+", one.source.lower())}
    )
    text = replace(small_models.V1.text, vocab_size=len(words) + 3, context_length=77)
    folder = small_models.write_folder(tmp_path / "model", replace(small_models.V1, text=text))
    (folder / "tokenizer").mkdir()
    word_level(words).save(str(folder / "tokenizer" / "tokenizer.json"))
    settings = folder / "unet" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "sample_size": 16}))
    cell.source = cell.source.replace(EMBEDDED, OTHER.format(str(folder)), 1)
    done = execute(keeping(notebook, "image", "by_hand"), tmp_path)
    assert ill(done) == []
    assert stale(done) == []
    printed = "".join(output.get("text", "") for one in code(done) for output in one.outputs)
    assert "solver dpmpp_2m | guidance scale 7.5" in printed
    assert "every pixel equal" in printed
    with Image.open(tmp_path / "by_hand.png") as image:
        assert image.size == (32, 32)


def test_masked_and_ill_notice() -> None:
    assert masked("text   3.1 ms on cpu") == masked("text 12 ms on cuda cpu") != masked("test 3 ms")
    cell = v4.new_code_cell("1 / 0")
    cell.outputs = [
        v4.new_output("error", ename="ZeroDivisionError", evalue="division by zero"),
        v4.new_output("stream", name="stderr", text="warning"),
        v4.new_output("stream", name="stdout", text="fine"),
    ]
    notebook = v4.new_notebook(cells=[cell])
    assert ill(notebook) == ["cell 0: division by zero", "cell 0: warning"]
