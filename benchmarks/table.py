"""The table of all rows: printed, written as JSON and into the docs, beside the one before."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.compare import Row

WORSE = 1.1
"""A ratio this many times the last one is printed in red."""
RED, PLAIN = "\x1b[31m", "\x1b[0m"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
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
        """The table of a file that `write` made, or none where there is no file."""
        if not path.exists():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls(**kept | {"rows": tuple(Row(**row) for row in kept["rows"])})

    def write(self, path: Path) -> None:
        """As JSON, by a temporary name."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def lines(self, before: "Table | None", colour: bool) -> list[str]:
        """The printed table; a ratio that got worse by a tenth says what it was."""
        last = {} if before is None else before.ratios()
        found = [f"{self.machine}; {self.said()}"]
        found.append(f"{'what':<62}{'peer':<42}{'ours ms':>9}{'peer ms':>9}{'ratio':>7}  quartiles")
        for row in self.rows:
            line = (
                f"{row.name:<62}{row.peer:<42}{row.ours:>9.3f}{row.theirs:>9.3f}{row.ratio:>7.2f}"
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

    def beside(self, before: "Table | None") -> "Table":
        """This table, with rows of one of the same machine and versions that are not timed here."""
        if before is None or (before.machine, before.versions) != (self.machine, self.versions):
            return self
        timed = self.ratios()
        rest = [row for row in before.rows if (row.name, row.peer) not in timed]
        return replace(self, rows=(*self.rows, *rest))

    def said(self) -> str:
        """Versions and rounds in words."""
        named = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        rounds = sorted({row.rounds for row in self.rows})
        each = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
        return f"{named}; medians of {each} rounds"

    def page(self, text: str) -> str:
        """A page with its table, between two marks, replaced by this one."""
        rows = [
            f"| {row.name} | {row.peer} | {row.ours:.3g} | {row.theirs:.3g} "
            f"| {row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}] | {row.memory} |"
            for row in self.rows
        ]
        body = [
            f"{self.machine}; {self.said()}.",
            "",
            "| what | peer | ours, ms | peer, ms | ratio [quartiles] | memory |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
        return between(text, body)


def between(text: str, body: Sequence[str]) -> str:
    """A page with these lines between its two marks."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return "\n".join([head.rstrip(), "", BEGIN, *body, END, "", tail.lstrip("\n")])


def _machine() -> str:
    """The processor's name, its cores, and the threads that torch uses."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
