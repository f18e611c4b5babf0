"""The three kinds of condition: a class, a text, a map over the pixels (C27)."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Range, refuse, validated


@validated
class Config:
    """Measure what a map over the pixels does to the embedded model's images.

    The embedded ControlNet reads a class-index map: which shape is where. The same prompts and
    seeds are sampled with the map and without it, and with maps that contradict their prompt. A
    rule-based image reader finds the things and their places. One figure has the three kinds of
    condition: a class (scikit-learn's digits, by a network trained in the run), a text, and a map.
    """

    count: Annotated[int, Range(2, 100_000)] = 60
    """Fresh scenes, each with its map and prompt, at least 2."""
    conflicts: Annotated[int, Range(2, 100_000)] = 40
    """Scenes whose prompt names other shapes than the map, and as many whose prompt names another
    number of things, at least 2 and at most `--count`."""
    digit_steps: Annotated[int, Range(1, 10**7)] = 1000
    """Training steps of the network of digits."""
    out: Path = Path("out/conditions")
    """Folder for conditions.md, conditions.json and the figures."""

    def __post_init__(self) -> None:
        if self.conflicts > self.count:
            refuse(self, "conflicts", f"at most --count, which is {self.count}")
