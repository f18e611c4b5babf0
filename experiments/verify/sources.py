"""What a test runs: the project's files that it imports, and a digest that changes with their code.

Comments, docstrings and layout do not count: words may change without a figure's becoming stale.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

PACKAGES = ("diffusion_math", "sd", "experiments", "tests")


def imported(files: Iterable[Path], root: Path) -> list[Path]:
    """The files, and every file of the project that they import as modules, directly or not.

    Imports inside functions are left out: they are made where a command is run.
    """
    waiting, found, known = set(files), set[Path](), set[str]()
    while waiting:
        path = waiting.pop()
        found.add(path)
        names = set(_names(path.read_text(encoding="utf-8"))) - known
        known |= names
        waiting |= {one for name in names for one in _modules(name, root)} - found
    return sorted(found)


def digest(files: Iterable[Path], root: Path) -> str:
    """The code of Python files, by path, and the bytes of others: 16 hexadecimal digits."""
    whole = sha256()
    for path in sorted(files):
        whole.update(path.relative_to(root).as_posix().encode())
        if path.suffix == ".py":
            whole.update(_code(path.read_text(encoding="utf-8")))
        else:
            whole.update(path.read_bytes())
    return whole.hexdigest()[:16]


@cache
def _code(text: str) -> bytes:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not is_text(one)]  # type: ignore[attr-defined]
    return ast.dump(tree).encode()


def is_text(node: object) -> bool:
    """Whether a node is a docstring, of whatever it may be."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@cache
def _names(text: str) -> tuple[str, ...]:
    """Dotted names in a module's own import statements."""
    names: list[str] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _modules(name: str, root: Path) -> Iterator[Path]:
    """The module of a dotted name and the packages it lies in, where they are the project's."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return
    for end in range(1, len(parts) + 1):
        where = root.joinpath(*parts[:end])
        yield from filter(Path.is_file, (where.with_suffix(".py"), where / "__init__.py"))
