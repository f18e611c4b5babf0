"""Run the suite under many seeds: `python -m tests.flaky [--seeds 20] [pytest's arguments]`.

Seed k moves every draw that is not pinned (SUITE_SEED = k, tests/support/chance.py) and gives
hypothesis other examples (--hypothesis-seed = k, the profile `default` but for its database). A
table says for each seed what passed and failed; the exit code is 1 if anything failed, and the
failures are named with their seeds. Nothing is written unless --out names a JSON file. Two runs go
on at a time, one thread each.

Economy: the first two seeds run everything, and the first records which tests can depend on a seed:
those driven by hypothesis, those that drew through tests/support/chance.py, and all tests of a file
in which one did (a cache or a fixture may have drawn for them). The other seeds run these alone,
since the outcome of the rest is no function of a seed. `--all` runs everything under every seed.

The module is also pytest's plugin in those runs (`-p tests.flaky`).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AT_A_TIME = 2
RECORD, ONLY = "--seeds-record", "--seeds-only"


@dataclass(frozen=True)
class Run:
    """One seed's run: how many tests passed and failed, which failed, pytest's own exit code."""

    seed: int
    passed: int
    failed: tuple[str, ...]
    seconds: float
    code: int
    last: str = field(repr=False, default="")

    @property
    def good(self) -> bool:
        """Nothing failed, and pytest did not break off (1 is failures; 5, nothing collected)."""
        return self.code == 0 and not self.failed


def main(arguments: Sequence[str]) -> int:
    """Run all seeds and print the table; 1 if a test failed under any of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.flaky", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="seeds 1, ..., SEEDS")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--all", action="store_true", help="run every test under every seed")
    parser.add_argument("--out", type=Path, help="write the table there, as JSON")
    options, rest = parser.parse_known_args(arguments)
    if options.seeds < 1 or options.first < 0:
        parser.error(f"--seeds, --first: wanted >= 1, >= 0, got {options.seeds}, {options.first}")
    seeds = list(range(options.first, options.first + options.seeds))
    from experiments.common.sweep import processes, swept  # a plugin of pytest imports this too

    say(f"{'seed':>5} {'passed':>7} {'failed':>7} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as folder, processes(AT_A_TIME) as pool:
        record = Path(folder) / "record.json"
        pairs = [(seeds[0], [*rest, f"{RECORD}={record}"]), *((k, rest) for k in seeds[1:2])]
        runs = swept(reported, pairs, pool)
        if seeds[2:]:
            only = [] if options.all else economy(record)
            runs += swept(reported, [(seed, [*rest, *only]) for seed in seeds[2:]], pool)
    bad = [run for run in runs if not run.good]
    seconds = sum(run.seconds for run in runs)
    say(f"{len(runs)} seeds, {len(bad)} with failures, {seconds:.0f} s of test runs")
    if options.out:
        table = [{**asdict(run), "last": None} for run in runs]
        options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return int(bool(bad))


def economy(record: Path) -> list[str]:
    """The argument that leaves out what no seed can change, after it has been said aloud."""
    if not record.is_file():
        return []
    seen = json.loads(record.read_text(encoding="utf-8"))
    kept = len(seen["dependent"])
    say(f"      of {seen['tests']} tests {kept} can depend on a seed: the others ran under two")
    return [f"{ONLY}={record}"]


def reported(given: tuple[int, Sequence[str]]) -> Run:
    """Run one seed, with pytest's arguments, and print its line."""
    run = one(*given)
    say(f"{run.seed:>5} {run.passed:>7} {len(run.failed):>7} {run.seconds:>8.0f}")
    if not run.good:
        for test in run.failed or (f"pytest ended with code {run.code}: {run.last}",):
            say(f"      {test}")
    return run


def one(seed: int, arguments: Sequence[str]) -> Run:
    """Pytest in a process of its own, under one seed."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "CI"},
        "SUITE_SEED": str(seed),
        "HYPOTHESIS_PROFILE": "flaky",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=line", "-rfE"]
    command += ["-p", "no:cacheprovider", "-p", "tests.flaky", f"--hypothesis-seed={seed}"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    lines = done.stdout.strip().splitlines() + done.stderr.strip().splitlines()
    failed = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    passed = re.search(r"(\d+) passed", done.stdout)
    count = int(passed[1]) if passed else 0
    return Run(seed, count, tuple(failed), seconds, done.returncode, lines[-1] if lines else "")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two files by which the runs speak to each other."""
    parser.addoption(RECORD, help="write there which tests can depend on a seed")
    parser.addoption(ONLY, help="run those alone which this file says can depend on a seed")


def pytest_configure(config: pytest.Config) -> None:
    """Make the record of this run."""
    config.stash[_DREW] = set()


_DREW = pytest.StashKey[set[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Note that a test, or a fixture made for it, drew through tests/support/chance.py."""
    from tests.support.chance import LEDGER

    before = LEDGER.seeds
    done = yield
    if LEDGER.seeds != before:
        item.config.stash[_DREW].add(item.nodeid)
    return done


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another run found independent of the seed."""
    if path := config.getoption(ONLY):
        kept = set(json.loads(Path(path).read_text(encoding="utf-8"))["dependent"])
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
        items[:] = [item for item in items if item.nodeid in kept]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the record: what hypothesis drives, and the files in which a test drew."""
    path = session.config.getoption(RECORD)
    if not path:
        return
    from hypothesis import is_hypothesis_test

    drew = session.config.stash[_DREW]
    files = {name.partition("::")[0] for name in drew}
    dependent = [
        item.nodeid
        for item in session.items
        if item.nodeid.partition("::")[0] in files or is_hypothesis_test(getattr(item, "obj", None))
    ]
    record = {"tests": len(session.items), "dependent": dependent}
    Path(path).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
