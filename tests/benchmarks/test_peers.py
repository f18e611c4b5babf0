"""The table of all peers: what stops a run before its work, and what an earlier run leaves."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import packages, peers
from benchmarks.compare import Row
from benchmarks.output import BEGIN, END, write_results
from benchmarks.table import Table

ROOT = Path(__file__).resolve().parents[2]
ROW = Row("a step", "diffusers", 0.1, 0.2, 0.45, 0.5, 0.55, 3)
LARGE = Row("v1.5: VAE decoder, float32", "diffusers", 7.0, 7.0, 0.9, 1.0, 1.1, 5)
OPTIONAL = ("blackjax", "diffusers", "jax", "nncf", "openvino", "openvino_genai", "transformers")
PARTS = ("oracle", "trace", "langevin", "solver", "network", "full_size")
Run = Callable[..., int]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were timed; nothing is, and all packages are there."""
    called: list[str] = []
    found = {"solver": [ROW], "full_size": [LARGE]}
    for part in PARTS:

        def rows(_: int, part: str = part) -> list[Row]:
            called.append(part)
            return found.get(part, [])

        monkeypatch.setattr(peers, f"{part}_rows", rows)
    monkeypatch.setattr(peers, "require_packages", lambda *_: None)
    return called


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def go(*flags: object) -> int:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, flags)])
        return program.main()

    return go


def rows(folder: Path) -> tuple[Row, ...]:
    table = Table.read(folder / "benchmarks.json")
    assert table is not None
    return table.rows


def test_a_part_is_put_beside_the_other(timed: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.md").write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    assert run("--only-full-size", "--out", tmp_path) == 0
    assert timed == ["full_size"] and rows(tmp_path) == (LARGE,)
    assert run("--no-full-size", "--out", tmp_path) == 0
    assert timed[1:] == list(PARTS[:-1]) and rows(tmp_path) == (ROW, LARGE)
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| a step | diffusers | 0.1 | 0.2 | 0.50 [0.45, 0.55] |  |" in text
    assert "| v1.5: VAE decoder" in text and "medians of 3 to 5 rounds" in text


def test_a_row_that_is_no_more_goes(timed: list[str], run: Run, tmp_path: Path) -> None:
    table = Table.of([replace(ROW, name="of an earlier version"), LARGE])
    write_results(tmp_path, "benchmarks", asdict(table), ())
    assert run("--no-full-size", "--out", tmp_path) == 0
    assert rows(tmp_path) == (ROW, LARGE)


def test_rows_of_another_machine_are_not_dropped(
    timed: list[str], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless it is asked for; the run stops before its work."""
    table = replace(Table.of([ROW, LARGE]), machine="another")
    path = write_results(tmp_path, "benchmarks", asdict(table), ())
    content = path.read_bytes()
    for flag in ("--only-full-size", "--no-full-size"):
        assert run(flag, "--out", tmp_path) == 2
        assert "machine was another, is " in capsys.readouterr().err
    assert timed == [] and path.read_bytes() == content
    assert run("--only-full-size", "--replace", "--out", tmp_path) == 0
    assert rows(tmp_path) == (LARGE,)
    path.write_bytes(content)
    assert run("--out", tmp_path) == 0 and rows(tmp_path) == (ROW, LARGE)


@pytest.mark.parametrize(
    "name", ["benchmarks.json", "benchmarks.md", "committed", "out", "package"]
)
def test_what_is_known_at_the_start_stops_the_run_there(
    timed: list[str],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    out, said = tmp_path / "new", f"{name}: wanted"
    if name == "committed":
        monkeypatch.setattr(peers, "DOCS", tmp_path)
        (tmp_path / "benchmarks.json").write_text('{"machine": ', encoding="utf-8")
        said = "benchmarks.json: wanted"
    elif name == "out":
        out.write_text("a file", encoding="utf-8")
        said = "--out: can't write to the folder"
    elif name == "package":
        monkeypatch.setattr(peers, "require_packages", packages.require_packages)
        for package in OPTIONAL:
            monkeypatch.setitem(sys.modules, package, None)
        said = "not installed: blackjax, diffusers, jax, transformers; pip install 'diffusion-math["
    else:
        out = tmp_path
        (tmp_path / name).write_text("hello", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    assert run("--out", out) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert timed == [] and sorted(tmp_path.iterdir()) == before


def test_the_extra_has_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"][packages.EXTRA]
    for package in OPTIONAL:
        assert any(one.startswith(f"{package.replace('_', '-')}>") for one in declared), package


def test_help_and_costs_need_no_peer(tmp_path: Path) -> None:
    """Every module is imported, and the help printed, without them."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL}))\n"
        "import benchmarks.scale.run, benchmarks.engines, benchmarks.peers\n"
        "from benchmarks.__main__ import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--only-full-size" in done.stdout


def test_the_committed_tables_can_be_read() -> None:
    assert Table.read(peers.DOCS / "benchmarks.json") is not None
    assert json.loads((peers.DOCS / "engines.json").read_bytes())["times"]
