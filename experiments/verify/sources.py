"""What a test runs: the project's files that it imports, and a digest that changes with their code.

Comments, docstrings and layout do not count: words may change without a figure's becoming stale.
"""

import ast
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

PACKAGES = ("diffusion_math", "sd", "experiments", "tests")


def imported(files: Iterable[Path], root: Path) -> list[Path]:
    """The files, and every file of the project that they import as modules, directly or not.

    Imports inside functions are left out: they are made where a command is run.
    """
    found: dict[Path, None] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [one for name in _names(path) for one in _modules(name, root)]
    return sorted(found)


def digest(files: Iterable[Path], root: Path) -> str:
    """The code of Python files, by path, and the bytes of others: 16 hexadecimal digits."""
    whole = sha256()
    for path in sorted(files):
        whole.update(path.relative_to(root).as_posix().encode())
        whole.update(_code(path) if path.suffix == ".py" else path.read_bytes())
    return whole.hexdigest()[:16]


def _code(path: Path) -> bytes:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _text(one)]  # type: ignore[attr-defined]
    return ast.dump(tree).encode()


def _text(node: ast.AST) -> bool:
    """A docstring, of whatever it may be."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _names(path: Path) -> Iterator[str]:
    """Dotted names in a module's own import statements."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules(name: str, root: Path) -> Iterator[Path]:
    """The module of a dotted name and the packages it lies in, where they are the project's."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return
    for end in range(1, len(parts) + 1):
        where = root.joinpath(*parts[:end])
        yield from (
            one for one in (where.with_suffix(".py"), where / "__init__.py") if one.is_file()
        )
