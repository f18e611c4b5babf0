"""Mutation testing: `python -m tests.mutants` breaks `diffusion_math` line by line, test by test.

mutmut changes one thing at a time in a copy of the package (an operator, a constant, an argument)
and runs the tests that reach it. A change that no test notices survives; docs/mutants.json lists
every survivor with the reason why it is equivalent or harmless, and the score. An interrupted run
goes on where it stopped; `--survivors` takes the tests anew and runs those alone that got past the
old ones. A whole run takes about half an hour on two cores.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("diffusion_math", "arbiter", "sd", "experiments", "tests", "docs", "benchmarks")
REPORT = ROOT / "docs" / "mutants.json"
SETTINGS = """[mutmut]
source_paths=
    diffusion_math
also_copy=
    arbiter
    sd
    experiments
    docs
    benchmarks
pytest_add_cli_args_test_selection=
    tests/diffusion_math
"""

LEFT = ("survived", "no tests", "suspicious", "skipped", "not checked")
"""What is no kill. A mutant that ran out of time is one: it never ends."""

REASONS: tuple[tuple[str, str], ...] = (
    (
        r"\.to\(None|device=None|dtype=x\.dtype, \)|torch\.float64, \)|\.to\(torch\.float64"
        r"|\.to\(x\.dtype\)|generator=generator, \)",
        "where a tensor lies: tensors are on the CPU already, except beside an accelerator",
    ),
    (
        r'dtype=None|"cpu", (None|)\)|dtype=torch\.int64, \)|torch\.arange\([^)]*, \)'
        r"|as_tensor\([ts], \)|torch\.(zeros|eye|tensor)\([^=]*, (device=[^)]*)?\)",
        "a precision that the next operation restores: the values are small whole numbers, halves, "
        "zeros or float64 already",
    ),
    (r"strict=(None|False)|zip\(.*, \)", "both lists were made of one and have one length"),
    (r"right=False|(edges|uniform), \)|\.log\(\) <= log_ratio", "a tie has probability 0"),
    (r"\(4 \* FEW|FEW|blocks\) == ", "two ways to one sum: which is taken is a matter of speed"),
    (r"require\(None, ", "False or None: neither holds"),
    (r"lstrip\('XX_XX'\)|lstrip\(\"XX_XX\"\)", "strips the same: no name has an X"),
    (r"dim=\+1|shape\[[+-][12]\]", "the same axis: the tensor has no other number of them"),
    (
        r"(reach|amin|amax|sharpest|centre|lost)",
        "a bound on lost digits, moved by a factor of a few: both ways of computing are right",
    ),
)
"""Patterns of a mutated line, and why a mutation of that kind does no harm."""


def main() -> int:
    """Copy, run, and write docs/mutants.json; the exit code is 1 if fewer than 95% are killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "out" / "mutants")
    parser.add_argument("--survivors", action="store_true", help="run those of the last run alone")
    asked = parser.parse_args()
    folder: Path = asked.folder
    environment = {
        # A forked process must not wait for threads that its parent had.
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HYPOTHESIS_PROFILE": "ci",
    }

    def mutmut(*words: str, shown: bool = False) -> str:
        command = [sys.executable, "-m", "mutmut", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, check=True, capture_output=not shown, text=True
        )
        return done.stdout or ""

    def results() -> dict[str, str]:
        lines = mutmut("results", "--all", "true").splitlines()
        pairs = (line.strip().rpartition(": ") for line in lines if "__mutmut_" in line)
        return {name: verdict for name, _, verdict in pairs}

    def show(name: str) -> str:
        return mutmut("show", name)

    again = [name for name, said in results().items() if said in LEFT] if asked.survivors else []
    copy(folder)
    mutmut("run", "--max-children", str(os.cpu_count() or 1), *again, shown=True)
    verdicts = results()
    left = [name for name, verdict in verdicts.items() if verdict in LEFT]
    with ThreadPoolExecutor() as pool:
        shown = dict(zip(left, pool.map(show, left), strict=True))
    report = summary(verdicts, shown, known(REPORT))
    partial = REPORT.with_suffix(".tmp")
    partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(REPORT)
    sys.stdout.write(f"{report['killed']} of {report['total']} killed: {REPORT}\n")
    return int(report["killed"] < 0.95 * report["total"])


def copy(folder: Path) -> None:
    """The tree that is broken: sources and tests, without the checker of shapes at import.

    The checker would have to be there before mutmut imports the package.
    """
    for name in COPIED:
        shutil.copytree(
            ROOT / name,
            folder / name,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "--jaxtyping-packages" not in line]
    (folder / "pyproject.toml").write_text("".join(kept), encoding="utf-8")
    (folder / "setup.cfg").write_text(SETTINGS, encoding="utf-8")


def known(path: Path) -> dict[tuple[str, str, str], str]:
    """The reasons written by hand, by module, line and mutation."""
    if not path.is_file():
        return {}
    survivors = json.loads(path.read_text(encoding="utf-8"))["survivors"]
    return {(one["module"], one["line"], one["mutation"]): one["reason"] for one in survivors}


def summary(
    verdicts: Mapping[str, str],
    shown: Mapping[str, str],
    reasons: Mapping[tuple[str, str, str], str],
) -> dict[str, object]:
    """The score and the survivors; a mutant that ran out of time is as good as killed."""
    survivors = []
    for name, text in sorted(shown.items()):
        module = name.split(".")[1]
        changed = [line for line in text.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
        line, mutation = (
            " ".join(one[1:].strip() for one in changed if one[0] == sign) for sign in "-+"
        )
        reason = reasons.get((module, line, mutation)) or reason_of(mutation)
        survivors.append({"module": module, "line": line, "mutation": mutation, "reason": reason})
    return {
        "tool": "mutmut 3",
        "total": len(verdicts),
        "killed": len(verdicts) - len(survivors),
        "survivors": survivors,
    }


def reason_of(mutation: str) -> str:
    """Why a mutation of this kind does no harm; empty if no rule says so."""
    return next((why for pattern, why in REASONS if re.search(pattern, mutation)), "")


if __name__ == "__main__":
    sys.exit(main())
