"""Output folders: checked before the work, locked, and with files written whole or not at all."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["locked", "output_folder", "write_file"]

LOCK = ".lock"
TEMPORARY = re.compile(r".+\.\d+\.tmp")


@contextmanager
def output_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Make `path` a folder and check that it can be written to, before the work.

    If the work fails, new folders that are still empty are removed. Raises ValueError, which names
    the option, if the folder can't be made or written to.
    """
    made: list[Path] = []
    try:
        try:
            folder = path.absolute()
            missing = [one for one in (folder, *folder.parents) if not one.exists()]
            for one in reversed(missing):
                one.mkdir()
                made.append(one)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(f"{option}: can't write to the folder {path}: {reason}") from error
        yield path
    except BaseException:
        for one in reversed(made):
            with suppress(OSError):
                one.rmdir()
        raise


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Lock the folder for this process, and remove temporary files of earlier ones.

    A killed process loses the lock at once. Raises ValueError, which names the option, if another
    process holds the lock.
    """
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{option}: another process uses {folder}; wait for it, or give another folder"
        ) from None
    try:
        for stale in folder.glob("*.tmp"):
            if TEMPORARY.fullmatch(stale.name):
                stale.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            path.unlink()
        lock.release()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a temporary name, to the disk, then renamed.

    Raises OSError, with the file's name, if it can't be written; an existing file is unchanged.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with named(path):
        try:
            temporary.write_bytes(content)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
