"""A training on one's own images that is killed (SIGKILL) and resumed, again and again.

`python -m tests.sd.train.killed_own FOLDER` prints, as its last line, the number of kills and the
files in which the run differs from one that was never killed.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.sd.train.killed import at_event, ended
from tests.support import own_run

STEP = 9
"""Events of files between one kill and the next, counted from the start of each run."""


def attempt(folder: Path, prepare: Callable[[], object] = int) -> int:
    """A run in a fork of this process, in a folder of its own; returns the child's id."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        os.chdir(folder)  # so that all runs have the same command line
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        prepare()
        os._exit(own_run.run(own_run.flags("../data", "out")))
    return child


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run, by its name; but for checkpoints, whose zip files differ."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pt"
    }


def main(root: Path) -> dict[str, object]:
    own_run.data(root / "data")
    assert ended(attempt(root / "whole"))
    kills, moment = 0, 1
    while not ended(attempt(root / "killed", at_event(Path("out"), moment))):
        kills, moment = kills + 1, moment + STEP
    wanted, found = files(root / "whole"), files(root / "killed")
    different = sorted(name for name in wanted.keys() | found.keys()
                       if wanted.get(name) != found.get(name))  # fmt: skip
    return {"kills": kills, "different": different}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
