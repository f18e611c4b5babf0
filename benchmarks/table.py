"""The table of all rows: printed, written as JSON and into the docs, beside the one before."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.compare import Row
from benchmarks.output import damaged, read_json

WORSE = 1.1
"""A ratio this many times the last one is printed in red."""
RED, PLAIN = "\x1b[31m", "\x1b[0m"
PEERS = ("torch", "diffusers", "jax", "blackjax", "openvino")


@dataclass(frozen=True)
class Table:
    """Rows, the machine and the versions they were timed with."""

    machine: str
    versions: dict[str, str]
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Table":
        """The rows with this machine and what is installed on it."""
        found = {}
        for name in PEERS:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return cls(_machine(), found, tuple(rows))

    @classmethod
    def read(cls, path: Path) -> "Table | None":
        """The table of a file of an earlier run, or none where there is no file.

        Raises ValueError, which names the file, if it holds something else.
        """
        kept = read_json(path)
        if kept is None:
            return None
        try:
            rows = tuple(Row(**row) for row in kept["rows"])
            table = cls(kept["machine"], dict(kept["versions"]), rows)
            table.body()
        except (LookupError, TypeError, ValueError) as error:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        return table

    def lines(self, before: "Table | None", colour: bool) -> list[str]:
        """The printed table; a ratio that got worse by a tenth says what it was."""
        last = {} if before is None else before.ratios()
        found = [f"{self.machine}; {self.said()}"]
        what, who = (2 + max(map(len, some)) for some in zip(*self.ratios(), strict=True))
        heads = f"{'ours ms':>9}{'peer ms':>9}{'ratio':>7}  quartiles"
        found.append(f"{'what':<{what}}{'peer':<{who}}{heads}")
        for row in self.rows:
            line = (
                f"{row.name:<{what}}{row.peer:<{who}}"
                f"{row.ours:>9.3f}{row.theirs:>9.3f}{row.ratio:>7.2f}"
                f"  {row.low:.2f} .. {row.high:.2f}  {row.memory}".rstrip()
            )
            was = last.get((row.name, row.peer))
            if was is not None and row.ratio > WORSE * was:
                line += f"  worse: was {was:.2f}"
                line = f"{RED}{line}{PLAIN}" if colour else line
            found.append(line)
        return found

    def ratios(self) -> dict[tuple[str, str], float]:
        """Ratios by name and peer."""
        return {(row.name, row.peer): row.ratio for row in self.rows}

    def said(self) -> str:
        """Versions and rounds in words."""
        named = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        rounds = sorted({row.rounds for row in self.rows})
        each = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
        return f"{named}; medians of {each} rounds"

    def body(self) -> list[str]:
        """The lines of the page's table."""
        return [
            f"{self.machine}; {self.said()}.",
            "",
            "| what | peer | ours, ms | peer, ms | ratio [quartiles] | memory |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {row.name} | {row.peer} | {row.ours:.3g} | {row.theirs:.3g} "
                f"| {row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}] | {row.memory} |"
                for row in self.rows
            ),
        ]


def _machine() -> str:
    """The processor's name, its cores, and the threads that torch uses."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
