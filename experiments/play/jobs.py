"""Work for the page: in a thread of its own, in turns with that of other users.

Work changes what all threads share: where warnings go, matplotlib's style. So only one thread works
at a time, and hands on its turn with each report.
"""

import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias, final

from experiments.play.messages import on_page
from sd.command_line.entry import reason

__all__ = ["Failure", "Notice", "StoppedError", "Tell", "live"]

Tell: TypeAlias = Callable[[Any], None]
"""Sends a report to the page."""


class StoppedError(Exception):
    """Nobody reads the reports any more."""


@final
@dataclass(frozen=True)
class Notice:
    """A warning for the page."""

    text: str


@final
@dataclass(frozen=True)
class Failure:
    """The error that has ended the work, for the page."""

    text: str


@final
class Turns:
    """A lock that is handed on in the order in which it was asked for."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._last = self._now = 0

    def take(self) -> None:
        with self._change:
            mine, self._last = self._last, self._last + 1
            self._change.wait_for(lambda: self._now == mine)

    def give(self) -> None:
        with self._change:
            self._now += 1
            self._change.notify_all()


TURNS = Turns()


def live(work: Callable[[Tell], None]) -> Iterator[Any]:
    """The reports of `work(tell)`, each as it is told, with a `Notice` for each warning.

    A user's error is the last of them, as a `Failure`; so is a fault of the program, whose
    traceback goes to the terminal. Where the iterator is closed, the next report ends the work.
    """
    reports: SimpleQueue[Any] = SimpleQueue()
    closed, end, turn = threading.Event(), object(), ExitStack()

    def warned(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            reports.put(Notice(on_page(str(message))))

    def take() -> None:
        TURNS.take()
        turn.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = warned

    def give() -> None:
        turn.close()
        TURNS.give()

    def tell(report: Any) -> None:
        reports.put(report)
        give()
        take()
        if closed.is_set():
            raise StoppedError

    def run() -> None:
        take()
        try:
            work(tell)
        except StoppedError:
            pass
        except Exception as error:
            reports.put(Failure(_told(error)))
        finally:
            give()
            reports.put(end)

    threading.Thread(target=run, daemon=True).start()
    try:
        while (report := reports.get()) is not end:
            yield report
    finally:
        closed.set()


def _told(error: Exception) -> str:
    said = reason(error)
    if said is None:
        traceback.print_exception(error)
        return f"an internal error, {type(error).__name__}; the terminal shows where"
    return on_page(said)
