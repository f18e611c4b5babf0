"""What a case may not do: start a program, open a connection, write outside of its folder.

Each is noted and prevented, so that a fault in the code, or in a case, does no harm.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
}
CONNECTIONS = {"socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"}
CHANGES = {
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.link": (1,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
}
"""Events that change files, and which of their arguments are paths."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _State:
    """The folder that a running case may write to, and what it did beside; one case at a time."""

    folder: Path | None = None
    seen: list[str]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what no case may do. An audit hook stays for good: between the cases it is idle."""
    if _State.folder is None:
        return
    if event in PROGRAMS or event in CONNECTIONS:
        _forbid(f"{event} {str(arguments)[:200]}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        _inside(event, arguments[0])
    elif event in CHANGES:
        for place in CHANGES[event]:
            _inside(event, arguments[place])


def _inside(event: str, path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a descriptor that was opened before
    where, name = _State.folder, os.fsdecode(path)
    if where is None or name == os.devnull or "__pycache__" in name:
        return
    if not Path(os.path.realpath(name)).is_relative_to(os.path.realpath(where)):
        _forbid(f"{event} {name[:200]}")


def _forbid(what: str) -> None:
    _State.seen.append(what)
    raise PermissionError(f"no case may do this: {what}")


sys.addaudithook(_hook)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """What is done within that is not allowed, `folder` being where files may change."""
    _State.seen, _State.folder = [], folder
    try:
        yield _State.seen
    finally:
        _State.folder = None
