"""What an experiment hands back, and how it reaches the disk: whole files or none."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

HOLDS, FAILS, UNDECIDED, MEASURED = "holds", "does not hold", "undecided", "measured"


@dataclass(frozen=True)
class Measurement:
    """One line of `report.json`: what is claimed, what was measured, and what follows.

    `interval` is at 95% unless the claim says otherwise, None for what is exact or counted;
    `verdict` is "holds", "does not hold", "undecided" (the interval contains the claim's bound)
    or "measured" (the claim names no bound).
    """

    name: str
    claim: str
    measured: float | str
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class Figure:
    """A picture, the caption that says what to see in it, and its text for those who can't.

    `image` is a PNG or, where the name ends in .gif, an animated GIF; empty where that file is
    written already.
    """

    name: str
    image: bytes = field(repr=False)
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A small table; every cell is text already."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True)
class Result:
    """All that an experiment has to say; `parts` are paragraphs, figures and tables in order."""

    name: str
    title: str
    rows: tuple[Measurement, ...]
    parts: tuple[str | Figure | Table, ...]
    data: Mapping[str, Any]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Figure))


def at_least(low: float, high: float, bound: float) -> str:
    """The verdict on "the quantity is at least `bound`", from its interval."""
    return HOLDS if low >= bound else FAILS if high < bound else UNDECIDED


def at_most(low: float, high: float, bound: float) -> str:
    """The verdict on "the quantity is at most `bound`", from its interval."""
    return HOLDS if high <= bound else FAILS if low > bound else UNDECIDED


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write each file under a temporary name, then rename: whole, or not there.

    Nothing is renamed before everything is written. Raises ValueError where a file can't be.
    """
    temporary: list[tuple[Path, Path]] = []
    try:
        for name, content in files.items():
            target = folder / name
            partial = folder / f".{os.getpid()}-{len(temporary)}.tmp"  # short: a name may be long
            temporary.append((partial, target))
            partial.write_bytes(content)
        for partial, target in temporary:
            partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"can't write {error.filename or folder}: {reason}") from error
    finally:
        for partial, _ in temporary:
            partial.unlink(missing_ok=True)
    return [target for _, target in temporary]


def rows_json(rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The rows as plain JSON values."""
    return [asdict(row) for row in rows]


def to_json(value: Any) -> bytes:
    """Indented JSON; paths become text, dataclasses objects, what is not finite null."""
    return utf8(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def utf8(text: str) -> bytes:
    r"""The text in UTF-8; the bytes of a file's name that are none are escaped, as JSON does."""
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def percent(share: float) -> str:
    """A share as text, 0.953 -> "95.3%"."""
    return f"{100 * share:.1f}%"
