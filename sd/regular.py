"""Which paths are read at all: regular files of a bounded size, known before they are opened."""

import stat
from pathlib import Path

__all__ = ["regular"]


def regular(path: Path | str, option: str, most: int) -> Path:
    """The path, where it names a regular file of at most `most` bytes; no device, pipe or folder.

    Args:
        path: of the file.
        option: begins the message; the flag, or the kind of file.
        most: bytes.

    Raises FileNotFoundError where there is none, ValueError for anything else.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"{option} {path} is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{option} {path} can't be read: {reason}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{option} {path} can't be read: it is not a regular file")
    if status.st_size > most:
        raise ValueError(f"{option} {path} has {status.st_size} bytes, more than {most}")
    return path
