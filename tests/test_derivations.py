"""The pages of docs/derivations and the docstrings that cite them hold together.

Every check is a function of a project's root that returns what is wrong, so that each is also run
on a small project that breaks it.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.links import broken
from tests.support.small_project import lay

ROOT = Path(__file__).resolve().parents[1]
PLAIN = {  # no mathematics
    "__init__", "_kept", "_made_on", "_memo", "checks", "diffusers_scheduler", "k_diffusion",
    "pulled", "registry", "step",
}  # fmt: skip
APART = {"README", "errata"}  # the index, and the page of errata, which derives for no module
CLAIMS = {f"C{number:02d}" for number in range(2, 30)}  # those of the mathematics
UNCITED = {
    "__init__": "an example of use",
    "toy.Density": "a protocol: each density cites its own",
    "toy.Density.posterior_mean": "a protocol: each density cites its own",
    "variance.constant_variance": "v = value: nothing to derive",
    "grid.Grid": "a protocol: `start = None` is a default",
    "langevin.chain": "`(end,) = ...` is code",
    "schedule.Schedule.T": "`t = T` is a name",
    "schedule.Schedule.t_max": "`alpha_T = 0` is a condition",
    "schedule.Schedule.log_snr": "the definition, which the module cites",
}
TAG = re.compile(r"\\tag\{([\w\\]+)\.(\d+)\}")
REFERENCE = re.compile(r"\(([a-z_]+)\.(\d+)\)")
CITED = re.compile(r"Derivation: (\([a-z_]+\.\d+\)(?:, \([a-z_]+\.\d+\))*)\.")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns):")
ENCLOSED = re.compile(r"(?<![^\s(])\$[^$]+\$(?![^\s.,;:)])")
# What a Markdown renderer may take for emphasis, an escape or a line's end of its own.
FRAGILE = re.compile(r"\\[^A-Za-z]|(?<![A-Za-z0-9\\])_|\*|(?<!\\)\\(?:def|newcommand|operatorname)")


def modules(root: Path) -> list[Path]:
    """The modules of the mathematics: what tests samplers derives nothing."""
    found = sorted((root / "diffusion_math").rglob("*.py"))
    return [path for path in found if "testing" not in path.relative_to(root).parts]


def pages(root: Path) -> dict[str, str]:
    """The text of every page of a module."""
    found = sorted((root / "docs" / "derivations").glob("*.md"))
    return {path.stem: path.read_text(encoding="utf-8") for path in found if path.stem not in APART}


def tags(root: Path) -> dict[str, list[tuple[str, int]]]:
    """Each page's numbers, (name, number), in their order."""
    return {
        page: [(name.replace("\\_", "_"), int(number)) for name, number in TAG.findall(text)]
        for page, text in pages(root).items()
    }


def docstrings(root: Path) -> Iterator[tuple[str, str, bool]]:
    """(name, text, public) of everything in diffusion_math that has a docstring."""

    def inside(name: str, node: ast.AST, public: bool) -> Iterator[tuple[str, str, bool]]:
        assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        text = ast.get_docstring(node)
        if text is not None:
            yield name, text, public
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                yield from inside(
                    f"{name}.{child.name}", child, public and not child.name.startswith("_")
                )

    for path in modules(root):
        yield from inside(path.stem, ast.parse(path.read_text(encoding="utf-8")), True)


def formulas(text: str) -> list[str]:
    """The lines with an equation or an assignment, outside lists of arguments and examples."""
    found, listing = [], False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            listing = SECTION.fullmatch(line) is not None or line.startswith((">>> ", "... "))
        if not listing and (" = " in line or " <- " in line):
            found.append(line.strip())
    return found


def mathematics(text: str) -> Iterator[tuple[str, bool]]:
    """(formula, displayed) for all formulas of a page; code is left out."""
    text = re.sub(r"`[^`\n]*`", "", text)
    parts = re.split(r"^\$\$$", text, flags=re.M)
    for place, part in enumerate(parts):
        if place % 2:
            yield part, True
        else:
            yield from ((inline, False) for inline in re.findall(r"\$([^$]*)\$", part))


def gaps(root: Path) -> list[str]:
    """Pages whose numbers are not page.1, page.2, ... in order."""
    return [
        f"{page}: {found}"
        for page, found in tags(root).items()
        if found != [(page, number) for number in range(1, 1 + len(found))] or not found
    ]


def dangling(root: Path) -> list[str]:
    """Numbers that a docstring cites, or a page refers to, and no page has."""
    there = {tag for found in tags(root).values() for tag in found}
    names = {*pages(root), *(path.stem for path in modules(root))}
    texts = [(name, text) for name, text, _ in docstrings(root)]
    texts += [(f"{page}.md", text) for page, text in pages(root).items()]
    return [
        f"{name}: ({page}.{number})"
        for name, text in texts
        for page, number in REFERENCE.findall(text)
        if page in names and (page, int(number)) not in there
    ]


def irregular(root: Path) -> list[str]:
    """Numbers in docstrings outside of a `Derivation: (page.1), (page.2).`"""
    names = set(pages(root))
    return [
        f"{name}: ({page}.{number})"
        for name, text, _ in docstrings(root)
        for page, number in REFERENCE.findall(CITED.sub("", text))
        if page in names
    ]


def uncited(root: Path, excepted: dict[str, str]) -> list[str]:
    """Public docstrings with a formula and no number; exceptions that are none."""
    bare = {
        name: found[0]
        for name, text, public in docstrings(root)
        if public and (found := formulas(text)) and not CITED.search(text)
    }
    missing = [f"{name}: {line}" for name, line in bare.items() if name not in excepted]
    return missing + [f"{name}: no exception" for name in excepted if name not in bare]


def homeless(root: Path) -> list[str]:
    """Modules without a page, pages without a module, pages that name another's module."""
    stems = {path.stem for path in modules(root)} - PLAIN
    wrong: list[str] = []
    owner: dict[str, str] = {}
    for page, text in pages(root).items():
        own = re.findall(r"\]\(\.\./\.\./diffusion_math/(?:\w+/)?(\w+)\.py\)", text)
        if page not in own:
            wrong.append(f"{page}: no module of its name")
        if not re.search(rf"/tests/diffusion_math/(?:\w+/)?test_{page}\.py\)", text):
            wrong.append(f"{page}: no link to its tests")
        wrong += [
            f"{module}: on {owner[module]} and {page}"
            for module in own
            if owner.setdefault(module, page) != page
        ]
    return wrong + [f"{module}: no page" for module in sorted(stems - set(owner))]


def broken_links(root: Path) -> list[str]:
    """Relative links of all pages, the index and the errata included, that lead nowhere."""
    found = sorted((root / "docs" / "derivations").glob("*.md"))
    return [f"{path.name}: {target}" for path in found for target in broken(path)]


def claimed(text: str) -> set[str]:
    """The claims that the head of a page names."""
    head = re.search(r"^Claims:(.*?)Errata:", text, flags=re.M | re.S)
    return set(re.findall(r"\bC\d\d\b", head[1])) if head else set()


def unclaimed(root: Path, claims: set[str]) -> list[str]:
    """Claims that no page names, and names of claims that there are not."""
    known = set(re.findall(r"\bC\d\d\b", (root / "docs" / "claims.md").read_text(encoding="utf-8")))
    named = {claim for text in pages(root).values() for claim in claimed(text)}
    return sorted(claims - named) + sorted(f"{claim}: unknown" for claim in named - known)


def unindexed(root: Path) -> list[str]:
    """Pages that the index does not link, or whose claims it has otherwise."""
    index = (root / "docs" / "derivations" / "README.md").read_text(encoding="utf-8")
    wrong = [] if "](errata.md)" in index else ["errata: not linked"]
    for page, text in pages(root).items():
        row = re.search(rf"^\| \[.*?\]\({page}\.md\) \|.*$", index, flags=re.M)
        if row is None:
            wrong.append(f"{page}: not linked")
        elif set(re.findall(r"\bC\d\d\b", row[0])) != claimed(text):
            wrong.append(f"{page}: other claims")
    return wrong


def unportable(root: Path) -> list[str]:
    """Formulas that GitHub, or another reader of Markdown, may render as something else."""
    wrong = []
    for page, text in pages(root).items():
        for formula, displayed in mathematics(text):
            bare = TAG.sub("", formula)
            if bare.count("{") != bare.count("}") or FRAGILE.search(bare):
                wrong.append(f"{page}: {formula.strip()}")
            if displayed and (len(TAG.findall(formula)) != 1 or "\n" in formula.strip()):
                wrong.append(f"{page}: not one numbered line: {formula.strip()}")
            if not displayed and formula != formula.strip():
                wrong.append(f"{page}: a space inside the dollars: {formula}")
        prose = re.sub(r"`[^`\n]*`|^\$\$$.*?^\$\$$", "", text, flags=re.M | re.S)
        loose = [line for line in ENCLOSED.sub("", prose).splitlines() if "$" in line]
        wrong += [f"{page}: $ next to a letter: {line}" for line in loose]
    return wrong


CHECKS: dict[str, Callable[[Path], list[str]]] = {
    "gaps": gaps,
    "dangling": dangling,
    "irregular": irregular,
    "uncited": lambda root: uncited(root, UNCITED),
    "homeless": homeless,
    "broken_links": broken_links,
    "unclaimed": lambda root: unclaimed(root, CLAIMS),
    "unindexed": unindexed,
    "unportable": unportable,
}


@pytest.mark.parametrize("check", CHECKS)
def test_derivations(check: str) -> None:
    assert CHECKS[check](ROOT) == []


BROKEN = r"""# a
Code: [a](../../diffusion_math/a.py), [x](../../diffusion_math/b.py).
Claims: [C02, C77](../claims.md). Errata: [none](gone.md).

$$
x_{t} = \alpha}_t \, y \tag{a.1}
$$

$$
x = y
\tag{a.3}
$$

A space, $ x$, and no such number, (a.9). Near $y$'s letter.
"""


def test_the_checks_reject_what_is_broken(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        diffusion_math__a='"""Nouns."""\ndef f():\n    """x = y. Derivation: (a.2)."""\n',
        diffusion_math__b='"""x = y, see (a.1)."""\ndef g():\n    """x <- 2 x."""\n',
        diffusion_math__c='def h():\n    """Adds.\n\n    Args:\n        x: 1 = one.\n    """\n',
    )
    folder = root / "docs" / "derivations"
    folder.mkdir(parents=True)
    (folder / "a.md").write_text(BROKEN, encoding="utf-8")
    (folder / "lone.md").write_text("Claims: [C03](a.md). Errata: none.\n", encoding="utf-8")
    (folder / "README.md").write_text("| [a](a.md) | C02 |\n", encoding="utf-8")
    (root / "docs" / "claims.md").write_text("| C02 | C03 | C04 |\n", encoding="utf-8")
    assert gaps(root) == ["a: [('a', 1), ('a', 3)]", "lone: []"]
    assert dangling(root) == ["a.f: (a.2)", "a.md: (a.9)"]
    assert irregular(root) == ["b: (a.1)"]
    assert uncited(root, {"a.f": "cited after all"}) == [
        "b: x = y, see (a.1).",
        "b.g: x <- 2 x.",
        "a.f: no exception",
    ]
    assert uncited(root, {"b": "why", "b.g": "why"}) == []
    assert homeless(root) == [
        "a: no link to its tests",
        "lone: no module of its name",
        "lone: no link to its tests",
        "c: no page",
    ]
    assert broken_links(root) == ["a.md: gone.md"]
    assert unclaimed(root, {"C02", "C03", "C04"}) == ["C04", "C77: unknown"]
    assert unindexed(root) == ["errata: not linked", "a: other claims", "lone: not linked"]
    assert [line.split(": ")[1].split("\n")[0] for line in unportable(root)] == [
        "x_{t} = \\alpha}_t \\, y \\tag{a.1}",
        "not one numbered line",
        "a space inside the dollars",
        "$ next to a letter",
    ]
