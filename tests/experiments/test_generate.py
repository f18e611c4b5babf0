"""Many pictures by one command: what is done is kept, whatever stops it."""

import base64
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import EpsImagePlugin, Image

from experiments.__main__ import main
from experiments.generate import png_metadata
from experiments.generate import run as generate
from sd.networks.unet import UNet

LINES = """# five pictures, two of one prompt
a red ring
a blue star
{"prompt": "a red ring", "negative_prompt": "green"}

{"prompt": "a green square", "seed": 9}
a red ring
"""
NAMES = [f"0000{n}.png" for n in range(1, 6)]


@dataclass
class Command:
    """`generate` of the file of prompts, into a folder."""

    prompts: Path
    weights: Path
    capsys: pytest.CaptureFixture[str]

    def flags(self, out: Path, *more: str) -> list[str]:
        steps = () if "--steps" in more else ("--steps", "2")
        named = ["--prompts", str(self.prompts), "--weights", str(self.weights)]
        return ["generate", *named, "--batch", "2", *steps, "--out", str(out), *more]

    def __call__(self, out: Path, *more: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(self.flags(out, *more))
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(LINES, encoding="utf-8")
    return Command(prompts, tiny, capsys)


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def test_a_file_of_prompts(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = command(out, "--seed", "4")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == [*NAMES, "generate.json", "generate.md"]
    assert said.splitlines() == [
        str(out / name) for name in [*NAMES, *("generate.json", "generate.md")]
    ]
    kept = [png_metadata.read(out / name) for name in NAMES]
    own = [(*one["batch"][one["index"]], one["call"]["negative_prompt"]) for one in kept]
    assert own == [
        ("a red ring", 4, ""), ("a blue star", 5, ""), ("a red ring", 6, "green"),
        ("a green square", 9, ""), ("a red ring", 8, ""),
    ]  # fmt: skip
    pictures = held(out)
    assert len(set(pictures.values())) == 5
    like = str(out / NAMES[2])
    assert main(["generate", "--like", like, "--like-files", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / NAMES[2]).read_bytes() == pictures[NAMES[2]]


def test_what_is_there_is_kept_and_what_is_missing_drawn(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command(out)
    whole, before = held(out), times(out)
    (out / NAMES[1]).unlink()
    (out / NAMES[4]).unlink()
    code, said, _ = command(out)
    assert code == 0 and said.count(".png") == 2
    after = times(out)
    assert held(out) == whole
    assert [name for name in NAMES if after[name] == before[name]] == [NAMES[i] for i in (0, 2, 3)]
    with command.prompts.open("a", encoding="utf-8") as file:
        file.write("a small blue star\n")
    code, said, _ = command(out)
    assert code == 0 and said.count(".png") == 1
    assert len(held(out)) == 6 and times(out).items() > after.items()


def test_a_kill_costs_no_picture(command: Command, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    more = ("--steps", "20")
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", *command.flags(out, *more)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(out / NAMES[0])
    process.kill()
    process.communicate()
    before = times(out)
    assert NAMES[0] in before and len(before) < 5
    assert command(out, *more)[0] == 0
    assert times(out).items() > before.items()
    assert command(whole, *more)[0] == 0
    assert held(out) == held(whole)


@pytest.mark.parametrize("listed", [True, False])
def test_an_interrupt_says_what_is_done(
    listed: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, count = tmp_path / "out", 0
    real: Callable[..., Any] = generate.write_files

    def write(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    flags = command.flags(out)
    if not listed:
        flags[1:3] = ["--prompt", *["a red ring"] * 5]
    # A process that a shell started in the background ignores the signal, and so would this one.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(generate, "write_files", write)
            command.capsys.readouterr()
            assert main(flags) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    again = "; the same command resumes" if listed else ""
    assert command.capsys.readouterr().err == f"interrupted; 3 of 5 images are in {out}{again}\n"
    assert len(list(out.iterdir())) == 3
    before = times(out)
    assert main(flags) == 0
    assert len(held(out)) == 5
    assert (times(out).items() > before.items()) == listed


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("--steps", "3"), "other steps;"),
        (("--seed", "1"), "other seed;"),
        (("--negative-prompt", "red"), "other negative_prompt;"),
        (("--dtype", "bfloat16"), "other dtype, the model's weights;"),
    ],
)
def test_other_settings_are_an_error(
    change: tuple[str, ...], word: str, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command(out)
    before = times(out)
    code, said, error = command(out, *change)
    assert (code, said, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"error: --out: {out / NAMES[0]} was made with {word}"[:40])
    assert word in error and "take another folder" in error
    assert times(out) == before


def test_a_changed_line_and_a_strange_file_are_errors(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command(out)
    command.prompts.write_text(LINES.replace("a blue star", "a blue ring"), encoding="utf-8")
    assert f"{NAMES[1]} was made with other prompt;" in command(out)[2]
    (out / NAMES[0]).write_bytes(b"no picture")
    assert f"--out: {out / NAMES[0]} is no image in a format of PNG" in command(out)[2]


def test_another_machine_is_warned_of(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command(out)
    (out / NAMES[4]).unlink()
    real = png_metadata.made_with
    monkeypatch.setattr(
        png_metadata, "made_with", lambda pipeline: {**real(pipeline), "torch": "0"}
    )
    code, _, error = command(out)
    assert code == 0 and len(held(out)) == 5
    assert error == f"warning: the images in {out} were made with other torch\n"


BAD = {
    "both": (("--prompt", "a red ring"), "--prompt: has no effect beside --prompts"),
    "unguided": (("--no-do-cfg",), "prompts.txt: negative_prompt 'green' has no effect with --no"),
    "not guided": (("--guidance-scale", "1"), "has no effect with --guidance-scale 1"),
    "many seeds": (("--seed", "1", "2"), "--seed: wanted one with --prompts"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_flags_get_one_line(case: str, command: Command, tmp_path: Path) -> None:
    more, words = BAD[case]
    code, said, error = command(tmp_path / "out", *more)
    assert (code, said, error.count("\n")) == (2, "", 1)
    assert words in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [None, b"", b"\xff\xfe\x00", b"a red ring\n" + b"red " * 40])
def test_a_bad_file_gets_one_line_before_any_work(
    text: bytes | None, command: Command, tmp_path: Path
) -> None:
    command.prompts.unlink() if text is None else command.prompts.write_bytes(text)
    code, said, error = command(tmp_path / "out")
    assert (code, said, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: ")
    assert "prompts.txt" in error or "has 40 tokens" in error
    assert not (tmp_path / "out").exists()


def test_no_picture_is_written_of_what_is_not_finite(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch stays, the second is named."""
    calls, real = 0, UNet.forward

    def forward(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(*arguments) * (float("nan") if calls == 4 else 1)

    monkeypatch.setattr(UNet, "forward", forward)
    code, _, error = command(tmp_path / "out", "--solver", "ddim")
    assert code == 2
    assert error.startswith("error: float32 U-Net, step 2 of 2 (t = 500): not finite; try a lower")
    assert sorted(held(tmp_path / "out")) == NAMES[:2]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("where", ["--image", "--like", "--out", "settings"])
def test_a_stranger_s_image_starts_no_program(
    where: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript under an image's name, and inside the metadata of a good PNG."""
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it has not looked for one yet
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program is started"))
    path, out = tmp_path / "x.png", tmp_path / "out"
    path.write_bytes(EPS)
    if where == "--out":
        out.mkdir()
        (out / NAMES[0]).write_bytes(EPS)
        code, _, error = command(out)
    else:
        if where == "settings":
            assert command(out)[0] == 0
            kept = png_metadata.read(out / NAMES[0])
            kept["image"] = base64.b64encode(EPS).decode("ascii")
            path.write_bytes(png_metadata.png(Image.new("RGB", (64, 64)), "a red ring", kept))
        flag = "--image" if where == "--image" else "--like"
        command.capsys.readouterr()
        more = ["--like-files"] if where == "settings" else []
        code = main(["generate", flag, str(path), *more, "--out", str(tmp_path / "new")])
        error = command.capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    assert "format of PNG" in error or "damaged" in error


def test_one_image_is_not_asked_for_twice() -> None:
    """Nor drawn twice, under two names; another prompt may have the same seed."""
    for words, same in ((("a b", "a b"), True), (("a",), True), (("a b", "b a"), False)):
        config = generate.Config(prompt=words, seed=(7, 7))
        if same:
            with pytest.raises(ValueError, match="--seed: wanted no seed twice for one prompt"):
                generate._jobs(config)
        else:
            assert [job.seed for job in generate._jobs(config)] == [7, 7]
