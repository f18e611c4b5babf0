"""Our steps beside diffusers' and JAX's, our oracle beside torch's: `python -m benchmarks`.

It prints one table, says which ratios got worse since the committed one, `docs/benchmarks.json`,
and with `--out docs` replaces that and the page's table.

A number of milliseconds says little about code and much about a machine; a ratio measured in turns,
A B A B, on the same tensors says which of the two is slower. Both sides of a row do the same
arithmetic on the same input, and the run fails unless they agree on the result; a solver whose peer
starts or draws its noise otherwise is compared by its time alone.

`python -m benchmarks scale` measures and models costs against sizes, `python -m benchmarks engines`
times the engines and measures what they err by.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch

from benchmarks import engines
from benchmarks.compare import Row
from benchmarks.full_size import full_size_rows
from benchmarks.langevin import langevin_rows
from benchmarks.network import network_rows
from benchmarks.oracle import oracle_rows
from benchmarks.scale import run as scale
from benchmarks.solvers import solver_rows
from benchmarks.table import Table
from benchmarks.trace import trace_rows

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Print ours beside peers; `scale`: write costs against sizes; `engines`: engines compared."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("what", nargs="?", choices=("peers", "scale", "engines"), default="peers")
    parser.add_argument("--out", type=Path, help="folder for the results (out/benchmarks)")
    parser.add_argument("--rounds", type=int, default=15, help="timings a side, at least 2")
    parser.add_argument("--only-full-size", action="store_true", help="Stable Diffusion alone")
    parser.add_argument("--no-full-size", action="store_true", help="all but Stable Diffusion")
    asked = parser.parse_args()
    rounds: int = asked.rounds
    if rounds < 2:
        parser.error(f"--rounds: at least 2 wanted, got {rounds}")
    if asked.what == "scale":
        for flag in ("only_full_size", "no_full_size"):
            if getattr(asked, flag):
                parser.error(f"--{flag.replace('_', '-')}: has no effect on scale")
        scale.run(rounds, asked.out or Path("out/scale"))
        return
    if asked.only_full_size and asked.no_full_size:
        parser.error("--only-full-size, --no-full-size: nothing is left to time")
    if asked.what == "engines":
        out = asked.out or Path("out/engines")
        engines.run(rounds, out, not asked.only_full_size, not asked.no_full_size)
        return
    warnings.simplefilter("ignore", FutureWarning)
    rows: list[Row] = []
    if not asked.only_full_size:
        rows += [*oracle_rows(min(rounds, 5)), *trace_rows(rounds)]
    with torch.inference_mode():
        if not asked.only_full_size:
            rows += [*langevin_rows(rounds), *solver_rows(rounds), *network_rows(rounds)]
        if not asked.no_full_size:
            rows += full_size_rows(min(rounds, 3))
    before, table = Table.read(DOCS / "benchmarks.json"), Table.of(rows)
    print("\n".join(table.lines(before, colour=sys.stdout.isatty())))
    write(table, before, asked.out or Path("out/benchmarks"))


def write(table: Table, before: Table | None, out: Path) -> None:
    """The table as JSON, with the last one's rows that were not timed now; and its page, if any."""
    out.mkdir(parents=True, exist_ok=True)
    table = table.beside(before)
    table.write(out / "benchmarks.json")
    page = out / "benchmarks.md"
    if page.exists():
        partial = page.with_suffix(".partial")
        partial.write_text(table.page(page.read_text(encoding="utf-8")), encoding="utf-8")
        partial.replace(page)
    print(out / "benchmarks.json")


if __name__ == "__main__":
    main()
