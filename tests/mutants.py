"""Mutation testing: `python -m tests.mutants` breaks each function line by line, test by test.

mutmut changes one thing at a time in a copy of the sources (an operator, a constant, an argument),
and tests/mutating.py runs the tests that reach it. A change that no test notices is alive:
docs/mutants.json lists it with the reason why it is equivalent or cannot be seen, written there by
hand. Functions whose code has not changed since their mutants were run are left alone, and an
interrupted run goes on where it stopped. What is decorated is mutated too: `@property` above a
function is written as `f = property(f)` below it in the copy.

    python -m tests.mutants              run what is stale
    python -m tests.mutants --survivors  run what is alive as well: tests may have come
    python -m tests.mutants --note       run nothing; what is stale counts as alive, "not run"
    python -m tests.mutants --scheduler 10.0.0.5:8786   run on the workers of a dask scheduler

Mutants are a sweep (experiments/common/sweep.py). Here they are one unit, which forks a process for
each mutant: a fork costs little, but to collect the tests takes longer than most mutants do. On a
cluster they are units of whole functions (tests/mutant_units.py), each a pytest of its own.
"""

import argparse
import ast
import difflib
import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from experiments.common.sweep import cluster, swept
from experiments.output.files import to_json, write_files
from experiments.verify.mutation import SCOPE, Entry, counts, ledger
from experiments.verify.run import commit
from tests.mutant_sources import bare, files, named, sources
from tests.mutant_units import SIZE, Due, Unit, attempt, divided, refuse_running, verdicts

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("diffusion_math", "sd", "experiments", "tests", "docs", "benchmarks")
LONGEST = 1.0
"""Seconds of CPU that a test may take to be among those that mutants meet."""

BESIDE = {"experiments": ("tests/test_rates.py",)}
"""Tests of a package that lie outside its folder of tests."""

Lines = dict[str, list[tuple[str, str]]]
"""The mutants of functions, in mutmut's order: the line and what became of it."""


class Mutant(NamedTuple):
    """One mutant, and whether it was killed, where that is known of the function as it is."""

    function: str
    digest: str
    number: int
    name: str
    line: str
    mutation: str
    killed: bool | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants of what changed and write docs/mutants.json; 1 if a package is below 97%."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=main.__doc__)
    parser.add_argument("packages", nargs="*", metavar="package", help=f"of {', '.join(SCOPE)}")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "mutants")
    parser.add_argument("--survivors", action="store_true", help="run what is alive as well")
    parser.add_argument("--note", action="store_true", help="run nothing, note what is stale")
    parser.add_argument("--only", nargs="+", default=[""], help="functions whose names begin so")
    parser.add_argument("--tests", nargs="+", help="some of the package's tests")
    parser.add_argument("--longest", default=str(LONGEST), help="seconds of a test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes here")
    parser.add_argument("--scheduler", help="address of a dask scheduler, whose workers run units")
    asked = parser.parse_args(arguments)
    if asked.note and asked.scheduler:
        parser.error("--scheduler: wanted none with --note, which runs nothing")
    if unknown := sorted(set(asked.packages) - set(SCOPE)):
        parser.error(f"packages: wanted some of {', '.join(SCOPE)}, got {', '.join(unknown)}")
    trees = {package: asked.folder.resolve() / package for package in asked.packages or SCOPE}
    with ExitStack() as stack:
        try:
            executor = stack.enter_context(cluster(asked.scheduler)) if asked.scheduler else None
            for tree in trees.values():
                refuse_running(tree)
        except (ValueError, RuntimeError) as error:
            parser.error(str(error))
        low = [scored(package, tree, asked, executor) for package, tree in trees.items()]
    return int(any(low))


def scored(package: str, tree: Path, asked: Namespace, executor: Executor | None) -> bool:
    """Run what is due of a package and write its part of the ledger; whether it is below 97%."""
    lines = prepare(package, tree)
    if not asked.note:
        some = bool(asked.tests or float(asked.longest) < LONGEST)
        due: list[Due] = [
            {"mutant": one.name, "digest": one.digest, "partial": some}
            for one in mutants(package, lines, tree)
            if one.function.startswith(tuple(asked.only))
            and (one.killed is None or (asked.survivors and not one.killed))
        ]
        near = [f"tests/{package}", *BESIDE.get(package, ())]
        run(due, tree, [*(asked.tests or near), f"--longest={asked.longest}"], asked.jobs, executor)
    known = ledger(ROOT)
    known["tool"] = f"mutmut {version('mutmut')}"
    known["packages"][package] = renewed(package, lines, tree)
    write_files(ROOT / "docs", {"mutants.json": to_json(known)})
    total, alive, left = counts(known["packages"][package])
    sys.stdout.write(f"{package}: {total} mutants, {alive} alive, {left} not run\n")
    return total - alive - left < 0.97 * total


def run(
    due: Sequence[Due], tree: Path, tests: Sequence[str], jobs: int, executor: Executor | None
) -> None:
    """Try mutants: here as one unit, or as several on an executor once the tests are traced here.

    Raises SweepError, with the unit's name, for a unit that fails; verdicts stay in their files.
    """
    work = partial(attempt, tree=tree, tests=tests)
    if executor is None:
        swept(partial(work, jobs=jobs, trace=True), divided(due, len(due)), None)
    elif due:
        work(Unit(due), jobs=jobs, trace=True, tries=False)
        units = list(divided(due, SIZE))
        with tqdm(total=len(units), unit="unit", disable=None) as bar:
            swept(work, units, executor, bar.update)


def prepare(package: str, tree: Path) -> Lines:
    """Copy the sources and break those in scope.

    The copy is without the checker of shapes at import, which would have to be there before mutmut.
    """
    for name in COPIED:
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.rmtree(tree / name, ignore_errors=True)
        shutil.copytree(ROOT / name, tree / name, ignore=hidden)
    settings = (ROOT / "pyproject.toml").read_text("utf-8").splitlines(keepends=True)
    kept = (line for line in settings if "--jaxtyping-packages" not in line)
    (tree / "pyproject.toml").write_text("".join(kept), "utf-8")
    (tree / "setup.cfg").write_text(f"[mutmut]\nsource_paths=\n    {package}\n", "utf-8")
    os.chdir(tree)
    found: Lines = {}
    for path in files(package, ROOT):
        found |= broken(path.relative_to(ROOT), tree)
    return found


def mutants(package: str, lines: Lines, tree: Path) -> Iterator[Mutant]:
    """All mutants of a package as it is now, with what is known of them."""
    known, have = entries(package), verdicts(tree)
    for function, code in sorted(sources(ROOT)[package].items()):
        entry = known.get(function)
        fresh = entry is not None and entry["digest"] == code and not entry["left"]
        alive = {one["mutant"] for one in entry["survivors"]} if entry and fresh else set()
        for number, (line, mutation) in enumerate(lines.get(function, ()), 1):
            name = full(package, function, number)
            killed = have.get((name, code), number not in alive if fresh else None)
            yield Mutant(function, code, number, name, line, mutation, killed)


def renewed(package: str, lines: Lines, tree: Path) -> dict[str, Entry]:
    """The package's entries from the verdicts, of today's commit where they say something new."""
    known, now = entries(package), commit(ROOT)
    found: dict[str, Entry] = {}
    for function, code in sorted(sources(ROOT)[package].items()):
        found[function] = {"digest": code, "commit": now, "total": 0, "left": 0, "survivors": []}
    for one in mutants(package, lines, tree):
        entry = found[one.function]
        entry["total"] += 1
        entry["left"] += one.killed is None
        if one.killed is False:
            old = known.get(one.function, {}).get("survivors", ())
            same = (each["reason"] for each in old if each["mutation"] == one.mutation)
            row = {"mutant": one.number, "line": one.line, "mutation": one.mutation}
            entry["survivors"].append({**row, "reason": next(same, "")})
    for function, entry in found.items():
        old = known.get(function, entry)
        if old == {**entry, "commit": old["commit"]}:
            entry["commit"] = old["commit"]
    return found


def entries(package: str) -> dict[str, Entry]:
    """The package's part of the ledger; a function that moved within it stands where it is now."""
    before = ledger(ROOT)["packages"].get(package, {})
    moved = {(bare(name), entry["digest"]): entry for name, entry in before.items()}
    now = ((name, moved.get((bare(name), code))) for name, code in sources(ROOT)[package].items())
    return {**before, **{name: entry for name, entry in now if entry is not None}}


def broken(path: Path, tree: Path) -> Lines:
    """Put a module's mutants in its place in the copy; they are kept while it is the same."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    source = (ROOT / path).read_text("utf-8")
    kept = tree / "made" / f"{sha256(source.encode()).hexdigest()[:16]}.json"
    if not kept.is_file():
        file = mutate_file_contents(str(path), undecorated(source))
        kept.parent.mkdir(exist_ok=True)
        lines, spans = file.code.splitlines(), file.line_span_by_function_name
        text = {
            name: [line.replace(name, "f") for line in lines[span.start - 1 : span.end]]
            for name, span in spans.items()
        }
        made: dict[str, list[tuple[str, str]]] = {}
        module = ".".join(path.with_suffix("").parts[1:])
        for name in file.mutant_names:
            mangled = name.rpartition("__mutmut_")[0]
            change = difference(text[f"{mangled}__mutmut_orig"], text[name])
            made.setdefault(f"{module}.{_plain(mangled)}", []).append(change)
        kept.write_text(json.dumps({"made": made, "code": file.code}), "utf-8")
    found = json.loads(kept.read_text("utf-8"))
    (tree / path).write_text(found["code"], "utf-8")
    return {name: [(one[0], one[1]) for one in each] for name, each in found["made"].items()}


def undecorated(source: str) -> str:
    """The same module with `f = decorator(f)` below a function, since mutmut passes over others."""
    lines = source.splitlines(keepends=True)
    for _, node in reversed(list(named(source))):
        names = [ast.unparse(one) for one in node.decorator_list]
        if names and not set(names) <= {"staticmethod", "classmethod"}:
            value = node.name
            for name in reversed(names):
                value = f"({name})({value})"
            lines.insert(node.end_lineno or 0, f"{' ' * node.col_offset}{node.name} = {value}\n")
            del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "".join(lines)


def difference(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """The lines that a mutation took, and those that it put there."""
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    gone, new = (" ".join(line[2:].strip() for line in changed if line[0] == sign) for sign in "-+")
    return gone, new


def _plain(mangled: str) -> str:
    return mangled[2:].replace("ǁ", ".")


def full(package: str, name: str, number: int) -> str:
    """A mutant's name: mutmut's for the function, and the mutant's number."""
    module, _, last = name.rpartition(".")
    outer, _, owner = module.rpartition(".")
    if owner.lstrip("_")[:1].isupper():
        return f"{package}.{outer}.xǁ{owner}ǁ{last}__mutmut_{number}"
    return f"{package}.{module}.x_{last}__mutmut_{number}"


if __name__ == "__main__":
    sys.exit(main())
