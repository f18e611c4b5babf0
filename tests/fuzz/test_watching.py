"""The watch itself: what no case may do is noted, and does not happen."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import Outcome, fuzzed
from tests.fuzz.watching import watched


def linked(inside: Path, outside: Path) -> None:
    """Write to a file outside through a link inside."""
    (inside / "link").symlink_to(outside / "kept")
    (inside / "link").write_text("gone")


FORBIDDEN: dict[str, Callable[[Path, Path], object]] = {
    "subprocess.Popen": lambda inside, outside: subprocess.run([sys.executable, "-V"]),
    "os.system": lambda inside, outside: os.system("true"),
    "open": lambda inside, outside: (outside / "new").write_text("a"),
    "open (a link)": linked,
    "os.remove": lambda inside, outside: (outside / "kept").unlink(),
    "os.rename": lambda inside, outside: (outside / "kept").rename(inside / "b"),
    "os.mkdir": lambda inside, outside: (outside / "folder").mkdir(),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_no_case_may_do_is_noted_and_prevented(name: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    with watched(inside) as seen, pytest.raises(PermissionError, match="no case may"):
        FORBIDDEN[name](inside, outside)
    assert len(seen) == 1 and seen[0].startswith(name.split()[0])
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    FORBIDDEN["open"](inside, outside)  # afterwards it is nobody's affair


def test_what_a_case_may_do_is_not_noted(tmp_path: Path) -> None:
    with watched(tmp_path) as seen:
        (tmp_path / "a").write_text("a")
        (tmp_path / "a").rename(tmp_path / "b")
        Path(__file__).read_text(encoding="utf-8")
    assert seen == []


def refusing_half(rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.5:
        raise ValueError("no")


def hidden(rng: random.Random, folder: Path) -> None:
    """A program is started, and the refusal hides it."""
    try:
        os.system("true")
    except PermissionError as error:
        raise ValueError("no") from error


def slow(rng: random.Random, folder: Path) -> None:
    refusing_half(rng, folder)
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


def test_the_harness_counts_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback, a hidden program and a slow case fail; so does a target that is never valid."""
    monkeypatch.setattr(harness, "CASES", 40)
    monkeypatch.delenv("FUZZ_SEED", raising=False)
    found: Outcome = fuzzed("right", refusing_half, tmp_path, monkeypatch)
    assert found.accepted + found.refused == 40 and min(found.accepted, found.refused) > 5

    def broken(rng: random.Random, folder: Path) -> None:
        refusing_half(rng, folder)
        raise KeyError("a")

    def never(rng: random.Random, folder: Path) -> None:
        raise ValueError("no")

    for case, said in ((broken, "KeyError"), (hidden, "os.system"), (never, "0 accepted")):
        with pytest.raises(AssertionError, match=said):
            fuzzed("wrong", case, tmp_path, monkeypatch)
    monkeypatch.setattr(harness, "SECONDS", 0.01)
    with pytest.raises(AssertionError, match="took"):
        fuzzed("slow", slow, tmp_path, monkeypatch)
