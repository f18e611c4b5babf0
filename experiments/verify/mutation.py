"""The ledger of mutation testing, `docs/mutants.json`: what was mutated, and what no test noticed.

`make mutants` writes it (tests/mutants.py). An entry is a function's: a digest of its code, the
commit at which its mutants were run, their number, those that no test noticed, each with the reason
why, and how many are left to run. A function whose code differs from its digest is stale
(tests/mutant_sources.py).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.output.page import markdown_table

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

HEADER = ("files", "mutants", "not run", "killed, of those run", "alive", "gaps", "commits")
GAP = "gap: "
"""How the reason begins of a mutant that a test could tell, and none does yet."""

Entry = dict[str, Any]
Ledger = dict[str, dict[str, Entry]]


def ledger(root: Path) -> dict[str, Any]:
    """What `docs/mutants.json` holds: `tool`, and `packages` of functions' entries."""
    return json.loads((root / "docs" / "mutants.json").read_text("utf-8"))  # type: ignore[no-any-return]


def lines(root: Path) -> list[str]:
    """The score as blocks of Markdown, where there is a ledger."""
    if not (root / "docs" / "mutants.json").is_file():
        return ["Mutation score: not measured yet."]
    known = ledger(root)
    table = []
    for package, entries in known["packages"].items():
        total, alive, left = counts(entries)
        whole = (entry for entry in entries.values() if not entry["left"])
        reasons = (one["reason"] for entry in whole for one in entry["survivors"])
        gaps = sum(reason.startswith(GAP) for reason in reasons)
        run = total - left
        share = f" ({100 * (run - alive) / run:.1f}%)" if run else ""
        scope = ", ".join(f"`{pattern}`" for pattern in SCOPE[package])
        commits = ", ".join(sorted({f"`{entry['commit']}`" for entry in entries.values()}))
        killed = f"{run - alive} of {run}{share}"
        table.append((scope, f"{total}", f"{left}", killed, f"{alive}", f"{gaps}", commits))
    return [
        f"Mutation score by {known['tool']}, of the functions as they are today: those at a commit "
        "were run there and have not changed since.",
        markdown_table(HEADER, table),
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
