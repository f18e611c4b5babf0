"""Processes that share the weights of a U-Net train it as one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from sd.train.trainer import fit
from tests.support import tiny_training
from tests.support.linear_training import SETTINGS, batch, loss, module

ROOT = Path(__file__).resolve().parents[3]

ROUNDING = 1e-3
"""The largest relative difference: AdamW divides small gradients, and so their rounding, by their
size."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_processes_that_share_the_weights_train_as_one(tmp_path: Path) -> None:
    """By gloo: losses, mean gradients and the movement of averaged weights in four steps.

    Each named mistake makes a difference a hundred times as large. A training by two processes that
    share the weights, then one process, then two again ends as one process does; by two throughout,
    with the bits of one run. Of Stable Diffusion v1.5 each of two processes holds half of the
    weights of every block.
    """
    command = [sys.executable, "-m", "tests.sd.train.sharded", str(tmp_path)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["right"] < ROUNDING and found["alike"], found
    assert len(found["wrong"]) == 3 and min(found["wrong"].values()) > 100 * ROUNDING, found
    assert found["212"] < ROUNDING and found["exact"], found
    for one in found["v1.5"]:
        assert one["sharded"] == one["blocks"] == 44 and len(one["kinds"]) == 4, one
        assert one["total"] == 859_520_964 and abs(one["own"] / one["total"] - 0.5) < 1e-3, one
        assert one["largest"] < 0.06 * one["total"], one


def test_a_flag_without_effect_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights can't be shared by one process; nor does a configuration of Accelerate do it."""
    flags = tiny_training.flags(tmp_path)
    assert tiny_training.run(monkeypatch, *flags, "--unet.fsdp") == 2
    assert "--unet.fsdp: wanted several processes, got 1" in capsys.readouterr().err
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert tiny_training.run(monkeypatch, *flags) == 2
    assert "accelerate asks for FSDP: give --unet.fsdp too" in capsys.readouterr().err
    assert not (tmp_path / "clip" / "log.jsonl").exists()


def test_what_needs_all_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluate: wanted none with blocks"):
        fit(module(), batch, loss, SETTINGS, lambda net: {}, blocks=(nn.Linear,))
