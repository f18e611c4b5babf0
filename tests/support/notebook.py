"""Notebooks run as a reader would: `python -m tests.support.notebook` runs and keeps the stored."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

STORED = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "stable_diffusion.ipynb"


def read(path: Path = STORED) -> NotebookNode:
    """A notebook as its file has it."""
    return nbformat.read(path, nbformat.NO_CONVERT)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells in a fresh kernel of this interpreter, on the CPU; raises a bad cell's error.

    Nothing of the machine or the hour goes into the notebook but its cells' outputs.
    """
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    done: NotebookNode = client.execute(env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    done.metadata.language_info = {"name": "python"}
    return done


def store(path: Path = STORED) -> None:
    """Run the stored notebook and write it back, whole."""
    with TemporaryDirectory() as folder:
        done = execute(read(path), Path(folder))
    fresh = path.with_suffix(".partial")
    nbformat.write(done, fresh)
    os.replace(fresh, path)


def ill(notebook: NotebookNode) -> list[str]:
    """Outputs that are errors or went to the error stream, as warnings do."""
    return [
        f"cell {number}: {output.get('text', output.get('evalue'))}"
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", ())
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


if __name__ == "__main__":
    store()
