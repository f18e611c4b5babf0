"""A user's own file of samplers: what is wrong in it is one line, before the audit."""

import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.audit.run import Config, run

pytestmark = pytest.mark.usefixtures("unchecked")  # types that are not right are what is tried

HEAD = """
import itertools, sys, torch
from diffusion_math.testing import Sampler
from diffusion_math.testing.sampler import UnsupportedError
from diffusion_math.grid import trailing
from diffusion_math.schedule import VPLinear

s = VPLinear()

def made(walk, grid=lambda n: trailing(s, n), schedule=s):
    return Sampler("mine", schedule, walk, grid)

def still(denoise, x, grid, noise):
    for t in grid[1:]:
        yield x

"""
LINE = HEAD.count("\n") + 1

WRONG = {
    "mine = 3": "wanted a diffusion_math.testing.Sampler or 1 to 1000 in mine of {path}, got an "
    "int",
    "mine = 'abc'": "got a str",
    "mine = still": "wanted a diffusion_math.testing.Sampler, or a function without arguments, in "
    "mine of {path}",
    "mine = []": "got 0 of them",
    "mine = [made(still), 4]": "got an int",
    "mine = (made(still) for _ in itertools.count())": "got 1001 of them",
    "yours = 3": "{path} has no mine",
    "mine = lambda: 1 / 0": "{path}, line {line}: ZeroDivisionError: division by zero",
    "1 / 0": "{path}, line {line}: ZeroDivisionError: division by zero",
    "sys.exit(3)": "{path}, line {line}: SystemExit: 3",
    "mine = lambda: sys.exit(0)": "{path}, line {line}: SystemExit: 0",
    "import nowhere_at_all": "{path}, line {line}: ModuleNotFoundError: No module named",
    "def mine(:": "{path}, line {line}: SyntaxError: ",
    "mine = '\0'": "can't read {path}: source code string cannot contain null bytes",
    "mine = made(still, lambda n: trailing(s, n).tolist())": "grid(10): wanted a 1-D tensor",
    "mine = made(still, lambda n: torch.zeros(3, 3))": "got a tensor of shape (3, 3), float32",
    "mine = made(still, lambda n: [][n])": "{path}, line {line}: IndexError",
    "mine = made(still, schedule=3)": "schedule: wanted a schedule of diffusion_math.schedule, got",
    "mine = made(lambda d, x, g, n: itertools.repeat(x))": "states: wanted 1 state or one for each",
    "mine = made(lambda d, x, g, n: [x, x])": "states: wanted 1 state or one for each",
    "mine = made(lambda d, x, g, n: None)": "states: wanted tensors, got a NoneType",
    "mine = made(lambda d, x, g, n: [1] * 10)": "got an int",
    "mine = made(lambda d, x, g, n: [x[:1] for _ in g[1:]])": "got a tensor of shape (1, 2)",
    "mine = made(lambda d, x, g, n: [x.long() for _ in g[1:]])": "of shape (16, 2), int64",
    "mine = made(lambda d, x, g, n: [d(x)])": "{path}, line {line}: TypeError",
}


@pytest.mark.parametrize("code", WRONG)
def test_what_is_wrong_is_one_line(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEAD + code + "\n", encoding="utf-8")
    flags = ["--target", f"{path}:mine", "--quick", "--out", str(tmp_path / "out")]
    assert main(["audit", *flags]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --target: ") and line.count("\n") == 1
    assert WRONG[code].format(path=path, line=LINE) in line
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_no_utf_8_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"mine = 'caf\xe9'\n")
    assert main(["audit", "--target", f"{path}:mine", "--out", str(tmp_path / "out")]) == 2
    assert "SyntaxError: (unicode error)" in capsys.readouterr().err


def test_an_error_in_the_middle_of_the_audit_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    code = (
        "def late(d, x, g, n):\n    assert len(g) < 99, 'too\\nmany'\n    return still(d, x, g, n)"
    )
    path.write_text(HEAD + code + "\nmine = made(late)\n", encoding="utf-8")
    result = run(Config(target=f"{path}:mine", quick=True))
    rows = {row.check: row for row in result.data["found"]}
    assert rows["order"].measured == "crashed" and "too many" in rows["order"].note


def test_a_sampler_that_refuses_every_setting_was_not_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    code = "def no(d, x, g, n):\n    raise UnsupportedError('not yet')\n"
    path.write_text(HEAD + code + "mine = made(no)\n", encoding="utf-8")
    result = run(Config(target=f"{path}:mine", quick=True))
    defects = {row.check for row in result.data["found"] if row.verdict == "defect"}
    assert defects == {"finite"}
    assert {row.measured for row in result.data["found"]} >= {"refused"}


def test_a_file_imports_its_neighbours_when_it_is_loaded_and_when_it_runs(tmp_path: Path) -> None:
    before = list(sys.path)
    (tmp_path / "a_neighbour.py").write_text("from dataclasses import replace\n", encoding="utf-8")
    (tmp_path / "a_late_one.py").write_text("same = lambda x: x\n", encoding="utf-8")
    code = (
        "from __future__ import annotations\n" + HEAD + "from dataclasses import dataclass\n"
        "from a_neighbour import replace\n"
        "@dataclass\nclass Options:\n    steps: int = 3\n"
        "def late(d, x, g, n):\n    if len(g) > 20:\n        from a_late_one import same\n"
        "        x = same(x)\n    return still(d, x, g, n)\n"
        "mine = replace(made(late), name='other')\n"
    )
    path = tmp_path / "mine.py"
    path.write_text(code, encoding="utf-8")
    result = run(Config(target=f"{path}:mine", quick=True))
    assert {row.sampler for row in result.data["found"]} == {"other"}
    assert "crashed" not in {row.measured for row in result.data["found"]}
    assert sys.path == before
