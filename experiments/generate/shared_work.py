"""Work that several processes share through a folder: each unit is done once, by one of them."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

Unit = TypeVar("Unit")

PAUSE = 0.1
"""Seconds between two looks at units that other processes hold."""


def claimed(folder: Path, units: Sequence[Unit], done: Callable[[Unit], bool]) -> Iterator[Unit]:
    """The units that this process is to do, each while it holds the lock of it.

    It ends when all are done, by whichever process.
    A killed process loses its lock at once, and another process takes the unit over.

    Args:
        folder: the results, visible to all processes.
        units: the same on every process.
        done: whether the results of a unit are in the folder.
    """
    left = list(enumerate(units))
    while left:
        held = []
        for number, unit in left:
            if done(unit):
                continue
            lock = FileLock(_lock(folder, number), timeout=0)
            try:
                with lock:
                    if not done(unit):
                        yield unit
            except Timeout:
                held.append((number, unit))
        left = held
        if left:
            time.sleep(PAUSE)
    for number in range(len(units)):
        with suppress(OSError):  # Windows removes no file that is open
            _lock(folder, number).unlink(missing_ok=True)


def _lock(folder: Path, number: int) -> Path:
    return folder / f".{number}.lock"


@contextmanager
def finishing() -> Iterator[Callable[[], None]]:
    """SIGTERM, which a launcher sends when another process fails, waits until a unit is done.

    Gives a function to call between units: it raises KeyboardInterrupt after a SIGTERM.
    """
    told: list[int] = []

    def check() -> None:
        if told:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield check
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)
