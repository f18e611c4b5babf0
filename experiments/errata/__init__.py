"""E1 to E8: the lecture's printed forms against the corrected ones, each with a counterexample."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Range, Seed, validated


@validated
class Config:
    """Measure eight statements of the lecture that are not true as printed (E1-E8).

    Each erratum has a figure: the printed form is orange, the corrected form blue. An erratum
    holds if the measurement agrees with the corrected form within a stated bound, and contradicts
    the printed form.
    """

    samples: Annotated[int, Range(1000, 10**7)] = 20_000
    """Samples for each erratum that needs any, at least 1000."""
    seed: Seed = 0
    """Seed of the samples."""
    out: Path = Path("out/errata")
    """Folder for errata.md, errata.json and the figures."""
