"""The loop around the steps: what it is set up with, what it shows, and what its files hold."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from sd.train import trainer
from sd.train.trainer import Batches, fit
from tests.support.linear_training import SETTINGS

FEW = replace(SETTINGS, steps=4, warmup=1, log_every=1, checkpoint_every=2)


def half(module: nn.Module, examples: Any, generator: torch.Generator) -> dict[str, Tensor]:
    """A loss of 1/2 whose gradient is zero."""
    return {"loss": 0.5 + 0.0 * next(module.parameters()).sum()}


def batch(step: int) -> Tensor:
    return torch.tensor([float(step)])


def test_a_fresh_run_has_a_folder_and_a_checkpoint_before_its_first_step(tmp_path: Path) -> None:
    """The folder's parents are made too. The shapes of all weights are among the settings."""
    out, found = tmp_path / "a" / "b", []

    def first(step: int) -> Tensor:
        if step == 0:
            found.append(torch.load(out / "checkpoint.pt", weights_only=True))
        return batch(step)

    fit(nn.Linear(3, 2), first, half, replace(FEW, out=out), context={"data": "ours"})
    (checkpoint,) = found
    assert checkpoint["step"] == 0
    shapes = json.dumps({"weight": [2, 3], "bias": [2]}).encode()
    settings = checkpoint["settings"]
    assert settings.pop("network") == hashlib.sha256(shapes).hexdigest()[:16]
    assert settings == {**FEW.settings(), "data": "ours"}


def test_the_log_names_the_step_of_every_figure(tmp_path: Path) -> None:
    def judge(module: nn.Module) -> dict[str, float]:
        return {"quality": 3.0}

    fit(nn.Linear(1, 1), batch, half, replace(FEW, out=tmp_path), judge)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    wanted = [{"step": step, "loss": 0.5} for step in (1, 2, 3, 4)]
    for step in (4, 2):
        wanted.insert(step, {"step": step, "quality": 3.0})
    assert lines == wanted


@pytest.mark.parametrize("cpu", [False, True])
def test_the_device_is_the_accelerators(
    cpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told whether to use the CPU; examples and a checkpoint are moved to its device."""
    told, places = [], []
    real, load = accelerate.Accelerator, trainer.load_checkpoint

    def accelerator(cpu: bool) -> accelerate.Accelerator:
        told.append(cpu)
        return real(cpu=True)

    def noted(training: Any, settings: Any, device: Any) -> Any:
        places.append(device)
        return load(training, settings, device)

    class Example:
        def to(self, device: Any) -> "Example":
            places.append(device)
            return self

    monkeypatch.setattr(accelerate, "Accelerator", accelerator)
    monkeypatch.setattr(trainer, "load_checkpoint", noted)
    fit(nn.Linear(1, 1), lambda step: Example(), half, replace(FEW, out=tmp_path, cpu=cpu))
    assert told == [cpu]
    assert places == 5 * [torch.device("cpu")]


def test_bfloat16_is_meant_whatever_the_default(tmp_path: Path) -> None:
    kinds = set()

    def loss(module: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        y = module(x)
        kinds.add(y.dtype)
        return {"loss": y.float().sum()}

    before = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        fit(nn.Linear(1, 1), batch, loss, replace(FEW, out=tmp_path, bfloat16=True))
    finally:
        torch.set_autocast_dtype("cpu", before)
    assert kinds == {torch.bfloat16}


def test_convolutions_have_their_channels_last(tmp_path: Path) -> None:
    """As the autoencoder's images have."""
    module = nn.Conv2d(2, 2, 3)
    fit(module, batch, half, replace(FEW, out=tmp_path))
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_weight_without_a_gradient_rests(tmp_path: Path) -> None:
    """A weight that a step's loss does not reach neither decays nor follows its old gradients."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    module, seen = Two(), []

    def loss(module: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        seen.append((float(module.a.detach()), float(module.b.detach())))
        return {"loss": (module.a if float(x) < 2 else module.b).sum()}

    fit(module, batch, loss, replace(FEW, out=tmp_path))
    a, b = zip(*seen, strict=True)
    assert a[0] > a[1] > a[2] == a[3] == float(module.a.detach())
    assert b[0] == b[1] == b[2] > b[3]


def test_batches_are_given_as_they_are_and_prepared_by_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, workers = [], []

    def loader(data: Any, num_workers: int = 0, **rest: Any) -> DataLoader[Any]:
        workers.append(num_workers)
        return DataLoader(data, **rest)

    def loss(module: nn.Module, x: Any, generator: torch.Generator) -> dict[str, Tensor]:
        shapes.append([tuple(y.shape) for y in x])
        return half(module, x, generator)

    monkeypatch.setattr(trainer, "DataLoader", loader)
    settings = replace(FEW, out=tmp_path, workers=3)
    fit(nn.Linear(1, 1), lambda step: (torch.zeros(2, 3), torch.zeros(5)), loss, settings)
    assert workers == [3]
    assert shapes == 4 * [[(2, 3), (5,)]]


def test_there_is_a_batch_for_each_step() -> None:
    data = Batches(lambda step: 10 * step, 7)
    assert (len(data), data[3]) == (7, 30)


class Screen(StringIO):
    """A terminal, or a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def screens(monkeypatch: pytest.MonkeyPatch) -> list[Screen]:
    """A screen for each bar, which is drawn again after a minute only: a terminal at first."""
    made: list[Screen] = []

    class Bar(tqdm):
        monitor_interval = 0

        def __init__(self, *given: Any, **named: Any) -> None:
            made.append(Screen(terminal=len(made) < 2))
            super().__init__(*given, file=made[-1], mininterval=60, ncols=100, **named)

    monkeypatch.setattr(trainer, "tqdm", Bar)
    return made


def drawn(screen: Screen) -> Sequence[str]:
    return [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.strip()]


def test_a_terminal_shows_how_far_the_run_is(tmp_path: Path, screens: list[Screen]) -> None:
    """Steps of all, and the last figures; a resumed run begins where it is. A file shows nothing.

    The bar is drawn at its beginning and at its end, here in less than a minute.
    """

    def stop(step: int) -> Tensor:
        if step == 3:
            raise KeyboardInterrupt
        return batch(step)

    settings = replace(FEW, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(nn.Linear(1, 1), stop, half, settings)
    fit(nn.Linear(1, 1), batch, half, settings)
    fit(nn.Linear(1, 1), batch, half, replace(settings, out=tmp_path / "other"))
    killed, resumed, silent = (drawn(screen) for screen in screens)
    assert " 0/4 [" in killed[0] and "?step/s]" in killed[0]
    assert " 2/4 [" in resumed[0]
    assert len(resumed) == 2 and " 4/4 [" in resumed[1]
    assert re.search(r"\d(step/s|s/step), loss=0\.5000\]", resumed[1])
    assert silent == []
