"""The functions that are mutated, with a digest of each one's code; what is stale in the ledger."""

import ast
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from experiments.verify.mutation import SCOPE, Entry
from experiments.verify.sources import is_text


def files(package: str, root: Path) -> list[Path]:
    """The package's files that are mutated."""
    return sorted(path for pattern in SCOPE[package] for path in root.glob(pattern))


def functions(path: Path, root: Path) -> dict[str, str]:
    """A digest of each function and method of a module, by its dotted name within the package.

    Comments, docstrings and layout do not count, nor does the module that a function lies in.
    """
    module = ".".join(path.relative_to(root).with_suffix("").parts[1:])
    return {f"{module}.{name}": digest(node) for name, node in named(path.read_text("utf-8"))}


def named(source: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a module, by their names; what they define within is theirs."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, ast.FunctionDef))
            yield from ((f"{node.name}.{one.name}", one) for one in inner)


def digest(function: ast.FunctionDef) -> str:
    """12 hexadecimal digits of a function's code: the same under every version of Python.

    `@checked` does not count: it refuses arguments of a wrong type before the function's own code
    runs, which is what mutants change.
    """
    return sha256(repr(_form(function)).encode()).hexdigest()[:12]


def _form(node: object) -> object:
    if isinstance(node, list):
        return [_form(one) for one in node if not (is_text(one) or is_checked(one))]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _form(value)) for name, value in ast.iter_fields(node))
    return type(node).__name__, [pair for pair in fields if pair[1] not in (None, [])]


def is_checked(node: object) -> bool:
    """Whether it is the decorator `@checked` of `diffusion_math.checks`."""
    return isinstance(node, ast.Name) and node.id == "checked"


def sources(root: Path) -> dict[str, dict[str, str]]:
    """The digests of all functions in scope, by package and name."""
    return {
        package: {
            name: said
            for path in files(package, root)
            for name, said in functions(path, root).items()
        }
        for package in SCOPE
    }


def stale(known: Mapping[str, Mapping[str, Entry]], root: Path) -> list[str]:
    """Functions that the ledger does not know as they are, and entries of functions that are gone.

    A function that moved to another module of its package is known by its code.
    """
    said = []
    for package, now in sources(root).items():
        before = known.get(package, {})
        have = {(bare(name), entry["digest"]) for name, entry in before.items()}
        want = {(bare(name), code) for name, code in now.items()}
        said += [f"{package}: {name}: not as it was" for name, _ in sorted(want - have)]
        said += [f"{package}: {name}: gone" for name, _ in sorted(have - want)]
    return said


def bare(name: str) -> str:
    """A function's name, with its class: module names are in lower case."""
    module, _, last = name.rpartition(".")
    owner = module.rpartition(".")[2]
    return f"{owner}.{last}" if owner.lstrip("_")[:1].isupper() else last
