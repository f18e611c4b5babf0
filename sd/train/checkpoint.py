"""The folder of a training: its checkpoint and its log.

The checkpoint holds the lines of the log up to its step. A resumed run writes the log anew from
them, so that its log equals that of a run without interruption.
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from torch import nn

from sd.command_line.flags import named
from sd.files import output_folder
from sd.train.fsdp import optimizer_parts, parts
from sd.train.settings import Training, agree

__all__ = ["Checkpoint", "Log", "load_checkpoint", "machine"]

NAME = "checkpoint.pt"


@dataclass
class Log:
    """`log.jsonl`, a line of figures every few steps; `lines` is its content."""

    path: Path
    lines: list[str]

    def begin(self, anew: bool) -> None:
        """Write the lines so far. In a new run, an earlier log becomes `log.jsonl.old`."""
        if anew and self.path.exists() and self.path.stat().st_size > 0:
            os.replace(self.path, self.path.with_name(f"{self.path.name}.old"))
        output_folder.write_file(self.path, "".join(self.lines).encode())

    def add(self, step: int, figures: Mapping[str, Any]) -> None:
        """Append the figures of one step."""
        figures = {name: float(value) for name, value in figures.items()}
        self.lines.append(json.dumps({"step": step, **figures}) + "\n")
        with output_folder.named(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(self.lines[-1])


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run at a step.

    `settings` are the settings that change the weights, `machine` describes the computer, and `log`
    holds the lines of the log up to `step`.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    step: int
    module: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any]
    log: list[str]

    def save(self, out: Path) -> None:
        """Write it to the folder, whole or not at all. Raises OSError, with the file's name."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        output_folder.write_file(out / NAME, buffer.getvalue())

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
        """Load the state into a module and its optimiser. Raises ValueError if it does not fit.

        Both may be sharded.
        """
        like = module.state_dict()
        try:
            for numbers in (self.average, self.module):
                module.load_state_dict(parts(numbers, like))
            optimizer.load_state_dict(optimizer_parts(self.optimizer, optimizer))
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: its tensors do not fit; delete it") from error


def load_checkpoint(
    training: Training, wanted: Mapping[str, Any], device: torch.device | str = "cpu"
) -> Checkpoint | None:
    """The checkpoint in the folder of a training, on the device; None if there is none.

    Raises ValueError for a file that is damaged or of another program, and for settings other than
    `wanted`.
    """
    path = training.out / NAME
    if not path.exists():
        return None
    advice = f"give another folder with {named(training, 'out')}, or delete the file"
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the readers of zip files, pickles and tensors raise many kinds
        raise ValueError(f"{path} is not a readable checkpoint; {advice}") from error
    if not isinstance(state, dict) or not {"module", "optimizer", "step"} <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of a training; {advice}")
    agree(path, state.get("settings"), wanted, advice)
    kinds = get_type_hints(Checkpoint)
    if (
        state.keys() != kinds.keys()
        or not all(
            isinstance(state[name], get_origin(kind) or kind) for name, kind in kinds.items()
        )
        or state["step"] not in range(training.steps + 1)
    ):
        raise ValueError(f"{path} is damaged; {advice}")
    return Checkpoint(**state)


def machine(device: torch.device, processes: int = 1, sharded: bool = False) -> dict[str, Any]:
    """What else may change the bits of a result."""
    return {
        "device": device.type,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        **({"processes": processes} if processes > 1 else {}),
        **({"sharded": True} if sharded else {}),
    }
