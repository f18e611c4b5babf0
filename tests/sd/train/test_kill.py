"""A training that is killed at any moment ends as if it had not been: weights, log, folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_training_killed_at_any_file_operation_or_moment_ends_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    """SIGKILL at each opening, renaming and removing of a file, and at 12 random moments."""
    command = [sys.executable, "-m", "tests.sd.train.killed", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["events"] > 20 and found["moments"] == 12
