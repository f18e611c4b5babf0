"""Several processes share the images of a file of prompts: each image once, whoever is killed."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.generate import shared_work
from experiments.generate.shared_work import claimed, finishing

PROMPTS = "".join(f"a {color} ring\n" for color in ("red", "blue", "green", "white", "black"))
NAMES = [f"0000{n}.png" for n in range(1, 6)]


def environment(rank: int, count: int) -> dict[str, str]:
    """The variables that a launcher sets."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    return {**os.environ, "OMP_NUM_THREADS": "1", **own}


@pytest.fixture
def flags(tiny: Path, tmp_path: Path) -> list[str]:
    """`generate` of five images, one at a time."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPTS, encoding="utf-8")
    named = ["--prompts", str(prompts), "--weights", str(tiny)]
    return ["-m", "experiments", "generate", *named, "--batch", "1", "--steps", "20"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def started(flags: list[str], out: Path, rank: int, count: int = 2) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *flags, "--out", str(out)], env=environment(rank, count),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def whole(flags: list[str], out: Path) -> dict[str, bytes]:
    """The files that one process writes."""
    process = started(flags, out, 0, 1)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return files(out)


@pytest.mark.slow
def test_two_processes_write_the_files_of_one_each_once(flags: list[str], tmp_path: Path) -> None:
    """By torchrun: the same bytes, each file named by one process; again, nothing is sampled."""
    wanted = whole(flags, tmp_path / "one")
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    for again in (False, True):
        done = subprocess.run(
            [*command, *flags, "--out", str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = ["generate.json", "generate.md"] if again else [*NAMES, "generate.json"]
        assert all(done.stdout.count(name) == 1 for name in written), done.stdout
        assert done.stdout.count(".png") == (0 if again else 5)
        assert files(out) == wanted


@pytest.mark.slow
def test_a_killed_process_loses_its_current_image_alone(flags: list[str], tmp_path: Path) -> None:
    """The other process goes on, and samples that image too."""
    wanted = whole(flags, tmp_path / "one")
    out = tmp_path / "two"
    killed, other = (started(flags, out, rank) for rank in (1, 0))
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.kill()
    killed.communicate()
    _, error = other.communicate()
    assert other.returncode == 0, error
    found = files(out)
    assert {name: found[name] for name in wanted} == wanted
    assert all(name.endswith(".tmp") for name in found.keys() - wanted.keys())


@pytest.mark.slow
def test_a_process_told_to_stop_finishes_its_image(flags: list[str], tmp_path: Path) -> None:
    """SIGTERM, as a launcher sends it when another process fails; the same command resumes."""
    wanted = whole(flags, tmp_path / "one")
    out = tmp_path / "two"
    process = started(flags, out, 0)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130 and "of 5 images are in" in said
    assert not list(out.glob(".*.tmp"))
    other, first = (started(flags, out, rank) for rank in (1, 0))
    for one in (other, first):
        one.communicate()
        assert one.returncode == 0
    assert files(out) == wanted


def test_a_held_unit_is_no_other_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, here two loops: each unit goes to one; one that is let go, to the other."""
    done: list[str] = []
    monkeypatch.setattr(shared_work, "PAUSE", 0.0)
    units = ("a", "b", "c")
    one, two = (claimed(tmp_path, units, done.__contains__) for _ in range(2))
    assert (next(one), next(two)) == ("a", "b")
    done.append("b")
    assert next(two) == "c"
    one.close()  # as a killed process, which has not done it
    done.append("c")
    assert next(two) == "a"
    done.append("a")
    assert list(two) == [] and list(tmp_path.iterdir()) == []


def test_without_locks_a_unit_would_be_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "FileLock", lambda *_, **__: nullcontext())
    one, two = (claimed(tmp_path, ("a",), lambda unit: False) for _ in range(2))
    assert next(one) == next(two) == "a"


def test_a_signal_waits_for_the_check() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with finishing() as check:
        check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["generate", "--prompt", "a red ring"], "--prompts: wanted a file with 2 processes"),
        (["forward"], "forward runs in one process, not 2"),
    ],
)
def test_what_several_processes_can_not_share_is_refused(
    command: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
