"""Read only regular files of a bounded size, checked before they are opened."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from sd.command_line.terminal import escaped

__all__ = ["parse_json", "path_kind", "read_bytes", "require_regular"]

DEEPEST = 50
LONGEST_INTEGER = 100
"""Limits in JSON: levels of nesting, digits of an integer (transformers writes 10^30)."""


def require_regular(path: Path | str, option: str, most: int) -> Path:
    """The path of a regular file of at most `most` bytes, not of a device, pipe or folder.

    Args:
        path: the path of the file.
        option: the flag or the kind of file, for the message.
        most: the largest number of bytes.

    Raises FileNotFoundError if there is no file, ValueError for anything else.
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
    """The kind of a path: "file", "folder", or None if there is nothing.

    Args:
        path, option: as in `require_regular`.

    Raises ValueError for devices, pipes, names that are too long, and folders without permission.
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
        path, option, most: as in `require_regular`.

    Raises as `require_regular` does.
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
        text: JSON in UTF-8.
        once: refuse objects with a repeated name.

    Raises ValueError if it is not valid JSON in UTF-8, nests more than `DEEPEST` levels or has an
    integer of more than `LONGEST_INTEGER` digits.
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
    """A JSON object without repeated names."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a repeated name")
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
    """The status of a path; None if there is nothing."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _unread(path, option, error) from error


def _unread(path: Path | str, option: str, error: Exception) -> ValueError:
    reason = getattr(error, "strerror", None) or error
    return ValueError(f"{option} {escaped(str(path))} can't be read: {reason}")
