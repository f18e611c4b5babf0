"""What a training may be set to, and that one is only carried on with by the settings it had."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor, nn

from sd.command_line import flags
from sd.shapes.data import FRESH
from sd.train import __main__ as program
from sd.train.__main__ import All
from sd.train.clip import CLIPTraining
from sd.train.control import ControlTraining
from sd.train.distillation import Distillation
from sd.train.settings import FREE, Training
from sd.train.trainer import fit
from sd.train.unet import UNetTraining
from sd.train.vae import VAETraining

KINDS = {
    "clip": CLIPTraining,
    "vae": VAETraining,
    "unet": UNetTraining,
    "control": ControlTraining,
    "distilled": Distillation,
}
WORDS = ("", "text", "-1", "nan", "inf", "-inf", "1e400", "9" * 31, "1" * 5000, "0x10", "1,5", "\0")
NUMBERS = [
    *(f"--{name}.{one.name}" for name, kind in KINDS.items()
      for one in dataclasses.fields(kind)
      if one.name not in (
          "out", "initial", "bfloat16", "cpu", "decoder_only", "fsdp", "tensorboard", "on_policy",
      )),
    "--judged",
]  # fmt: skip


def flag(name: str) -> str:
    return name.replace("_", "-")


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Exit code and stderr of a command line that must not come to any work."""

    def run(*arguments: str) -> tuple[int, str]:
        for work in ("_train", "check"):
            monkeypatch.setattr(program, work, lambda *_: pytest.fail("it has worked"))
        code = program.main(list(arguments))
        found = capsys.readouterr()
        assert found.out == ""
        return code, found.err

    return run


@pytest.mark.parametrize("name", NUMBERS)
def test_odd_numbers_are_one_line_before_any_work(
    name: str, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the flag, and where a number is out of range the range."""
    monkeypatch.chdir(tmp_path)
    for word in WORDS:
        code, line = said(f"{flag(name)}={word}")
        assert code == 2, (name, word)
        assert line.startswith("error: ") and line.count("\n") == 1, (name, word, line)
        assert flag(name).removeprefix("--") in line, (name, word, line)
        if word in ("-1", "9" * 31):
            assert "wanted a" in line and " to " in line and ", got " in line, line
    assert list(tmp_path.iterdir()) == []


def leaves() -> Iterator[tuple[type, str, flags.Range]]:
    """Every number of every training, with what is valid; a list of numbers has its first one."""
    for kind in (*KINDS.values(), All):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            ranges = [note for note in flags._notes(hint) if isinstance(note, flags.Range)]
            if ranges:
                yield kind, name, ranges[0]


def test_every_number_has_a_range_and_both_its_ends_are_valid() -> None:
    ranged = {(kind, name) for kind, name, _ in leaves()}
    for kind in (*KINDS.values(), All):
        for name, hint in get_type_hints(kind).items():
            numeric = hint in (int, float, float | None, tuple[float, ...])
            assert numeric == ((kind, name) in ranged), (kind, name)
    for kind, name, valid in leaves():
        given = getattr(kind(), name)
        several = isinstance(given, tuple)
        number = float if several or given is None else type(given)
        low = number(math.nextafter(valid.low, 1) if valid.above else valid.low)
        for value in (low, number(valid.high)):
            replace(kind(), **{name: (value,) if several else value}).check()
        step = 1 if number is int else 1e-9
        outside = [
            number(valid.high + step),
            number(valid.low if valid.above else valid.low - step),
        ]
        for value in outside:
            with pytest.raises(ValueError, match="wanted a"):
                replace(kind(), **{name: (value,) if several else value}).check()


def test_a_seed_for_judging_is_none_for_training() -> None:
    for kind in KINDS.values():
        replace(kind(), seed=FRESH - 1).check()
        with pytest.raises(ValueError, match=r"seed: wanted a whole number from 0 to 999999999"):
            replace(kind(), seed=FRESH).check()


ODD = {
    "a model in the current folder": (["--model", "."], "--model"),
    "one folder for two": (
        ["--clip.out", "same", "--vae.out", "./same"],
        "--clip.out, --vae.out",
    ),
    "an encoder that is not there": (["--vae.decoder-only"], "--vae.initial"),
    "a missing file": (["--unet.initial", "none.safetensors"], "--unet.initial"),
    "a folder for a file": (["--vae.initial", "."], "--vae.initial"),
    "no such network": (["--keep", "clip"], "--keep"),
    "a flag twice": (["--unet.seed", "1", "--unet.seed", "2"], "--unet.seed"),
    "no such flag": (["--unet.stepps", "1"], "--unet.stepps"),
    "a name of no folder": (["--model", "a" * 300], "--model"),
    "a name not in UTF-8": (["--unet.out", "a\udcff"], "--unet.out"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_flags_are_one_line_before_any_work(
    case: str, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, word = ODD[case]
    code, line = said(*arguments)
    assert code == 2 and line.startswith("error: ") and line.count("\n") == 1
    assert word in line
    assert list(tmp_path.iterdir()) == []


BASE = Training(
    steps=4, batch_size=2, learning_rate=0.01, out=Path(), warmup=1, ema=0.9, checkpoint_every=2,
    log_every=1, bfloat16=False, cpu=True,
)  # fmt: skip
OTHER: dict[str, Any] = {
    "steps": 6, "batch_size": 3, "learning_rate": 0.5, "warmup": 2, "weight_decay": 0.5,
    "ema": 0.5, "seed": 1, "bfloat16": True, "checkpoint_every": 1, "log_every": 2, "workers": 1,
    "accumulate": 2, "tensorboard": True,
}  # fmt: skip


def trained(training: Training, **context: str) -> dict[str, Tensor]:
    def loss(module: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": module(x).square().mean()}

    torch.manual_seed(training.seed)
    return fit(nn.Linear(2, 1), lambda step: torch.ones(2, 2), loss, training, None, context)


@pytest.mark.parametrize("name", OTHER)
def test_a_checkpoint_of_other_settings_is_refused(name: str, tmp_path: Path) -> None:
    """What the weights depend on; how often something is written may change."""
    before = replace(BASE, out=tmp_path)
    trained(before)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    other = replace(before, **{name: OTHER[name]})
    if name in FREE:
        trained(other)
        return
    with pytest.raises(ValueError, match="was made with other settings") as caught:
        trained(other)
    message = str(caught.value)
    values = [str(getattr(one, name)).lower() for one in (before, other)]
    assert f"{flag(f'--{name}')} {values[0]} there, {values[1]} now" in message
    assert "--out" in message and "checkpoint.pt" in message
    assert ("schedule" in message) == (name == "steps")
    assert message.count(" there, ") == 1
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    trained(before)


def test_other_data_and_all_that_differs_are_named(tmp_path: Path) -> None:
    trained(replace(BASE, out=tmp_path), data="a", config="x")
    with pytest.raises(ValueError, match=r'--seed 0 there, 1 now; data "a" there, "b" now; give'):
        trained(replace(BASE, out=tmp_path, seed=1), data="b", config="x")


def test_every_field_is_compared_or_declared_free() -> None:
    assert set(OTHER) | {"out", "cpu"} == {one.name for one in dataclasses.fields(Training)}
    for kind in KINDS.values():
        fields = {one.name for one in dataclasses.fields(kind)}
        names, free = ({flags.named(kind(), n) for n in some} for some in (fields, fields & FREE))
        assert kind().settings().keys() == names - free


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    found = []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        found.append(VAETraining(initial=tmp_path / name).settings()["--vae.initial"])
    assert found[0] == found[1] != found[2]
