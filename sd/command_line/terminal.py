"""Safe lines for a terminal: text from files cannot control it or reorder its letters."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["escaped", "flush", "say"]

LONGEST = 5000
"""The longest line in characters; a path has at most 4096."""


def escaped(text: str) -> str:
    r"""The text with each character that can't be printed as its escape: \x1b, \u202e, \ud83d.

    These are control characters (C0 and C1, with line breaks), invisible marks of the direction of
    writing, separators other than the space, surrogates, and unassigned code points. Text longer
    than `LONGEST` ends in "...".
    """
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in shown
    )


def say(text: object, error: bool = False) -> None:
    """Write one line, escaped, to the standard output or error stream, whatever its encoding."""
    stream = sys.stderr if error else sys.stdout
    code = stream.encoding or "utf-8"
    line = escaped(str(text)).encode(code, "backslashreplace").decode(code)
    with _lenient(stream):
        stream.write(f"{line}\n")
        stream.flush()


def flush() -> None:
    """Flush the standard output."""
    with _lenient(sys.stdout):
        sys.stdout.flush()


@contextmanager
def _lenient(stream: Any) -> Iterator[None]:
    """If a stream is closed or its disk is full, warn once and discard further output.

    Output reports finished work, so a failure to print must not stop the program.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):  # ValueError: it has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        if stream is not sys.stderr:
            say(f"warning: stdout can't be written to: {error.strerror}", error=True)
