"""Entry points of command lines: user errors become one line on stderr and an exit code.

A program parses its flags with `parsed` and does its work inside `guarded`, as `sd.train` and
`experiments` do. An error of the program itself keeps its traceback.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sd.command_line.flags import own
from sd.command_line.spelling import spelled
from sd.command_line.terminal import flush, say

__all__ = ["EXTRAS", "INTERRUPTED", "WRONG", "guarded", "line", "parsed", "reason"]

Kind = TypeVar("Kind")

WRONG, INTERRUPTED = 2, 130
"""The exit codes of user errors and of Ctrl-C."""

EXTRAS = {
    "accelerate": "train",
    "blackjax": "bench",
    "diffusers": "audit",
    "einops": "audit",
    "gradio": "play",
    "jax": "bench",
    "markdown": "docs",
    "nncf": "openvino-int8",
    "openvino": "openvino",
    "sklearn": "digits",
    "sympy": "docs",
    "tensorboard": "train",
    "torchdiffeq": "audit",
    "torchsde": "audit",
}
"""The extra of this distribution that installs each optional package, by its import name."""


def line(text: object) -> str:
    """A message on one line."""
    return " ".join(str(text).split())


def reason(error: BaseException) -> str | None:
    """The message of a user error on one line; None for a fault of the program itself.

    User errors are ValueError (input), FloatingPointError (values that are not finite), OSError
    (files: missing, not permitted, no space left), a missing package of `EXTRAS`, and lack of
    memory.
    """
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return None
        extra = f"pip install 'diffusion-math[{EXTRAS[package]}]'"
        return f"the package {package} is not installed: {extra}"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return line(f"{where}{error.strerror}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return line(f"there is not enough memory: {error}").rstrip(": ")
    if isinstance(error, ValueError | FloatingPointError | OSError):
        return line(error)
    return None


def guarded(work: Callable[[], int | None], interrupted: str = "nothing was written") -> int:
    """Do the work; the exit code is its own, `WRONG` for a user error, `INTERRUPTED` for Ctrl-C.

    Args:
        work: the work, which returns its exit code, None for 0; its warnings go to stderr, one
            line each.
        interrupted: what Ctrl-C leaves behind, if the exception does not say so.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            code = work()
        flush()  # what the parser's --help has written
    except KeyboardInterrupt as stop:
        say(f"interrupted; {line(stop) or interrupted}", error=True)
        return INTERRUPTED
    except Exception as error:
        said = reason(error)
        if said is None:
            raise
        say(f"error: {said}", error=True)
        return WRONG
    return code or 0


def parsed(kind: type[Kind], program: str, flags: Sequence[str], *markers: Any) -> Kind | None:
    """The configuration of the flags, or None after --help. Raises ValueError for wrong flags.

    Args:
        kind: a dataclass, whose fields are the flags.
        program: the beginning of the command line, such as "python -m sd.train".
        flags: the words after it.
        markers: markers of `tyro.conf`.
    """
    import tyro

    spelled(kind, flags)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(kind, args=list(flags), prog=program, config=markers)
    except SystemExit as stop:
        if stop.code in (0, None):
            return None
        raise own(stop) or ValueError(f"wrong flags (see {program} --help)") from None


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {line(message)}", error=True)
