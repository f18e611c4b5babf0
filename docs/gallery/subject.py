"""What is computed, right code for it, and lines of wrong code.

A wrong line, or several with a semicolon between, takes the place of the right line that assigns
the same name, or comes before them all.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from diffusion_math import testing
from diffusion_math.testing import assertions
from diffusion_math.testing.mistakes.diagnosis import compare as compare_all

Names = dict[str, Any]
Program = Callable[..., Names]


@dataclass(frozen=True)
class Subject:
    """What is computed, the assertion that checks it, right code, and lines of wrong code."""

    title: str
    assertion: str
    about: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    check: Callable[[Program], None]


def program(right: tuple[str, ...], wrong: str | None = None) -> Program:
    """The right lines as a function of names to names, with a wrong line in its place."""
    lines = list(right)
    for one in wrong.split("; ") if wrong else ():
        target = one.split(" = ")[0] + " = "
        places = [k for k, line in enumerate(lines) if line.startswith(target)]
        if places:
            lines[places[0]] = one
        else:
            lines.insert(0, one)
    code = compile("\n".join(lines), "gallery", "exec")

    def run(**names: Any) -> Names:
        scope = {"torch": torch, "F": F, "log": torch.log, "sqrt": torch.sqrt, **names}
        exec(code, scope)
        return scope

    return run


def diagnosis(subject: Subject, wrong: str) -> testing.Mistake:
    """What the assertion calls a line of wrong code."""
    try:
        subject.check(program(subject.right, wrong))
    except testing.MistakeError as error:
        if len(error.mistakes) != 1:
            raise ValueError(f"{subject.title}: {wrong}: wanted one mistake, got {error}") from None
        return error.mistakes[0]
    raise ValueError(f"{subject.title}: {wrong}: wanted a mistake, got none")


@contextmanager
def recorded() -> Iterator[set[str]]:
    """Within, the names of all hand-made mistakes that assertions compare with."""
    names: set[str] = set()

    def compare(*arguments: Any, known: Any = (), **options: Any) -> None:
        known = list(known)
        names.update(one.name for one in known)
        compare_all(*arguments, known=known, **options)

    with ExitStack() as patches:
        for one in vars(assertions).values():
            if hasattr(one, "compare"):
                patches.enter_context(mock.patch.object(one, "compare", compare))
        yield names
