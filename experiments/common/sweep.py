"""A sweep: independent pieces of work on an executor, here or on a cluster.

Every sweep of this project runs through `each` or `swept`. An executor is one of the standard
library's `concurrent.futures`: this module's pool of processes, or the one of a dask scheduler. A
piece of work has its seed in its name or arguments, so that results do not depend on the executor.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

__all__ = ["Done", "SweepError", "attempt", "cluster", "each", "processes", "swept"]

Unit = TypeVar("Unit")
Made = TypeVar("Made")

PATIENCE = "20s"
"""How long a scheduler may take to answer."""


class SweepError(RuntimeError):
    """A piece of work failed; the message names it."""


@dataclass(frozen=True)
class Done(Generic[Unit, Made]):
    """What came of one piece of work: its value, or the error that it raised, and its seconds."""

    name: Unit
    value: Made | None
    error: Exception | None
    seconds: float
    warnings: tuple[str, ...] = ()


def swept(
    work: Callable[[Unit], Made],
    units: Iterable[Unit],
    executor: Executor | None,
    tick: Callable[[], object] = lambda: None,
) -> list[Made]:
    """`[work(unit) for unit in units]`, on an executor, or in this process without one.

    Args:
        work: what a fresh process can import (a function of a module, or a `partial` of one).
        units: its arguments, which can be pickled.
        executor: where it runs.
        tick: called after each unit.

    Raises SweepError, with the unit's name, for the first unit that fails; where it leaves the
    executor's block, what has not begun is cancelled.
    """
    found: dict[int, Made] = {}
    for one in each(_Second(work), enumerate(units), executor):
        number, unit = one.name
        for said in one.warnings:
            warnings.warn(f"{unit}: {said}", stacklevel=2)
        if one.error is not None:
            said = f"{type(one.error).__name__}: {one.error}"
            raise SweepError(f"{unit}: {said}") from one.error
        found[number] = one.value  # type: ignore[assignment]
        tick()
    return [found[number] for number in range(len(found))]


def each(
    work: Callable[[Unit], Made],
    units: Iterable[Unit],
    executor: Executor | None,
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Done[Unit, Made]]:
    """`work(unit)` for every unit, begun in this order, given as they end, with their errors.

    Without an executor they run one after the other in this process; with one, `tick` is called
    about once a second. An error that leaves the executor's block cancels what has not begun.
    """
    if executor is None:
        yield from (attempt(work, unit) for unit in units)
        return
    waiting: dict[Future[Done[Unit, Made]], Unit] = {
        executor.submit(attempt, work, unit): unit for unit in units
    }
    while waiting:
        ended, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
        tick()
        for one in ended:
            unit = waiting.pop(one)
            error = one.exception()  # of the executor: its process was killed, or can't pickle
            if isinstance(error, Exception):
                yield Done(unit, None, error, 0.0)
            else:
                yield one.result()


def attempt(work: Callable[[Unit], Made], name: Unit) -> Done[Unit, Made]:
    """Do it here, and keep what it warns of."""
    started = time.perf_counter()
    value, failure = None, None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        try:
            value = work(name)
        except Exception as error:
            failure = error
    seconds = time.perf_counter() - started
    return Done(name, value, failure, seconds, tuple(str(one.message) for one in said))


@contextmanager
def processes(workers: int, threads: int = 1) -> Iterator[Executor]:
    """A pool of processes on this machine, with that many threads of PyTorch in each.

    If the caller stops early, the processes are ended.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, context, _prepare, (threads,)) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


@contextmanager
def cluster(scheduler: str) -> Iterator[Executor]:
    """The workers of a dask scheduler.

    Each needs this project, the same file system, and one thread (an option of `dask worker`).
    Raises ValueError if no scheduler answers, or dask is not installed.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ValueError("--scheduler needs dask: pip install 'diffusion-math[cluster]'") from error
    try:
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        said = f"wanted the address of a dask scheduler, such as 10.0.0.5:8786, got {scheduler}"
        raise ValueError(f"--scheduler: {said} ({type(error).__name__})") from error
    with client:
        executor = client.get_executor(pure=False, retries=0)
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False)  # cancels what has not begun
            raise


@dataclass(frozen=True)
class _Second(Generic[Unit, Made]):
    """The work on the second of a pair."""

    work: Callable[[Unit], Made]

    def __call__(self, pair: tuple[int, Unit]) -> Made:
        return self.work(pair[1])


def _prepare(threads: int) -> None:
    """A process of the pool: it leaves Ctrl-C and the terminal to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
