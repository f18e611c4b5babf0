"""A pytest plugin that runs mutants: `pytest -p tests.mutating --mutants NAMES --verdicts FILE`.

Tests are collected once. A first process runs each of them without a mutation and notes how long
it takes and which functions it reaches. Then each mutant has a process of its own, forked before
any test ran, that runs the tests which reach the mutant's function, the fastest first, until one
fails. Verdicts and what tests reach are appended to files, so that an interrupted run goes on.

With --trace-tests it is noted what tests reach where that is not known, which is else an error.
Without --verdicts no mutant is tried. A file `lock` beside NAMES is locked until the process ends.
"""

import gc
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from filelock import BaseFileLock, FileLock

SLACK = 10
"""Seconds of CPU that a mutant has beside ten times what its tests take without it."""

MEMORY = 8 * 2**30
"""Bytes of addresses that a mutant may ask for: some ask for more than there is."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutants", type=Path, help="names of mutants, one a line")
    parser.addoption("--verdicts", type=Path, help="where verdicts are appended")
    parser.addoption("--reached", type=Path, help="where it is noted what tests reach")
    parser.addoption(
        "--trace-tests", action="store_true", help="note what tests reach, if not known"
    )
    parser.addoption("--longest", type=float, default=math.inf, help="most seconds of a test")
    parser.addoption("--jobs", type=int, default=1)


def pytest_configure(config: pytest.Config) -> None:
    """Hold the lock until this process ends: the sources must not change while it works."""
    config.stash[_LOCK] = FileLock(config.option.mutants.with_name("lock"), timeout=0)
    config.stash[_LOCK].acquire()


_LOCK = pytest.StashKey[BaseFileLock]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Note what tests reach, then try the mutants."""
    option = session.config.option
    # Mutants stand beside their function, each with its docstring: one example is enough.
    session.items = [item for item in session.items if "__mutmut_" not in item.nodeid]
    if session.testsfailed:
        raise session.Interrupted("tests that cannot be collected")
    due = [json.loads(line) for line in option.mutants.read_text("utf-8").splitlines()]
    known = _reached(session, {_function(one["mutant"]) for one in due}, option.reached)
    bad = {item.nodeid for item in session.items if not known.get(item.nodeid, {}).get("passed")}
    sys.stdout.write(f"left out, since they fail in the copy: {sorted(bad)}\n")
    if len(bad) == len(session.items):
        raise session.Interrupted("no test passes without a mutation")
    if option.verdicts is None:
        return True
    cost = {name: note["seconds"] for name, note in known.items() if name not in bad}
    cost = {name: seconds for name, seconds in cost.items() if seconds <= option.longest}
    items = [item for item in session.items if item.nodeid in cost]
    items.sort(key=lambda item: cost[item.nodeid])
    reach = {_function(one["mutant"]): list[pytest.Item]() for one in due}
    for item in items:
        for name in reach.keys() & set(known[item.nodeid]["functions"]):
            reach[name].append(item)
    takes = {name: sum(cost[item.nodeid] for item in mine) for name, mine in reach.items()}
    running: dict[int, dict[str, Any]] = {}
    gc.freeze()  # what a child's collector does not touch need not be copied
    for one in sorted(due, key=lambda one: takes[_function(one["mutant"])]):
        name = one["mutant"]
        mine, limit = reach[_function(name)], int(SLACK + 10 * takes[_function(name)])
        if len(running) >= option.jobs:
            _finish(running, option.verdicts)
        child = _forked(lambda n=name, m=mine, s=limit: _try(session, m, n, s))  # type: ignore[misc]
        running[child] = {**one, "tests": len(mine)}
    while running:
        _finish(running, option.verdicts)
    return True


def _function(mutant: str) -> str:
    return mutant.rpartition("__mutmut_")[0]


def _reached(session: pytest.Session, functions: set[str], path: Path) -> dict[str, dict[str, Any]]:
    """What each test reaches; all are run again if none reaches one of the functions.

    They are run in their files' order and then in that of the mutants' runs, the fastest first: a
    test that fails in one of them would kill mutants for nothing.
    """
    notes = _notes(path)
    code = {item.path: sha256(item.path.read_bytes()).hexdigest()[:12] for item in session.items}
    fresh = {name: row for name, row in notes.items() if not name or row["code"] in code.values()}
    if functions - {name for row in fresh.values() for name in row["functions"]}:
        fresh = {}
    new = [item for item in session.items if item.nodeid not in fresh]
    if new and not session.config.option.trace_tests:
        raise session.Interrupted(f"{len(new)} tests not traced, such as {new[0].nodeid}")
    if new:
        files = sorted({item.path for item in new})
        jobs = session.config.option.jobs
        parts = [[item for item in new if files.index(item.path) % jobs == k] for k in range(jobs)]
        children = [
            _forked(lambda p=part: _trace(session, p, path, code)) for part in parts if part
        ]  # type: ignore[misc]
        for child in children:
            os.waitpid(child, 0)
        notes = _notes(path)
        new.sort(key=lambda item: notes[item.nodeid]["seconds"])
        os.waitpid(_forked(lambda: _trace(session, new, path, code)), 0)
        notes = _notes(path)
        found = {name for row in notes.values() for name in row["functions"]}
        _append(path, {"test": "", "functions": sorted(functions - found)})
    return {item.nodeid: notes[item.nodeid] for item in session.items if item.nodeid in notes}


def _notes(path: Path) -> dict[str, dict[str, Any]]:
    """The last note of each test, which has passed if it did on every run of the same code."""
    notes: dict[str, dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        row = json.loads(line)
        before = notes.get(row["test"], row)
        if row["test"] and before["code"] == row["code"]:
            row["passed"] = row["passed"] and before["passed"]
        notes[row["test"]] = row
    return notes


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _forked(work: Any) -> int:
    """The id of a child that does the work; what fails in it ends it with code 1."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return child


def _finish(running: dict[int, dict[str, Any]], verdicts: Path) -> None:
    child, status, used = os.wait3(0)
    alive = os.waitstatus_to_exitcode(status) == 0
    seconds = round(used.ru_utime + used.ru_stime, 2)
    _append(verdicts, {**running.pop(child), "killed": not alive, "seconds": seconds})


def _run(session: pytest.Session, items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
    """Run tests without a word; each is yielded once it is over."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    for item, after in zip(items, [*items[1:], None], strict=False):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        yield item


def _trace(
    session: pytest.Session, items: Sequence[pytest.Item], path: Path, code: dict[Path, str]
) -> int:
    from mutmut.state import state

    os.environ["MUTANT_UNDER_TEST"] = "stats"
    failed, began = 0, time.process_time()
    for item in _run(session, items):
        now = time.process_time()
        row = {"test": item.nodeid, "code": code[item.path], "seconds": round(now - began, 3)}
        reached = sorted(state()._stats)
        _append(path, {**row, "passed": session.testsfailed == failed, "functions": reached})
        state()._stats.clear()
        failed, began = session.testsfailed, now
    return 0


def _try(session: pytest.Session, items: Sequence[pytest.Item], name: str, limit: int) -> int:
    os.environ["MUTANT_UNDER_TEST"] = name
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60 * limit)
    return int(any(session.testsfailed for _ in _run(session, items)))
