"""A training's folder: whole checkpoints only, one training at a time, nothing left behind."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sd.files.output_folder import locked, write_file
from sd.train.trainer import fit
from tests.support.linear_training import SETTINGS, batch, loss, module

FOREIGN: dict[str, Any] = {
    "a list": [1],
    "a state dict": {"weight": torch.zeros(2)},
    "of an earlier program": {"module": {}, "optimizer": {}, "average": {}, "step": 3},
    "of other keys": {"module": {}, "optimizer": {}, "step": 3, "settings": {}},
}
DAMAGE = {
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "text": lambda raw: b"no checkpoint\n" * 99,
    "flipped": lambda raw: bytes(one ^ 255 if 900 < i < 990 else one for i, one in enumerate(raw)),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with a training of 10 of 40 steps."""

    def stop(step: int) -> Any:
        if step == 15:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        fit(module(), stop, loss, replace(SETTINGS, out=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.jsonl"]
    return tmp_path


def refused(out: Path, words: str) -> None:
    raw = (out / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=words) as caught:
        fit(module(), batch, loss, replace(SETTINGS, out=out))
    message = str(caught.value)
    assert "checkpoint.pt" in message and "delete" in message and "\n" not in message
    assert (out / "checkpoint.pt").read_bytes() == raw


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(kind: str, out: Path) -> None:
    path = out / "checkpoint.pt"
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    refused(out, "not a readable checkpoint|is damaged|was made with|does not say")


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_checkpoint_is_one_line(kind: str, out: Path) -> None:
    torch.save(FOREIGN[kind], out / "checkpoint.pt")
    refused(out, "not a checkpoint of a training|does not say how|was made with other settings")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "3"),
        ("step", -1),
        ("step", 41),
        ("log", {}),
        ("module", {"weight": torch.zeros(7)}),
        ("average", {"weight": torch.zeros(7)}),
        ("average", {}),
        ("optimizer", {}),
    ],
)
def test_a_checkpoint_of_wrong_parts_is_one_line(name: str, value: Any, out: Path) -> None:
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**state, name: value}, out / "checkpoint.pt")
    refused(out, "is damaged")


def test_another_network_is_another_setting(out: Path) -> None:
    wide = torch.nn.Linear(4, 1)
    with pytest.raises(ValueError, match=r'settings: network "[0-9a-f]+" there, "[0-9a-f]+" now'):
        fit(wide, batch, loss, replace(SETTINGS, out=out))


def test_a_resumed_run_on_another_machine_says_so(out: Path) -> None:
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**state, "machine": {**state["machine"], "torch": "0.0"}}, out / "checkpoint.pt")
    with pytest.warns(
        UserWarning, match=r"started on .*'0\.0'.* the bits of the result may differ"
    ):
        fit(module(), batch, loss, replace(SETTINGS, out=out))


def test_the_log_of_an_interrupted_run_is_that_of_a_whole_one(out: Path, tmp_path: Path) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 12, "loss"')  # half a line, past the checkpoint
    fit(module(), batch, loss, replace(SETTINGS, out=out))
    fit(module(), batch, loss, replace(SETTINGS, out=tmp_path / "whole"))
    found, whole = ((one / "log.jsonl").read_text() for one in (out, tmp_path / "whole"))
    assert found == whole
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [10, 20, 30, 40]


def test_a_log_without_a_checkpoint_is_put_aside(out: Path) -> None:
    (out / "checkpoint.pt").unlink()
    old = (out / "log.jsonl").read_text()
    fit(module(), batch, loss, replace(SETTINGS, out=out))
    assert (out / "log.jsonl.old").read_text() == old
    assert len((out / "log.jsonl").read_text().splitlines()) == 4


def test_temporary_files_of_killed_runs_are_removed_and_no_others(out: Path) -> None:
    kept = ("checkpoint.pt.tmp", "notes.tmp", "checkpoint.pt.old")
    for name in ("checkpoint.pt.123.tmp", "log.jsonl.4567.tmp", *kept):
        (out / name).write_text("x")
    fit(module(), batch, loss, replace(SETTINGS, out=out))
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["checkpoint.pt", "log.jsonl", *kept]
    )


HOLD = """
import sys
from pathlib import Path
from sd.files.output_folder import locked
with locked(Path(sys.argv[1]), "--out"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_in_one_folder_is_refused(out: Path) -> None:
    """The lock is gone with the process that held it, killed or not."""
    command = [sys.executable, "-c", HOLD, str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="--out: another process uses"):
            fit(module(), batch, loss, replace(SETTINGS, out=out))
        other.kill()
    fit(module(), batch, loss, replace(SETTINGS, out=out))
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "log.jsonl"]


def test_a_lock_that_was_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    for _ in range(2):
        with locked(tmp_path, "--out"):
            assert (tmp_path / ".lock").exists()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_and_names_the_file(
    step: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.load(out / "checkpoint.pt", weights_only=True)["step"]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    settings = replace(SETTINGS, out=out)
    with monkeypatch.context() as patch:
        names = {
            "write": (Path, "write_bytes"),
            "fsync": (os, "fsync"),
            "replace": (Path, "replace"),
        }
        patch.setattr(*names[step], full)
        with pytest.raises(OSError, match="No space left") as caught:
            fit(module(), batch, loss, settings)
        assert caught.value.filename is not None and str(out) in caught.value.filename
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == before == 10
    assert not list(out.glob("*.tmp"))
    fit(module(), batch, loss, settings)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"1")
    write_file(tmp_path / "a", b"22")
    assert (tmp_path / "a").read_bytes() == b"22"
    with pytest.raises(OSError, match=r"Is a directory|denied") as caught:
        write_file(tmp_path, b"3")
    assert caught.value.filename is not None
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
