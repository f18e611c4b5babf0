"""A mistake in the training: a function of it with other source text, and the test that fails."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        name: short, and unique.
        module: where the function is.
        function: its name there; "Class.method" for a method.
        right: a piece of its source, which occurs once.
        wrong: what stands in its place.
        check: a test of this suite that takes a folder, or nothing.
    """

    name: str
    module: ModuleType
    function: str
    right: str
    wrong: str
    check: Callable[..., None]

    @contextmanager
    def made(self) -> Iterator[None]:
        """The function with the mistake in it, in every module that has it by name."""
        owner: Any = self.module
        *classes, name = self.function.split(".")
        for one in classes:
            owner = getattr(owner, one)
        function = inspect.unwrap(getattr(owner, name))
        source = inspect.cleandoc("\n" + inspect.getsource(function))
        assert source.count(self.right) == 1, f"{self.function}: {self.right!r} is not there once"
        scope: dict[str, Any] = {}
        code = compile(source.replace(self.right, self.wrong), f"<{self.name}>", "exec")
        exec(code, function.__globals__, scope)
        shipped = getattr(owner, name)
        users = [one for key, one in sys.modules.items() if key.startswith(("sd.", "tests."))]
        with pytest.MonkeyPatch.context() as patch:
            for user in (owner, *users):
                if getattr(user, name, None) is shipped:
                    patch.setattr(user, name, scope[name])
            yield

    def run(self, folder: Path) -> None:
        """The test, in a folder of its own."""
        takes = inspect.signature(self.check).parameters
        folder.mkdir()
        self.check(**({"tmp_path": folder} if "tmp_path" in takes else {}))
