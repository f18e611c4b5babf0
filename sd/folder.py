"""Folders that results go to, checked before any work."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["output_folder"]


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
