"""Odd names and closed streams: what is drawn is on the disk, whatever becomes of what is said."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from experiments.__main__ import main
from experiments.generate.png_metadata import KEY, png

PROMPTS = ("--prompt", "a red ring", "a blue star", "a green cross", "--batch", "1", "--steps", "1")


def generate(
    tiny: Path, out: Path, *, stdout: int | None = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "experiments", "generate", *PROMPTS, "--device", "cpu"]
    command += ["--model", str(tiny), "--out", str(out)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, check=False, env={**os.environ, **env}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "encoding"),
    [("o\udce9", "utf-8:strict"), ("\u753b\u50cf", "cp1252:strict"), ("\u753b", "ascii:strict")],
)
def test_a_name_that_stdout_cannot_hold_loses_nothing(
    name: str, encoding: str, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    done = generate(tiny, out, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*.png"))) == 3
    assert len(done.stdout.splitlines()) == 5  # three images, .json and .md
    assert (out / "generate.json").read_bytes().decode("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_or_closed_stdout_stops_no_image(tiny: Path, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    reading, closed = os.pipe()
    os.close(reading)
    for n, (stream, why) in enumerate({full: "No space left", closed: "Broken pipe"}.items()):
        out = tmp_path / str(n)
        done = generate(tiny, out, stdout=stream)
        os.close(stream)
        assert done.returncode == 0
        assert len(list(out.glob("*.png"))) == 3
        [line] = done.stderr.decode().splitlines()
        why += " on device" * (stream == full)
        assert line == f"warning: stdout can't be written to: {why}"


def test_a_full_disk_is_one_line_and_keeps_what_is_done(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, names = Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        names.append(path)
        if len(names) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    assert main(["generate", *PROMPTS, "--model", str(tiny), "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and "No space left" in line
    assert [path.suffix for path in out.iterdir()] == [".png"]


def test_a_name_of_255_bytes_is_written(tiny: Path, tmp_path: Path) -> None:
    """The longest that there is, of an image that is repeated."""
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["generate", "--steps", "1", "--model", str(tiny), "--out", str(first)]) == 0
    [path] = first.glob("*.png")
    long = path.rename(first / f"{'x' * 251}.png")
    like = ["generate", "--like", str(long), "--like-files", "--out", str(again)]
    assert main(like) == 0
    assert (again / long.name).read_bytes() == long.read_bytes()


def test_a_name_that_is_not_utf_8_is_kept_in_the_image(tmp_path: Path) -> None:
    model = {"lora": ["caf\udce9.safetensors", "\u753b"]}
    kept = {"batch": [["a", 0]], "index": 0, "call": {}, "model": model}
    path = tmp_path / "a.png"
    path.write_bytes(png(Image.new("RGB", (8, 8)), "a", kept))
    with Image.open(path) as opened:
        assert json.loads(opened.text[KEY])["model"] == model


def test_a_folder_that_cannot_be_entered_is_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the system refuses; root may enter any."""
    stat = Path.stat

    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if "locked" in path.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refused)
    for flag in ("--image", "--like", "--prompts", "--lora", "--embedding"):
        given = [flag, str(tmp_path / "locked" / "x")]
        assert main(["generate", *given, "--out", str(tmp_path / "out")]) == 2
        assert (
            capsys.readouterr().err == f"error: {flag}: can't read {given[1]}: Permission denied\n"
        )
    assert main(["generate", "--out", str(tmp_path / "locked" / "out")]) == 2
    assert "--out: can't write to the folder" in capsys.readouterr().err
