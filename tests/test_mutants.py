"""Mutation testing itself: what is copied, named and written, without the tool that breaks code."""

import json
import shutil
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from experiments.common.sweep import SweepError, swept
from tests import mutants
from tests.mutant_sources import named
from tests.mutant_units import Due, Unit, attempt, divided, verdicts
from tests.mutants import difference, full, undecorated
from tests.support.small_project import lay

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
    rows: list[dict[str, object]] = [
        {"mutant": full("diffusion_math", "fit.f", n), "digest": code, "killed": dead}
        for n, dead in killed.items()
    ]
    judged(root, rows)
    entries = mutants.renewed("diffusion_math", LINES, root)
    (root / "docs" / "mutants.json").write_text(
        json.dumps({"packages": {"diffusion_math": entries}})
    )
    entry: dict[str, object] = entries["fit.f"]
    return entry


def judged(tree: Path, rows: list[dict[str, object]]) -> None:
    """The verdicts of one unit of an earlier run."""
    (tree / "units" / "earlier").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tree / "units" / "earlier" / "verdicts.jsonl").write_text(text, encoding="utf-8")


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
    rows: list[dict[str, object]] = [
        {
            "mutant": full("diffusion_math", "fit.f", n),
            "digest": d,
            "killed": n == 1,
            "partial": True,
        }
        for n in (1, 2)
        for d in mutants.sources(root)["diffusion_math"].values()
    ]
    judged(root, rows)
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
    due: list[Due] = [{"mutant": name, "digest": "d"} for name in names]
    text = "".join(json.dumps(row) + "\n" for row in notes)
    (tmp_path / "reached.jsonl").write_text(text, encoding="utf-8")
    with_plugin(tmp_path)
    mutants.run(due, tmp_path, ["test_thing.py"], 2, None)
    assert verdicts(tmp_path) == {(name, "d"): killed for name, killed in names.items()}


def with_plugin(tree: Path) -> None:
    (tree / "tests").mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("mutating.py"), tree / "tests")


def test_a_unit_that_fails_is_named_and_leaves_the_verdicts(tmp_path: Path) -> None:
    """A worker's unit does not note what tests reach, since others would do so at the same time."""
    with_plugin(tmp_path)
    (tmp_path / "test_thing.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    judged(tmp_path, [{"mutant": "thing.x_f__mutmut_1", "digest": "d", "killed": True}])
    units = [Unit([{"mutant": "thing.x_g__mutmut_1", "digest": "d"}])]
    said = r"^thing.x_g to thing.x_g, 1 mutants: RuntimeError: .* 1 tests not traced, such as test_"
    with pytest.raises(SweepError, match=said):
        swept(partial(attempt, tree=tmp_path, tests=["test_thing.py"]), units, None)
    assert verdicts(tmp_path) == {("thing.x_f__mutmut_1", "d"): True}
    assert not (tmp_path / "reached.jsonl").exists()


def test_units_are_of_whole_functions() -> None:
    numbers = {"x_a": 2, "x_b": 1, "x_c": 9, "x_d": 1}
    due: list[Due] = [
        {"mutant": f"{name}__mutmut_{k}"} for name, count in numbers.items() for k in range(count)
    ]
    assert [str(unit) for unit in divided(due, 3)] == [
        "x_a to x_b, 3 mutants",
        "x_c to x_c, 9 mutants",
        "x_d to x_d, 1 mutants",
    ]
    assert [unit.due for unit in divided(due, len(due))] == [due]
    assert list(divided([], 0)) == []


def test_a_copy_that_a_unit_still_uses_is_left_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_work = root / "diffusion_math" / "units" / "one"
    at_work.mkdir(parents=True)
    with FileLock(at_work / "lock"), pytest.raises(SystemExit):
        mutants.main(["diffusion_math", "--folder", str(root)])
    assert f"--folder: a unit of an earlier run is at work in {at_work}" in capsys.readouterr().err


FUNCTIONS = """
def above(x):
    return x + 1

def below(x):
    return x - 1 if x > 5 else x - 2
"""
CHECKS = """
from diffusion_math.fit import above, below

def test_above():
    assert above(1) == 2

def test_below():
    assert below(7) == 6
"""


@pytest.mark.slow
def test_two_workers_give_what_this_process_gives(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verdict, each function in a unit of its own, and each test traced once in either order;
    what was interrupted goes on."""
    pytest.importorskip("mutmut")
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(root)
    monkeypatch.setattr(mutants, "COPIED", ("diffusion_math", "tests"))
    monkeypatch.setattr(mutants, "SIZE", 1)
    lay(root, diffusion_math__fit=FUNCTIONS, tests__diffusion_math__test_fit=CHECKS)
    with_plugin(root)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    machine = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with machine:
        found = {}
        for name, more in (
            ("here", ["--jobs=1"]),
            ("there", [f"--scheduler={machine.scheduler_address}"]),
        ):
            (root / "docs" / "mutants.json").write_text('{"packages": {}}')
            mutants.main(["diffusion_math", "--folder", str(root / name), *more])
            tree = root / name / "diffusion_math"
            units = len(list(tree.glob("units/*/verdicts.jsonl")))
            traced = (tree / "reached.jsonl").read_text().count('"passed"')
            found[name] = verdicts(tree), traced, units
        next(tree.glob("units/*/verdicts.jsonl")).unlink()
        (root / "docs" / "mutants.json").write_text('{"packages": {}}')
        mutants.main(["diffusion_math", "--folder", str(tree.parent), *more])
        assert verdicts(tree) == found["there"][0]
        assert len(list(tree.glob("units/*/verdicts.jsonl"))) == 2
    killed, traced, units = found["here"]
    assert set(killed.values()) == {True, False} and (traced, units) == (4, 1)
    assert found["there"] == (killed, 4, 2)


def test_an_entry_is_of_the_commit_that_changed_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note that says nothing new changes nothing in the ledger."""

    def made(at: str, killed: dict[int, bool]) -> object:
        monkeypatch.setattr(mutants, "commit", lambda _: at)
        return noted(root, killed)["commit"]

    one = {1: True}
    assert [made("1", {}), made("2", {}), made("3", one), made("4", one)] == list("1133")
    whole = dict.fromkeys(range(1, 5), True)
    assert [made("5", whole), made("6", {}), made("7", {2: False})] == list("557")
