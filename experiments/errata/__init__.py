"""E1 to E8: the lecture's printed forms beside the true ones, each with a counterexample."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Range, Seed, check


@dataclass(frozen=True)
class Config:
    """Eight statements of the lecture that are not true as printed (E1-E8), each with an image.

    In every image orange is the printed form and blue the corrected one, computed by the
    primitive that carries it. An erratum holds only if what is measured agrees with the corrected
    form within a bound that has a reason, and contradicts the printed one.
    """

    samples: Annotated[int, Range(1000, 10**7)] = 20_000
    """Draws behind each of the images that have any, at least 1000."""
    seed: Seed = 0
    """Of the samples."""
    out: Path = Path("out/errata")
    """Folder for errata.md, errata.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
