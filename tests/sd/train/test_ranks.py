"""Several processes train as one does, up to rounding, and resume each other's trainings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

ROUNDING = 1e-4
"""The largest relative difference; sums in another order give 1e-6 a step; AdamW amplifies it."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """By gloo, for text encoder, VAE and U-Net: mean gradients and losses of four steps.

    Each named mistake makes a difference a thousand times as large. A training by two processes,
    then one, then two, ends as one process does; by two throughout, with the bits of one run.
    """
    command = [sys.executable, "-m", "tests.sd.train.ranks", str(tmp_path)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["right"].keys() == {"clip", "vae", "unet"} and len(found["wrong"]) == 5
    assert all(found["alike"].values()), found
    assert max(found["right"].values()) < ROUNDING, found
    assert min(found["wrong"].values()) > 1000 * ROUNDING, found
    assert found["212"] < ROUNDING and found["exact"], found
