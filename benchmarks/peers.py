"""Our steps, networks and oracle beside those of others: one table of times and ratios."""

import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.compare import Row
from benchmarks.full_size import full_size_rows
from benchmarks.langevin import langevin_rows
from benchmarks.network import network_rows
from benchmarks.oracle import oracle_rows
from benchmarks.output import beside, is_timed, require_page, write_results
from benchmarks.packages import require_packages
from benchmarks.solvers import solver_rows
from benchmarks.table import Table
from benchmarks.trace import trace_rows

DOCS = Path(__file__).resolve().parents[1] / "docs"
SMALL, FULL_SIZE = ("blackjax", "diffusers", "jax"), ("diffusers", "transformers")
"""Packages that the rows of both parts need."""


def run(rounds: int, out: Path, small: bool, full_size: bool, drop: bool = False) -> None:
    """Time, print the table with what got worse since the committed one, and write it.

    Args:
        rounds: timings a side.
        out: an existing folder. Rows of its table that are not timed now stay.
        small, full_size: whether to time all but Stable Diffusion, and Stable Diffusion.
        drop: drop rows that are not timed now, if their machine or versions differ.

    Raises ValueError, before any work, for missing packages, for files in `out` that no run wrote,
    and for rows that could not stay.
    """
    require_packages(*sorted({*(SMALL if small else ()), *(FULL_SIZE if full_size else ())}))
    require_page(out / "benchmarks.md")
    path = out / "benchmarks.json"
    before, last = (Table.read(one) for one in (DOCS / path.name, path))
    others: list[Row] = []
    if last is not None:
        others = [row for row in last.rows if not is_timed(row.name, small, full_size)]
        others = beside(path, others, asdict(last), asdict(Table.of(())), drop)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if small:
            rows += [*oracle_rows(min(rounds, 5)), *trace_rows(rounds)]
        with torch.inference_mode():
            if small:
                rows += [*langevin_rows(rounds), *solver_rows(rounds), *network_rows(rounds)]
            if full_size:
                rows += full_size_rows(min(rounds, 3))
    table = Table.of(rows)
    print("\n".join(table.lines(before, colour=sys.stdout.isatty())))
    table = replace(table, rows=(*rows, *others))
    print(write_results(out, "benchmarks", asdict(table), table.body()))
