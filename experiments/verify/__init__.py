"""The verification page: every claim, the function that computes it, its proof and its number."""

from dataclasses import dataclass
from pathlib import Path

from sd.command_line.flags import check


@dataclass(frozen=True)
class Config:
    """Prove the lecture's claims and write the verification page.

    Runs every test marked with a claim, a minute or two on two cores, and writes for each claim
    the function, the test, what the test measured and its tolerance.
    """

    tests: bool = True
    """Run the tests; else lay the page out anew from the verification.json that is there."""
    out: Path = Path("docs")
    """Folder for verification.md and verification.json."""

    def __post_init__(self) -> None:
        check(self)
