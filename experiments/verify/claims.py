"""The lecture's claims and the tests marked with them, read from the files without a run."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

IDS = (*(f"C{i:02d}" for i in range(1, 34)), *(f"E{i}" for i in range(1, 9)))
"""Every claim and every erratum."""

AWAITED: dict[str, str] = {}
"""What a claim still lacks beside its tests."""


@dataclass(frozen=True)
class Claim:
    """A line of `docs/claims.md`; of an erratum also what is printed, and the claim it corrects."""

    id: str
    theme: str
    text: str
    printed: str = ""
    of: str = ""


@dataclass(frozen=True)
class ClaimTest:
    """A marked test: its claim, its function, and its bound as the source writes it."""

    id: str
    function: str
    test: str
    tolerance: str
    reason: str


@dataclass(frozen=True)
class Rejection:
    """A wrong version that a claim's test rejects: where it is, and what it does wrong."""

    claim: str
    name: str
    what: str
    path: str
    line: int


def claims(root: Path = ROOT) -> list[Claim]:
    """The claims and errata in the order of `docs/claims.md`; ValueError if it isn't there."""
    path = root / "docs" / "claims.md"
    if not path.is_file():
        raise ValueError(f"docs/claims.md: wanted a checkout of the project, got {root}")
    theme, found = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            theme = line[3:]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"C\d\d", cells[0]) and len(cells) == 2:
            found.append(Claim(cells[0], theme, cells[1]))
        elif re.fullmatch(r"E\d", cells[0]) and len(cells) == 4:
            found.append(Claim(cells[0], theme, cells[3], cells[2], cells[1]))
    return found


def claim_tests(root: Path = ROOT) -> list[ClaimTest]:
    """All marked tests, by id and then by place.

    Raises ValueError where a marker has other than two strings, or where its test has other than
    one `measured(value, tolerance, reason)` with the reason in plain words.
    """
    files = sorted((root / "tests").rglob("test_*.py"))
    found = [
        case
        for path in files
        for case in _marked(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    ]
    return sorted(found, key=lambda case: (case.id, case.test))


@cache
def _marked(name: str, text: str) -> list[ClaimTest]:
    """The marked tests of one file."""
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and (marks := list(_marks(node, name))):
            bound = _bound(node, name)
            found += [ClaimTest(*mark, f"{name}::{node.name}", *bound) for mark in marks]
    return found


def _marks(node: ast.FunctionDef, path: str) -> Iterator[tuple[str, str]]:
    for one in node.decorator_list:
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "pytest.mark.claim":
            words = [arg.value for arg in one.args if isinstance(arg, ast.Constant)]
            if len(words) != 2 or one.keywords:
                raise ValueError(f"{path}::{node.name}: wanted claim(id, function) as two strings")
            yield str(words[0]), str(words[1])


def _bound(node: ast.FunctionDef, path: str) -> tuple[str, str]:
    calls = [
        one.args
        for one in ast.walk(node)
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "measured"
    ]
    if len(calls) != 1 or len(calls[0]) != 3 or not isinstance(calls[0][2], ast.Constant):
        wanted = "one measured(value, tolerance, 'reason')"
        raise ValueError(f"{path}::{node.name}: wanted {wanted}, got {len(calls)} calls")
    return ast.unparse(calls[0][1]), str(calls[0][2].value)


def rejections(root: Path = ROOT) -> list[Rejection]:
    """The wrong versions of `tests/claims`, in the order of their files, as `@wrong` enters them.

    Raises ValueError where one has no docstring, whose first sentence says what it does wrong.
    """
    found = []
    for path in sorted((root / "tests" / "claims").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            # Decorators apply from the lowest up.
            for one in reversed(node.decorator_list):
                if isinstance(one, ast.Call) and ast.unparse(one.func) == "wrong":
                    what = ast.get_docstring(node)
                    if what is None:
                        raise ValueError(f"{path.name}: wanted a docstring, {node.name} has none")
                    claim = ast.literal_eval(one.args[0])
                    where = path.relative_to(root).as_posix(), node.lineno
                    found.append(Rejection(claim, node.name, " ".join(what.split()), *where))
    return found


def place(name: str, root: Path = ROOT) -> tuple[str, int] | None:
    """File and line of `tests/file.py::test` or of `package.module.name`, if it is there."""
    if "::" in name:
        path, _, inner = name.partition("::")
        parts = [inner]
    else:
        parts = name.split(".")
        while parts and not (root / "/".join(parts)).with_suffix(".py").is_file():
            parts.pop()
        path, parts = "/".join(parts) + ".py", name.split(".")[len(parts) :]
    if not parts or not (root / path).is_file():
        return None
    line = _lines((root / path).read_text(encoding="utf-8")).get(".".join(parts))
    return None if line is None else (path, line)


@cache
def _lines(text: str) -> dict[str, int]:
    """Where the functions and classes of a module begin, and those within them."""
    found: dict[str, int] = {}

    def enter(body: list[ast.stmt], before: str) -> None:
        for one in body:
            if isinstance(one, ast.FunctionDef | ast.ClassDef):
                name = before + one.name
                if name not in found:
                    found[name] = one.lineno
                    enter(one.body, f"{name}.")

    enter(ast.parse(text).body, "")
    return found
