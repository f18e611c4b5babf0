"""Mutation testing itself: what is copied, named and written, without the tool that breaks code."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from tests import mutants
from tests.mutant_sources import named
from tests.mutants import difference, full, undecorated

DECORATED = """
from functools import cache, cached_property
import torch

@torch.no_grad()
def grows(x: torch.Tensor) -> bool:
    return (2 * x).requires_grad

@cache
def once(n: int) -> list[int]:
    return [n]

class Thing:
    @property
    @staticmethod
    def odd() -> int:
        return 1

    @property
    def size(self) -> int:
        return 3

    @cached_property
    def value(self) -> list[int]:
        return [self.size]

    @classmethod
    def made(cls) -> "Thing":
        return cls()
"""


def test_decorators_below_a_function_do_what_they_do_above_it() -> None:
    source = undecorated(DECORATED)
    there: dict[str, object] = {}
    exec(compile(source, "there", "exec"), there)
    grows, once, thing = there["grows"], there["once"], there["Thing"]
    assert callable(grows) and callable(once) and callable(thing)
    assert not grows(torch.ones(1, requires_grad=True))
    assert once(1) is once(1)
    one = thing()
    assert one.size == 3 and one.value is one.value == [3] and type(one).made().size == 3
    left = {name: len(node.decorator_list) for name, node in named(source)}
    assert left == {
        "grows": 0,
        "once": 0,
        "Thing.odd": 0,
        "Thing.size": 0,
        "Thing.value": 0,
        "Thing.made": 1,
    }


@pytest.mark.parametrize(
    "name", ["adams.f", "adams._f", "oracle.Mix.f", "oracle._Mix._f", "train.vae.f"]
)
def test_a_function_has_one_name_here_and_in_the_tool(name: str) -> None:
    there = full("sd", name, 7).removeprefix("sd.").removesuffix("__mutmut_7")
    module, _, mangled = there.rpartition(".")
    assert f"{module}.{mutants._plain(mangled)}" == name


def test_a_mutation_is_told_by_its_lines() -> None:
    before = ["def f(x):", "    y = 1", "    return x + y"]
    after = [*before[:2], "    return x - y"]
    assert difference(before, after) == ("return x + y", "return x - y")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one function with four mutants, of which a verdict is known of three."""
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    for folder in ("diffusion_math", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "mutants.json").write_text(json.dumps({"packages": {}}))
    (tmp_path / "diffusion_math" / "fit.py").write_text("def f(x):\n    return x + 1\n")
    return tmp_path


LINES = {"fit.f": [("return x + 1", f"return x + {n}") for n in range(2, 6)]}


def noted(root: Path, killed: dict[int, bool], digest: str | None = None) -> dict[str, object]:
    """The function's entry after these verdicts, which is then the ledger's."""
    code = digest or mutants.sources(root)["diffusion_math"]["fit.f"]
    rows = [
        {"mutant": full("diffusion_math", "fit.f", n), "digest": code, "killed": dead}
        for n, dead in killed.items()
    ]
    (root / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = mutants.renewed("diffusion_math", LINES, root)
    (root / "docs" / "mutants.json").write_text(
        json.dumps({"packages": {"diffusion_math": entries}})
    )
    entry: dict[str, object] = entries["fit.f"]
    return entry


def alive(entry: dict[str, object]) -> list[int]:
    survivors = entry["survivors"]
    assert isinstance(survivors, list)
    return [one["mutant"] for one in survivors]


def test_what_was_not_run_is_left_and_goes_on(root: Path) -> None:
    entry = noted(root, {1: True, 2: False, 3: True})
    assert (entry["total"], entry["left"], alive(entry)) == (4, 1, [2])
    due = [
        one.number for one in mutants.mutants("diffusion_math", LINES, root) if one.killed is None
    ]
    assert due == [4]
    entry = noted(root, {1: True, 2: False, 3: True, 4: True})
    assert (entry["left"], alive(entry)) == (0, [2])


def test_a_whole_entry_stands_without_verdicts_and_yields_to_new_ones(root: Path) -> None:
    noted(root, {1: True, 2: False, 3: False, 4: True})
    entry = noted(root, {})
    assert (entry["left"], alive(entry)) == (0, [2, 3])
    entry = noted(root, {3: True})
    assert (entry["left"], alive(entry)) == (0, [2])


def test_verdicts_on_other_code_do_not_count(root: Path) -> None:
    entry = noted(root, dict.fromkeys(range(1, 5), True), digest="of old")
    assert (entry["left"], alive(entry)) == (4, [])
    noted(root, dict.fromkeys(range(1, 5), True))
    (root / "diffusion_math" / "fit.py").write_text("def f(x):\n    return 1 + x\n")
    entry = noted(root, {})
    assert (entry["left"], alive(entry)) == (4, [])


def test_what_a_part_of_the_tests_lets_live_is_not_run(root: Path) -> None:
    noted(root, {})
    rows = [
        {
            "mutant": full("diffusion_math", "fit.f", n),
            "digest": d,
            "killed": n == 1,
            "partial": True,
        }
        for n in (1, 2)
        for d in mutants.sources(root)["diffusion_math"].values()
    ]
    (root / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = mutants.renewed("diffusion_math", LINES, root)["fit.f"]
    assert (entry["left"], alive(entry)) == (3, [])


def test_a_reason_stays_with_its_mutation(root: Path) -> None:
    noted(root, {1: True, 2: False, 3: False, 4: True})
    path = root / "docs" / "mutants.json"
    path.write_text(path.read_text().replace('"reason": ""', '"reason": "as good"', 1))
    entry = noted(root, {1: False, 2: False, 3: False, 4: True})
    survivors = entry["survivors"]
    assert isinstance(survivors, list)
    assert [one["reason"] for one in survivors] == ["", "as good", ""]


def test_a_package_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mutants.main(["nothing"])
    assert "wanted some of diffusion_math, sd" in capsys.readouterr().err
    assert "mutmut" not in sys.modules


TESTS = """
import os
import time

def told():
    return os.environ.get("MUTANT_UNDER_TEST", "")

def test_first():
    assert told() != "thing.x_f__mutmut_1"

def test_second():
    assert told() != "thing.x_f__mutmut_2"
    if told() == "thing.x_f__mutmut_3":
        os._exit(3)

def test_broken():
    raise AssertionError
"""


def test_each_mutant_meets_the_tests_that_reach_it(tmp_path: Path) -> None:
    """Killed by a failure or a crash; alive where all pass, where none reaches it, and where the
    one that would fail does so without a mutation."""
    reached = {
        "test_first": ["thing.x_f"],
        "test_second": ["thing.x_f"],
        "test_broken": ["thing.x_h"],
    }
    (tmp_path / "test_thing.py").write_text(TESTS, encoding="utf-8")
    code = sha256(TESTS.encode()).hexdigest()[:12]
    whole = {"code": code, "seconds": 0.1}
    notes = [
        {
            "test": f"test_thing.py::{name}",
            "passed": name != "test_broken",
            "functions": them,
            **whole,
        }
        for name, them in reached.items()
    ]
    notes.append({"test": "", "functions": ["thing.x_g"]})
    wanted = {1: True, 2: True, 3: True, 4: False}
    names = {f"thing.x_f__mutmut_{number}": killed for number, killed in wanted.items()}
    names |= {"thing.x_g__mutmut_1": False, "thing.x_h__mutmut_1": False}
    due = [{"mutant": name, "digest": "d"} for name in names]
    for file, rows in (("reached", notes), ("due", due)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{file}.jsonl").write_text(text, encoding="utf-8")
    files = ("--mutants=due.jsonl", "--verdicts=verdicts.jsonl", "--reached=reached.jsonl")
    plugins = ("-p", "tests.mutating", "-p", "no:cacheprovider", "--rootdir=.")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, *files, "test_thing.py"]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(command, cwd=tmp_path, env=path, check=True, capture_output=True, timeout=120)
    lines = (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    assert {row["mutant"]: row["killed"] for row in map(json.loads, lines)} == names
