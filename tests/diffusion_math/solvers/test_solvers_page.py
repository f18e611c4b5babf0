"""docs/solvers.md: a row for each solver, with what `SOLVERS` claims and where it is derived."""

import re
import sys
from pathlib import Path

import pytest

from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.registry import SOLVERS

DOCS = Path(__file__).resolve().parents[3] / "docs"
HEAD = ("name", "order", "NFE", "noise", "about", "derivation", "source")
LINK = re.compile(r"\[\((\w+)\.(\d+)\)\]\(derivations/(\w+)\.md\)")


def table(text):
    """name -> its cells, of the one table whose first row is `HEAD`."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines]
    assert cells[0] == HEAD
    assert set(cells[1]) == {"---"}
    assert len({row[0] for row in cells[2:]}) == len(cells[2:])
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


ROWS = table((DOCS / "solvers.md").read_text(encoding="utf-8"))


def disagreements(rows):
    """Names in another order than `SOLVERS` has, and rows that claim something else."""
    wrong = [] if list(rows) == list(SOLVERS) else ["names"]
    for name, claimed in SOLVERS.items():
        noise = "yes" if claimed.noisy else "no"
        wanted = (str(claimed.order), str(claimed.calls), noise, claimed.about)
        if rows.get(name, ())[:4] != wanted:
            wrong.append(name)
    return wrong


def test_the_table_is_the_registry_s():
    assert disagreements(ROWS) == []


@pytest.mark.parametrize(("cell", "other"), [(0, "7"), (1, "7"), (2, "maybe"), (3, "another")])
def test_a_row_that_claims_something_else_is_found(cell, other):
    row = (*ROWS["heun"][:cell], other, *ROWS["heun"][cell + 1 :])
    assert disagreements({**ROWS, "heun": row}) == ["heun"]
    assert disagreements({name: ROWS[name] for name in ROWS if name != "lms"}) == ["names", "lms"]


@pytest.mark.parametrize("name", SOLVERS)
def test_derivation_and_source_are_the_step_s_own(name):
    """The equations exist, the first on the page of the step's module, which cites the papers."""
    derivation, source = ROWS[name][4:]
    links = LINK.findall(derivation)
    assert derivation == ", ".join(f"[({p}.{n})](derivations/{q}.md)" for p, n, q in links)
    for page, number, linked in links:
        assert page == linked
        text = (DOCS / "derivations" / f"{page}.md").read_text(encoding="utf-8")
        assert rf"\tag{{{page}.{number}}}".replace("_", r"\_") in text
    module = sys.modules[SOLVERS[name].make(VPLinear()).__module__]
    page = "one_step" if name == "dpmpp_2m" else module.__name__.rpartition(".")[2]
    assert links[0][0] == page  # DPM-Solver++(2M) is derived beside Euler and Heun
    words = " ".join(Path(str(module.__file__)).read_text(encoding="utf-8").split())
    named = re.findall(
        r"arXiv:\d{4}\.\d{5}|k-diffusion|Kloeden & Platen|Bogacki & Shampine", source
    )
    assert named
    assert [one for one in named if one not in words] == []
