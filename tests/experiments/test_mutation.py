"""The ledger of mutation testing: as the code is, complete, and shown."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.verify import mutation
from experiments.verify.claims import ROOT
from tests.mutant_sources import digest, named, sources, stale

AGAIN = "stale: run `make mutants`, then `diffusion-math verify --no-tests`"
MODULE = '''
def double(x: int) -> int:
    """Twice."""
    return 2 * x  # here

class Ten:
    @property
    def half(self) -> int:
        return 5
'''


def written(root: Path, source: str, file: str = "diffusion_math/fit.py") -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return root


def entries(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """A ledger of all that is in scope, with one mutant of two alive."""
    survivor = {"mutant": 1, "line": "a", "mutation": "b", "reason": "c"}
    return {
        package: {
            name: {
                "digest": code,
                "commit": "1",
                "total": 2,
                "left": 0,
                "survivors": [dict(survivor)],
            }
            for name, code in known.items()
        }
        for package, known in sources(root).items()
    }


def test_the_ledger_is_of_the_code_as_it_is() -> None:
    assert stale(mutation.ledger(ROOT)["packages"], ROOT) == [], AGAIN


def test_what_is_alive_has_a_reason_of_its_own() -> None:
    """A mutant is listed once, by its number, with the line that it changes and why it may live."""
    for package in mutation.ledger(ROOT)["packages"].values():
        for name, entry in package.items():
            numbers = [one["mutant"] for one in entry["survivors"]]
            assert len(set(numbers)) == len(numbers) <= entry["total"] - entry["left"], name
            assert set(numbers) <= set(range(1, entry["total"] + 1)), name
            for one in entry["survivors"]:
                assert one["line"] != one["mutation"], name
                assert one["reason"].strip(), f"{name}, mutant {one['mutant']}: wanted a reason"


@pytest.mark.parametrize(
    ("new", "names"),
    [
        (MODULE.replace("Twice.", "Two times.").replace("# here", "# there"), []),
        (MODULE.replace("\n    return", "\n\n    return"), []),
        (MODULE.replace("2 * x", "3 * x"), ["fit.double"]),
        (MODULE.replace("return 5", "return 6"), ["fit.Ten.half"]),
        (MODULE.replace("    @property\n", ""), ["fit.Ten.half"]),
        (MODULE.replace("x: int", "x: int = 1"), ["fit.double"]),
    ],
)
def test_code_counts_and_words_do_not(tmp_path: Path, new: str, names: list[str]) -> None:
    root = written(tmp_path, MODULE)
    before, now = (
        sources(root)["diffusion_math"],
        sources(written(root, new))["diffusion_math"],
    )
    assert set(before) == set(now) == {"fit.double", "fit.Ten.half"}
    assert [name for name in before if before[name] != now[name]] == names


def test_every_kind_of_staleness_is_said(tmp_path: Path) -> None:
    root = written(tmp_path, MODULE)
    known = entries(root)
    assert stale(known, root) == []
    added = written(root, MODULE + "\ndef new():\n    return 1\n")
    assert stale(known, added) == ["diffusion_math: new: not as it was"]
    changed = written(root, MODULE.replace("5", "6"))
    assert stale(known, changed) == [
        "diffusion_math: Ten.half: not as it was",
        "diffusion_math: Ten.half: gone",
    ]
    fewer = written(root, MODULE.partition("class")[0])
    assert stale(known, fewer) == ["diffusion_math: Ten.half: gone"]
    (root / "diffusion_math" / "fit.py").rename(root / "diffusion_math" / "line.py")
    assert stale(known, written(root, MODULE, "diffusion_math/line.py")) == []


def test_a_digest_is_of_what_every_version_of_python_reads_alike() -> None:
    """A literal digest: ast.dump would give another under Python 3.12, which knows more fields."""
    (node,) = ast.parse("def f(x, *, y=1):\n    return f'{x:>3}' + x[0] * y\n").body
    assert isinstance(node, ast.FunctionDef)
    assert digest(node) == "6d765df2a391"
    node.type_params = []  # type: ignore[attr-defined]
    assert digest(node) == "6d765df2a391"


def test_the_score_is_shown_with_its_scope_and_commits(tmp_path: Path) -> None:
    assert mutation.lines(tmp_path) == ["Mutation score: not measured yet."]
    root = written(tmp_path, MODULE)
    known = entries(root)
    known["diffusion_math"]["fit.Ten.half"] |= {"left": 1, "commit": "2"}
    known["diffusion_math"]["fit.double"]["survivors"][0] |= {"reason": "gap: no test of it"}
    (root / "docs").mkdir()
    said = json.dumps({"tool": "a tool", "packages": {"diffusion_math": known["diffusion_math"]}})
    (root / "docs" / "mutants.json").write_text(said, encoding="utf-8")
    text = "\n".join(mutation.lines(root))
    assert "| `diffusion_math/**/*.py` | 4 | 2 | 1 of 2 (50.0%) | 1 | 1 | `1`, `2` |" in text
    assert "by a tool" in text and "(mutants.json)" in text


def test_a_check_of_types_is_no_other_function() -> None:
    plain = "def f(x):\n    return x\n"
    codes = {
        before: digest(next(node for _, node in named(before + plain)))
        for before in ("", "@checked\n", "@cache\n", "@checked\n@cache\n")
    }
    assert codes[""] == codes["@checked\n"] != codes["@cache\n"] == codes["@checked\n@cache\n"]
