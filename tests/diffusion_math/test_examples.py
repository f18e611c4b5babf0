"""The `>>>` examples of the public docstrings run as printed, and every public name has one."""

import ast
import doctest
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffusion_math

FOLDER = Path(diffusion_math.__file__).parent
WITHOUT = {"checks"}  # guards
AUDIT = ("moments", "order", "problems", "report", "sampler", "verdicts")  # has a page of its own


def documented(folder: Path) -> Iterator[tuple[str, str, int]]:
    """(dotted name, docstring, line) of every module-level function and class."""
    for path in sorted(folder.rglob("*.py")):
        module = path.relative_to(folder).with_suffix("").as_posix().replace("/", ".")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                yield f"{module}.{node.name}", text or "", node.lineno


def public() -> set[str]:
    """Every function and class that users reach from `diffusion_math`'s own names."""
    found, seen = set(), {"diffusion_math", *(f"diffusion_math.{name}" for name in WITHOUT)}
    todo = [diffusion_math]
    for module in todo:
        own = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
        for value in (getattr(module, name) for name in own):
            if isinstance(value, types.ModuleType) and value.__name__ not in seen:
                seen.add(value.__name__)
                todo += [value] if value.__name__.startswith("diffusion_math.") else []
            elif isinstance(value, types.FunctionType | type) and (
                hasattr(module, "__all__") or value.__module__ == module.__name__
            ):
                found.add(f"{value.__module__.removeprefix('diffusion_math.')}.{value.__name__}")
    return found


EXAMPLES = {
    name: (text, line) for name, text, line in documented(FOLDER) if ">>>" in text
}  # by name, so that a failure says whose example it is


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(name: str) -> None:
    text, line = EXAMPLES[name]
    example = doctest.DocTestParser().get_doctest(text, {}, name, name, line)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert not report, "".join(report)


def test_every_public_name_has_an_example() -> None:
    audit = tuple(f"testing.{module}." for module in AUDIT)
    missing = {name for name in public() - set(EXAMPLES) if not name.startswith(audit)}
    assert sorted(missing) == []


def test_an_example_is_short() -> None:
    for name, (text, line) in EXAMPLES.items():
        steps = doctest.DocTestParser().get_examples(text, name)
        assert 1 <= sum("import " not in step.source for step in steps) <= 7, (name, line)


def test_a_wrong_example_is_found() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert "Expected:\n    3" in "".join(report)
