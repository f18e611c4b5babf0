"""Folders that results go to: checked before any work, locked, and written whole or not at all."""

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
    """`path` as a folder that can be written to, checked before any work.

    If the work fails, the folders made here and left empty are removed. Raises ValueError, in one
    line that names the option, where the folder can't be made or written to.
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
    """The folder for this process alone, its own left-over temporary files removed.

    A killed process loses the lock at once. Raises ValueError, in one line that names the option,
    where another process holds it.
    """
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{option}: another process is at work in {folder}; wait for it, or give another folder"
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

    Raises OSError, with the file's name, where it can't be written; what stood there is untouched.
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
    """Give an OSError that names no file (a full disk does not) the file's name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
