"""Seeded cases of a fuzz target, and what each must keep to.

A case is refused with an error of the project's (`ValueError`, a missing file) or accepted. It
starts no program, opens no connection, changes no file outside of its folder, takes no longer than
5 s of this process's time and no more than 1 GiB of memory. `FUZZ_CASES` sets how many are run,
`FUZZ_SEED=k` runs case k alone.
"""

import faulthandler
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import pytest

from tests.fuzz.watching import watched

CASES = int(os.environ.get("FUZZ_CASES", "2000"))
SECONDS, MEMORY = 5.0, 2**30
REFUSED = (ValueError, FileNotFoundError)
HANGS = 300
"""Seconds after which a case that does not return ends the run, with its traceback."""


@dataclass
class Outcome:
    """Of a target's cases: how many were accepted and refused, the slowest, and the faults."""

    name: str
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        tried = self.accepted + self.refused + len(self.faults)
        return (
            f"{self.name}: {tried} cases, {self.accepted} accepted, {self.refused} refused,"
            f" {len(self.faults)} failed, slowest {self.slowest:.2f} s"
        )


Case = Callable[[random.Random, Path], object]
"""(random numbers, an empty folder) -> anything; raises one of `REFUSED` where it refuses."""


def fuzzed(
    name: str, case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, read: bool = True
) -> Outcome:
    """Run a target's cases, each in an empty folder; asserts that not one of them failed.

    Temporary files go to the folder too. At least one case in a hundred must be accepted and one
    refused: a target whose input is always or never valid looks at little of the code. Where
    `read` is False the kind of input is not read at all, and no case may be accepted.
    """
    outcome = Outcome(name)
    chosen = os.environ.get("FUZZ_SEED")
    for seed in [int(chosen)] if chosen else range(CASES):
        where = folder / "case"
        where.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(where))
        fault = _run(outcome, case, seed, where)
        if fault is not None:
            outcome.faults.append(f"FUZZ_SEED={seed}: {fault}")
        shutil.rmtree(where, ignore_errors=True)
    sys.stdout.write(f"{outcome}\n")
    assert not outcome.faults, "\n".join([str(outcome), *outcome.faults[:20]])
    if not read:
        assert outcome.accepted == 0, str(outcome)
    elif chosen is None:
        assert min(outcome.accepted, outcome.refused) >= CASES / 100, str(outcome)
    return outcome


def _run(outcome: Outcome, case: Case, seed: int, where: Path) -> str | None:
    """One case; what it did that it may not, or None."""
    rng, fault = random.Random(f"{outcome.name} {seed}"), None
    faulthandler.dump_traceback_later(HANGS, exit=True)
    peak, start = _peak(), process_time()
    with watched(where) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case(rng, where)
            outcome.accepted += 1
        except REFUSED as refusal:
            outcome.refused += 1
            if "\n" in str(refusal).strip() and len(str(refusal).splitlines()) > 200:
                fault = f"a message of {len(str(refusal).splitlines())} lines"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a Rust panic is no Exception
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())[:200]
            fault = f"{type(error).__name__}: {text} ({last.filename}:{last.lineno})"
    took = process_time() - start
    faulthandler.cancel_dump_traceback_later()
    outcome.slowest = max(outcome.slowest, took)
    if fault is None and seen:
        fault = "; ".join(seen[:3])
    if fault is None and took > SECONDS:
        fault = f"took {took:.1f} s"
    if fault is None and _peak() - peak > MEMORY:
        fault = f"took {(_peak() - peak) >> 20} MiB"
    return fault


def _peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
