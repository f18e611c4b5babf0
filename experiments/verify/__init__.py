"""The verification page: every claim with its function, its test, the measured value and bound."""

from pathlib import Path

from sd.command_line.flags import validated


@validated
class Config:
    """Verify the lecture's claims and write the verification page.

    Runs every test that is marked with a claim, one to two minutes on two cores. The page lists
    for each claim the function, the test, the measured value and its tolerance.
    """

    tests: bool = True
    """Run the tests; --no-tests rewrites the page from the verification.json in the folder."""
    out: Path = Path("docs")
    """Folder for verification.md and verification.json."""
