"""Messages of the page: flags by the names of its fields, text that cannot be markup."""

import html
import re
from collections.abc import Iterable

from sd.command_line.terminal import escaped

__all__ = ["error", "note", "on_page", "warning"]

FLAG = re.compile(r"(?<!`)--([a-z0-9]+(?:-[a-z0-9]+)*)")


def on_page(text: str) -> str:
    """The message with each flag by the name of its field: `--guidance-scale` is guidance scale.

    A flag in backticks stays: it is one of the command line.
    """
    return FLAG.sub(lambda found: found[1].removeprefix("no-").replace("-", " "), text)


def error(text: str) -> str:
    """An error as HTML."""
    return f'<div class="message error" role="alert">{_safe(text)}</div>'


def warning(texts: Iterable[str]) -> str:
    """Warnings as HTML, each once."""
    return "".join(
        f'<div class="message warning" role="status">{_safe(one)}</div>'
        for one in dict.fromkeys(texts)
    )


def note(text: str) -> str:
    """A line on the state of the work as HTML."""
    return f'<div class="message note" role="status">{_safe(text)}</div>'


def _safe(text: str) -> str:
    return html.escape(escaped(text))
