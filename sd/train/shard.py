"""The shard of a batch that one of several processes computes, and what they exchange.

A batch and its random numbers are functions of the step alone. Each process takes its own
consecutive examples of them, so that N processes train as one process does, up to rounding.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor

from sd import device
from sd.command_line.entry import WRONG
from sd.command_line.flags import named
from sd.processes import ALONE, Process, launched
from sd.train.settings import Training

__all__ = ["WHOLE", "Shard", "fair", "joined", "left", "startable"]

PATIENCE = timedelta(hours=6)
"""How long a process waits for another, as for an evaluation on the main process."""


@final
@dataclass(frozen=True)
class Shard:
    """A process's part of every batch: part `rank` of `count` equal ones."""

    process: Process = ALONE

    def of(self, size: int) -> slice:
        """The places of the own examples in a batch of `size`, which `process.count` divides."""
        own, rank = size // self.process.count, self.process.rank
        return slice(rank * own, (rank + 1) * own)

    def drawn(self, sample: Callable[[int], Tensor], count: int) -> Tensor:
        """The own rows of a draw for the whole batch.

        Args:
            sample: n -> random numbers for n examples, the same on every process.
            count: the number of own examples.
        """
        whole = count * self.process.count
        return sample(whole)[self.of(whole)]

    def parts(self, examples: Any, count: int) -> list[tuple[Any, dict[str, "Shard"]]]:
        """The own examples in so many equal parts, each with the keyword `shard` of a loss.

        Part m of process r is part r M + m of the whole batch's N M. A part draws its numbers; it
        does not gather rows. There is no keyword for a single part.
        """
        if count == 1:
            return [(examples, {})]

        def cut(number: int) -> Any:
            def rows(x: Tensor) -> Tensor:
                own = len(x) // count
                return x[number * own : (number + 1) * own]

            return torch.utils._pytree.tree_map(rows, examples)

        rank, whole = self.process.rank * count, self.process.count * count
        return [(cut(n), {"shard": Shard(Process(rank + n, whole))}) for n in range(count)]

    def gathered(self, x: Tensor) -> Tensor:
        """The rows of all processes, in order, with gradients.

        With x_r the rows of process r, and one function L of all rows that every process computes,
        the gradient is N dL/dx_r. The mean over the processes of the gradients of weights, which
        training takes, is then that of L.
        """
        if self.process.count == 1:
            return x
        rows: Tensor = _Gathered.apply(x, self)
        return rows

    def collected(self, found: Sequence[Any]) -> list[Any]:
        """Results of numbered work, each from the process `number % count` that did it."""
        if self.process.count == 1:
            return list(found)
        told: list[Any] = [None] * self.process.count
        dist.all_gather_object(told, found[self.process.rank :: self.process.count])
        return [told[n % self.process.count][n // self.process.count] for n in range(len(found))]

    def received(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the tensors by those of the main process."""
        if self.process.count > 1:
            for one in tensors.values():
                dist.broadcast(one, 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.process.count > 1:
            dist.barrier()

    def first(self, work: Callable[[], object]) -> None:
        """Do the work on the main process while the others wait.

        If it fails there, its error is raised there, and the other processes exit silently.
        """
        failed: BaseException | None = None
        if self.process.main:
            try:
                work()
            except BaseException as error:
                failed = error
        if self.process.count > 1:
            told = [failed is not None]
            dist.broadcast_object_list(told, 0)
            if told[0] and failed is None:
                raise SystemExit(WRONG)
        if failed is not None:
            raise failed


WHOLE = Shard()
"""The shard of the only process: all of a batch."""


def joined(cpu: bool) -> Shard:
    """The shard of this process, which has joined the others of its launcher.

    Args:
        cpu: train on the CPU even if there is a GPU.
    """
    if not dist.is_initialized():
        if launched().count == 1:
            return WHOLE
        from accelerate import PartialState

        PartialState(cpu=cpu, timeout=PATIENCE)
    return Shard(Process(dist.get_rank(), dist.get_world_size()))


def left() -> None:
    """Leave the other processes, at the end of a program."""
    if dist.is_initialized():
        dist.destroy_process_group()


def fair(training: Training, processes: int) -> None:
    """Raise ValueError, with the flag, if a batch is not divisible among processes and parts.

    Warns, on the main process, of bfloat16 on a CPU where it is slow.
    """
    where = torch.device("cpu" if training.cpu else device.available()[0])
    if training.bfloat16 and launched().main:
        advice = f"give --{training.prefix}no-bfloat16"
        device.warn_slow_bfloat16(where, named(training, "bfloat16"), advice)
    parts = training.accumulate
    if training.batch_size % (processes * parts):
        flag = named(training, "batch_size")
        wanted = f"a multiple of the {processes} processes"
        if parts > 1:
            more = f" in each of {processes} processes" if processes > 1 else ""
            wanted = f"a multiple of {named(training, 'accumulate')} {parts}{more}"
        raise ValueError(f"{flag}: wanted {wanted}, got {training.batch_size}")


def startable(trainings: Sequence[Training], processes: int) -> None:
    """Raise ValueError for trainings that can't run one after the other with that many processes.

    Warns if a learning rate does not reach its peak.
    """
    for training in trainings:
        fair(training, processes)
        if training.warmup >= training.steps:
            said = f"--{training.prefix}warmup {training.warmup} is not below the number of steps"
            warnings.warn(f"{said}: the learning rate does not reach its peak", stacklevel=3)
    if device.available()[0] != "cpu" and len({one.cpu for one in trainings}) > 1:
        names = ", ".join(f"--{one.prefix}cpu" for one in trainings)
        raise ValueError(f"{names}: give all of them or none")


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: Shard) -> Tensor:
        ctx.shard = shard
        rows = [torch.empty_like(x) for _ in range(shard.process.count)]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        shard = ctx.shard
        return shard.process.count * gradient[shard.of(len(gradient))], None
