"""Work for the page: reports in order, users in turns, errors and warnings as messages."""

import threading
import warnings
from typing import Any

import pytest

from experiments.play import messages
from experiments.play.jobs import Failure, Notice, Tell, live


def test_reports_come_in_order_and_warnings_with_their_own_work() -> None:
    """Two users at once: each has its own warnings, and neither waits for the other's end."""
    order: list[str] = []
    both = threading.Barrier(2, timeout=60)

    def work(name: str) -> Any:
        def told(tell: Tell) -> None:
            tell("ready")
            for k in range(5):
                warnings.warn(f"prompt: {name} {k}", UserWarning, stacklevel=1)
                order.append(name)
                tell(k)

        return told

    def read(name: str, into: list[Any]) -> None:
        reports = live(work(name))
        into.append(next(reports))
        both.wait()
        into.extend(reports)

    found: dict[str, list[Any]] = {"a": [], "b": []}
    before = warnings.showwarning
    threads = [threading.Thread(target=read, args=item) for item in found.items()]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    for name, reports in found.items():
        pairs = [one for k in range(5) for one in (Notice(f"prompt: {name} {k}"), k)]
        assert reports == ["ready", *pairs]
    assert sorted(order) == ["a"] * 5 + ["b"] * 5
    assert warnings.showwarning is before


def test_a_turn_is_handed_on_with_each_report() -> None:
    """A second user's work begins before the first one's has ended."""

    def many(tell: Tell) -> None:
        for k in range(1000):
            tell(k)

    first = live(many)
    next(first)
    second = live(lambda tell: tell("second"))
    assert next(second) == "second"
    first.close()
    assert list(second) == []


def test_errors_are_the_last_report() -> None:
    def wrong(tell: Tell) -> None:
        tell("begun")
        raise ValueError("--guidance-scale: wanted more\n<b>")

    begun, failure = live(wrong)
    assert begun == "begun" and failure == Failure("guidance scale: wanted more <b>")
    shown = messages.error(failure.text)
    assert "&lt;b&gt;" in shown and "<b>" not in shown and 'role="alert"' in shown


def test_a_fault_of_the_program_has_its_traceback_in_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(tell: Tell) -> None:
        raise TypeError("inner secret")

    (failure,) = live(broken)
    assert isinstance(failure, Failure) and "TypeError" in failure.text
    assert "inner secret" not in failure.text
    assert "inner secret" in capsys.readouterr().err


def test_work_that_nobody_reads_ends() -> None:
    ended = threading.Event()

    def endless(tell: Tell) -> None:
        try:
            while True:
                tell(0)
        finally:
            ended.set()

    reports = live(endless)
    next(reports)
    reports.close()
    assert ended.wait(60)


def test_flags_in_backticks_stay() -> None:
    assert messages.on_page("--steps: see `--run-pasted-code`") == "steps: see `--run-pasted-code`"
