"""Work in several processes: each has its share of the cores, and none outlives this one."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

Made = TypeVar("Made")


@dataclass(frozen=True)
class Done(Generic[Made]):
    """What came of one piece of work: its value, or the error that it raised, and its seconds."""

    name: str
    value: Made | None
    error: Exception | None
    seconds: float
    warnings: tuple[str, ...] = ()


def each(
    work: Callable[[str], Made],
    names: Sequence[str],
    workers: int,
    threads: int,
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Done[Made]]:
    """`work(name)` for every name, begun in this order, given as they end.

    Args:
        work: what a fresh process can import (a function of a module).
        names: of the pieces of work.
        workers: processes at work side by side.
        threads: of PyTorch in each of them.
        tick: called about once a second.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, context, _prepare, (threads,)) as executor:
        try:
            waiting: set[Future[Done[Made]]] = {
                executor.submit(attempt, work, name) for name in names
            }
            while waiting:
                ended, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                tick()
                for one in ended:
                    yield one.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def attempt(work: Callable[[str], Made], name: str) -> Done[Made]:
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
