"""The processes that `torchrun` or `accelerate launch` started, and this one among them."""

import os
from dataclasses import dataclass

__all__ = ["ALONE", "Process", "launched"]


@dataclass(frozen=True)
class Process:
    """One of `count` processes.

    Attributes:
        rank: its number, 0 to `count` - 1.
        count: how many there are, on all machines together.
        local: its number on its own machine, which is the number of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes shared files."""
        return self.rank == 0


ALONE = Process()
"""The only process."""


def launched() -> Process:
    """This process, by the launcher's variables RANK, WORLD_SIZE and LOCAL_RANK.

    Without them it is `ALONE`. Raises ValueError for values that no launcher sets.
    """
    found = {}
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        text = os.environ.get(name, default)
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"the variable {name}: wanted a whole number, got {text!r}")
        found[name] = int(text)
    rank, count = found["RANK"], found["WORLD_SIZE"]
    if not rank < count:
        raise ValueError(f"the variable RANK: wanted one below WORLD_SIZE {count}, got {rank}")
    return Process(rank, count, found["LOCAL_RANK"])
