"""Lines for a terminal: text that comes from a file can't command it or rearrange its letters."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["escaped", "flush", "say"]

LONGEST = 5000
"""Characters of a line; a path has at most 4096."""


def escaped(text: str) -> str:
    r"""The text with each character that can't be printed as its escape: \x1b, \u202e, \ud83d.

    These are the control characters (C0 and C1, line breaks too), the invisible marks that change
    the direction of writing, separators but the space, halves of surrogate pairs, and code points
    of no character. What is longer than `LONGEST` ends in "...".
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
    """Write what waits for the standard output."""
    with _lenient(sys.stdout):
        sys.stdout.flush()


@contextmanager
def _lenient(stream: Any) -> Iterator[None]:
    """Where a stream is closed or its disk full, say so once, and send the rest of it nowhere.

    What is printed tells of work that is done; it must not undo the work or stop what is to come.
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
