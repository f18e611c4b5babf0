"""Trainings that are killed (SIGKILL): `python -m tests.sd.train.killed FOLDER`.

Every attempt is a fork of this process, which has trained once to load all that it needs. Prints
one line of JSON: what was tried, and each case whose end is not that of a run without a kill.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sd.train.trainer import Training, fit

STEPS = 6


def small(folder: Path) -> dict[str, Tensor]:
    """Six steps with three checkpoints, a line of the log each, and evaluations."""
    torch.manual_seed(0)

    def batch(step: int) -> Tensor:
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))

    def loss(module: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (module(x + torch.randn(x.shape, generator=generator)) - 1).square().mean()}

    def evaluate(module: nn.Module) -> dict[str, float]:
        return {"figure": float(next(module.parameters()).detach().sum())}

    training = Training(
        steps=STEPS, batch_size=4, learning_rate=0.05, out=folder, warmup=2, ema=0.9,
        checkpoint_every=2, log_every=1, bfloat16=False, cpu=True,
    )  # fmt: skip
    return fit(nn.Linear(3, 1), batch, loss, training, evaluate)


def attempt(folder: Path, prepare: Callable[[], object] = int) -> int:
    """A run in a fork of this process; returns the child's id."""
    child = os.fork()
    if child == 0:
        prepare()
        torch.save(small(folder), folder / "result.pt")
        os._exit(0)
    return child


def ended(child: int) -> bool:
    """Wait for a child; whether it came to its end."""
    return os.waitpid(child, 0)[1] == 0


def at_event(folder: Path, number: int) -> Callable[[], None]:
    """Kill the process at its n-th opening, renaming or removing of a file of the folder."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove") and str(folder) in str(arguments[0]):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def state(folder: Path) -> tuple[object, str, list[str]]:
    """The weights, the log and the names of the files that a run has left."""
    weights = {k: v.tolist() for k, v in torch.load(folder / "result.pt").items()}
    names = sorted(path.name for path in folder.iterdir())
    return weights, (folder / "log.jsonl").read_text(encoding="utf-8"), names


def main(root: Path, moments: int = 12) -> dict[str, object]:
    """Kill at every event that touches a file, then at random moments; compare the ends."""
    small(root / "first")
    assert ended(attempt(root / "whole"))
    wanted, faults, events = state(root / "whole"), [], 0
    while True:
        folder = root / f"event{events + 1}"
        if ended(attempt(folder, at_event(folder, events + 1))):
            break
        events += 1
        if not ended(attempt(folder)) or state(folder) != wanted:
            faults.append(folder.name)
    killed, folder = 0, root / "moments"
    start = time.monotonic()
    assert ended(attempt(root / "timed"))
    took = time.monotonic() - start
    while killed < moments:
        child = attempt(folder)
        time.sleep(random.uniform(0, took))
        os.kill(child, signal.SIGKILL)
        if ended(child):  # it was done before: once more from nothing
            folder = root / f"moments{killed}"
        killed += 1
    if not ended(attempt(folder)) or state(folder) != wanted:
        faults.append(folder.name)
    return {"events": events, "moments": killed, "faults": faults}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
