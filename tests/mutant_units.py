"""Units of mutation testing: mutants that one run of pytest tries, here or on a cluster's worker.

A unit has a folder of its own in `units` of the tree that holds the broken copy. Its mutants are in
`due.jsonl`, and tests/mutating.py appends their verdicts to `verdicts.jsonl` there. What tests
reach is in `reached.jsonl` of the tree.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from filelock import FileLock, Timeout

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "ci"}
"""A forked process must not wait for threads of its parent; examples are the same each time."""

SIZE = 500
"""Mutants of a worker's unit.

To collect the 57,663 tests of `diffusion_math` takes 26 seconds of CPU, and a mutant of gaussian.py
that meets that module's tests alone takes 0.04: with 500, even the cheapest mutants take about as
long as the tests' collection. The package's 30,000 mutants are then some 60 units.
"""


Due = dict[str, str | bool]
"""A mutant to try: its name (`mutant`), its function's `digest`, whether it is to meet only a part
of the tests (`partial`)."""


@dataclass(frozen=True)
class Unit:
    """Mutants of whole functions; its text names the first and the last of them."""

    due: Sequence[Due]

    def __str__(self) -> str:
        first, last = (function(self.due[k]) for k in (0, -1))
        return f"{first} to {last}, {len(self.due)} mutants"


def function(mutant: Due) -> str:
    """The name of a mutant's function, as mutmut writes it."""
    return str(mutant["mutant"]).rpartition("__mutmut_")[0]


def divided(due: Sequence[Due], size: int) -> Iterator[Unit]:
    """Units of at most `size` mutants each, but for a function that has more."""
    held: list[Due] = []
    for _, them in groupby(due, function):
        new = list(them)
        if held and len(held) + len(new) > size:
            yield Unit(held)
            held = []
        held = held + new
    if held:
        yield Unit(held)


def attempt(
    unit: Unit,
    tree: Path,
    tests: Sequence[str],
    jobs: int = 1,
    trace: bool = False,
    tries: bool = True,
) -> None:
    """Run a unit's mutants, `jobs` at a time; RuntimeError with pytest's last words if it fails.

    Args:
        unit: the mutants.
        tree: the broken copy, the same folder on every machine.
        tests: arguments of pytest.
        jobs: how many processes are forked at a time.
        trace: whether to note what tests reach where that is not known, which is otherwise an
            error: two units at a time must not write the same file.
        tries: whether to try the mutants.
    """
    (tree / "units").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=tree / "units"))
    rows = (json.dumps(one, ensure_ascii=False) + "\n" for one in unit.due)
    (folder / "due.jsonl").write_text("".join(rows), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--rootdir=."]
    command += ["-p", "tests.mutating", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += [f"--mutants={folder / 'due.jsonl'}", f"--reached={tree / 'reached.jsonl'}"]
    command += [f"--jobs={jobs}", *["--trace-tests"] * trace]
    command += [f"--verdicts={folder / 'verdicts.jsonl'}"] * tries
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(tree)}
    words: deque[str] = deque(maxlen=3)
    with subprocess.Popen(
        [*command, *tests],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pytest:
        for line in pytest.stdout or ():
            sys.stdout.write(line)
            words.append(line.strip())
    if pytest.returncode:
        raise RuntimeError(f"pytest ended with code {pytest.returncode}: {' '.join(words)}")


def refuse_running(tree: Path) -> None:
    """RuntimeError if a unit of an earlier run is at work, whose copy must not change."""
    for path in tree.glob("units/*/lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout as error:
            said = f"--folder: a unit of an earlier run is at work in {path.parent}; wait for it"
            raise RuntimeError(said) from error


def verdicts(tree: Path) -> dict[tuple[str, str], bool]:
    """Whether a mutant was killed, by its name and its function's digest, by any tests it met.

    What a part of the tests has not killed is as if it had not been run.
    """
    found: dict[tuple[str, str], bool] = {}
    for path in tree.glob("units/*/verdicts.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            key = row["mutant"], row["digest"]
            if row["killed"] or not row.get("partial"):
                found[key] = row["killed"] or found.get(key, False)
    return found
