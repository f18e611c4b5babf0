"""Which paths are read at all: regular files of a bounded size, known before they are opened."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from sd.command_line.terminal import escaped

__all__ = ["parse_json", "path_kind", "read_bytes", "require_regular"]

DEEPEST = 50
LONGEST_INTEGER = 100
"""Levels of nesting and digits of an integer in JSON: transformers writes 10^30 for no limit."""


def require_regular(path: Path | str, option: str, most: int) -> Path:
    """The path, where it names a regular file of at most `most` bytes; no device, pipe or folder.

    Args:
        path: of the file.
        option: begins the message; the flag, or the kind of file.
        most: bytes.

    Raises FileNotFoundError where there is none, ValueError for anything else.
    """
    path = Path(path)
    status = _status(path, option)
    named = f"{option} {escaped(str(path))}"
    if status is None:
        raise FileNotFoundError(f"{named} is missing")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{named} can't be read: it is not a regular file")
    if status.st_size > most:
        raise ValueError(f"{named} has {status.st_size} bytes, more than {most}")
    return path


def path_kind(path: Path | str, option: str) -> str | None:
    """What a path names: "file", "folder", None for nothing; ValueError where that is not known.

    Args:
        path, option: as in `require_regular`.

    Raises ValueError for devices, pipes, names that are too long, and places one may not enter.
    """
    status = _status(Path(path), option)
    if status is None:
        return None
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    require_regular(path, option, status.st_size)
    return "file"


def read_bytes(path: Path | str, option: str, most: int) -> bytes:
    """The bytes of a file.

    Args:
        path, option, most: as in `require_regular`, which says what is raised.
    """
    try:
        with require_regular(path, option, most).open("rb") as file:
            raw = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unread(path, option, error) from error
    if len(raw) > most:  # of a file that grew, or whose size the system does not know
        raise ValueError(f"{option} {escaped(str(path))} has more than {most} bytes")
    return raw


def parse_json(text: str | bytes, once: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: in UTF-8.
        once: refuse an object in which a name stands twice.

    Raises ValueError where it is not valid JSON in UTF-8, nests more than `DEEPEST` levels or has
    an integer of more than `LONGEST_INTEGER` digits.
    """
    pairs = _once if once else None
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text, parse_int=_integer, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"JSON of more than {DEEPEST} levels")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _status(path: Path, option: str) -> os.stat_result | None:
    """What the file system says of a path; None where there is nothing."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _unread(path, option, error) from error


def _unread(path: Path | str, option: str, error: Exception) -> ValueError:
    reason = getattr(error, "strerror", None) or error
    return ValueError(f"{option} {escaped(str(path))} can't be read: {reason}")
