"""The ledger of mutation testing, `docs/mutants.json`: what was mutated, and what no test noticed.

`make mutants` writes it (tests/mutants.py). An entry is a function's: a digest of its code, the
commit at which its mutants were run, their number, those that no test noticed, each with the reason
why, and how many are left to run. A function whose code differs from its digest is stale.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from experiments.verify.sources import is_text

SCOPE: Mapping[str, tuple[str, ...]] = {
    "diffusion_math": ("diffusion_math/**/*.py",),
    "sd": (
        "sd/text/conditioning.py",
        "sd/pipeline.py",
        "sd/text/prompt.py",
        "sd/img2img.py",
        "sd/inpaint.py",
        "sd/control.py",
        "sd/train/*.py",
    ),
    "experiments": (
        "experiments/errata/erratum.py",
        "experiments/likelihood/measure.py",
        "experiments/common/statistics.py",
        "experiments/common/pearson.py",
        "experiments/common/quadrature.py",
        "experiments/tuned/outcome.py",
    ),
}
"""The files that are mutated."""

GAP = "gap: "
"""How the reason begins of a mutant that a test could tell, and none does yet."""

Entry = dict[str, Any]
Ledger = dict[str, dict[str, Entry]]


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


def ledger(root: Path) -> dict[str, Any]:
    """What `docs/mutants.json` holds: `tool`, and `packages` of functions' entries."""
    return json.loads((root / "docs" / "mutants.json").read_text("utf-8"))  # type: ignore[no-any-return]


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


def lines(root: Path) -> list[str]:
    """The score as blocks of Markdown, where there is a ledger."""
    if not (root / "docs" / "mutants.json").is_file():
        return ["Mutation score: not measured yet."]
    known = ledger(root)
    table = ["| files | mutants | not run | killed, of those run | alive | gaps | commits |"]
    table += ["| --- " * 7 + "|"]
    for package, entries in known["packages"].items():
        total, alive, left = counts(entries)
        whole = (entry for entry in entries.values() if not entry["left"])
        reasons = (one["reason"] for entry in whole for one in entry["survivors"])
        gaps = sum(reason.startswith(GAP) for reason in reasons)
        run = total - left
        share = f" ({100 * (run - alive) / run:.1f}%)" if run else ""
        scope = ", ".join(f"`{pattern}`" for pattern in SCOPE[package])
        commits = ", ".join(sorted({f"`{entry['commit']}`" for entry in entries.values()}))
        row = f"{total} | {left} | {run - alive} of {run}{share} | {alive} | {gaps}"
        table.append(f"| {scope} | {row} | {commits} |")
    return [
        f"Mutation score by {known['tool']}, of the functions as they are today: those at a commit "
        "were run there and have not changed since.",
        "\n".join(table),
        "What is alive, and why, is in [mutants.json](mutants.json), function by function; gaps "
        "are those of them that a test could tell, and none does yet. Mutants are not run where a "
        "function has changed since, or was never run.",
    ]


def counts(entries: Mapping[str, Entry]) -> tuple[int, int, int]:
    """Mutants, those that no test noticed, those not run: all of a function of which some are not.

    What is killed first would make a score of parts of functions too good.
    """
    total = sum(entry["total"] for entry in entries.values())
    alive = sum(len(entry["survivors"]) for entry in entries.values() if not entry["left"])
    return total, alive, sum(entry["total"] for entry in entries.values() if entry["left"])
