"""What `tuned` says: rows, a table of error at equal calls, and two figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.intervals import mean_interval
from experiments.results import Figure, Row, Table, at_most
from experiments.tuned_rivals import (
    ALIGNED,
    BOUND,
    GRIDS,
    PUBLISHED,
    STEPWISE,
    WEIGHTED,
    Measure,
    Walked,
    rms,
    typical,
)

if TYPE_CHECKING:
    from experiments.tuned_worlds import World

DOUBT = 0.5
"""The largest share of the least error measured that the converged ends may be wrong by."""
SAVED = 2 / 3
"""The calls of the denoiser that the aim leaves of every three."""
RESAMPLES = 1000
Pair = tuple[Walked, Walked]
MEASURES: tuple[tuple[str, str, Measure], ...] = (
    ("typical", "Typical error", typical),
    ("rms", "RMS error", rms),
)


@dataclass(frozen=True, eq=False)
class Found:
    """One world's walks on its test side: `picked` are, at each budget, the tuned grids that were
    best on the training side by typical error and by RMS; `others` all that was not tuned."""

    world: "World"
    others: list[Walked]
    picked: dict[int, Pair]

    def rest(self, budget: int, measure: Measure, grids: Sequence[str] = ()) -> Walked:
        """The best of the others (on those grids) that ask no more often, seen on the test side."""
        fits = [one for one in self.others if one.calls <= budget]
        return min((one for one in fits if not grids or one.grid in grids), key=measure)

    def needed(self, error: float, measure: Measure) -> int | None:
        """The fewest calls with which any of the others came as near."""
        near = [one.calls for one in self.others if measure(one) <= error]
        return min(near, default=None)

    @property
    def most(self) -> int:
        """The most calls that any of the others was given."""
        return max(one.calls for one in self.others)


def rows_of(found: Found) -> list[Row]:
    """At every budget the tuned grid over the best of the rest, and what it saves."""
    name = "tuned" if found.world.name == "mixture" else f"tuned-{found.world.name}"
    where, rows, ratios = found.world.title, [], []
    for budget, pair in found.picked.items():
        for (key, words, measure), mine in zip(MEASURES, pair, strict=True):
            other = found.rest(budget, measure)
            value = measure(mine) / measure(other)
            low, high = _interval(mine, other, key)
            claim = (
                f"{where}: {words.lower()} after {budget} calls, {mine.solver} on its tuned grid "
                f"over the best of the rest, {other.solver} on {other.grid}; at most 1"
            )
            verdict = at_most(low, high, 1.0)
            rows.append(Row(f"{name}-{budget}-{key}", claim, value, (low, high), verdict))
            ratios.append((key, value))
    worst = max(value for key, value in ratios if key == "typical")
    claim = (
        f"{where}: typical error of the tuned grid over that of the best of the rest, at equal "
        f"calls, the worst of {len(found.picked)} budgets; at most 1"
    )
    lead = Row(name, claim, worst, None, at_most(worst, worst, 1.0))
    return [lead, *rows, *_savings(found, name), _doubt(found, name)]


def _savings(found: Found, name: str) -> list[Row]:
    rows = []
    for (key, words, measure), place in zip(MEASURES, (0, 1), strict=True):
        shares = []
        for budget, pair in found.picked.items():
            calls = found.needed(measure(pair[place]), measure)
            shares.append(budget / (calls or found.most + 1))
        claim = (
            f"{found.world.title}: calls over those that the best of the rest needs for the same "
            f"{words.lower()}, the mean of {len(shares)} budgets; at most 2/3. What no other of at "
            f"most {found.most} calls reached counts as {found.most + 1}"
        )
        mean = sum(shares) / len(shares)
        verdict = at_most(mean, mean, SAVED)
        rows.append(Row(f"{name}-saving-{key}", claim, mean, None, verdict))
    return rows


def _doubt(found: Found, name: str) -> Row:
    least = min(rms(pair[1]) for pair in found.picked.values())
    share = max(found.world.train.doubt, found.world.test.doubt) / least
    claim = (
        f"{found.world.title}: what the converged ends may be wrong by (RMS) over the least RMS "
        f"error measured against them; at most {DOUBT:g}"
    )
    return Row(f"{name}-reference", claim, share, None, at_most(share, share, DOUBT))


def _interval(mine: Walked, other: Walked, key: str) -> tuple[float, float]:
    """Of the ratio over the starts, paired: Student's for geometric means, else a bootstrap's."""
    import torch

    a, b = mine.errors, other.errors
    if key == "typical":
        low, high = mean_interval((a / b).log().tolist())
        return math.exp(max(low, -700.0)), math.exp(min(high, 700.0))
    generator = torch.Generator().manual_seed(0)
    draw = torch.randint(len(a), (RESAMPLES, len(a)), generator=generator)
    ratios = (a.square()[draw].mean(1) / b.square()[draw].mean(1)).sqrt()
    value = rms(mine) / rms(other)
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=ratios.dtype)).tolist()
    return min(low, value), max(high, value)


def record(found: Found) -> dict[str, Any]:
    """Every number as plain data."""

    def line(one: Walked) -> dict[str, Any]:
        return {
            "solver": one.solver,
            "grid": one.grid,
            "calls": one.calls,
            "rms": rms(one),
            "typical": typical(one),
            "median": float(one.errors.median()),
        }

    return {
        "doubt": found.world.test.doubt,
        "tuned": {
            str(budget): [{**line(one), "nodes": one.nodes.tolist()} for one in pair]
            for budget, pair in found.picked.items()
        },
        "others": [line(one) for one in found.others],
    }


def parts(every: Sequence[Found]) -> tuple[str | Figure | Table, ...]:
    """The report of all worlds."""
    from experiments import plots
    from experiments.plots.tuned import errors, nodes

    told: list[str | Figure | Table] = [
        "Where should the few nodes of a walk lie? Each tuned grid is fitted by least squares to "
        "one solver and one number of calls, on starts of its own, and judged on others, by how "
        "far walks end from the end of the exact flow from the same noise. The best of the rest is "
        "the best, seen on those starts, of all other solvers and grids: "
        + "; ".join(f"`{name}`, {what}" for name, what in PUBLISHED.items())
        + "; and "
        + ", ".join(f"`{name}`" for name in GRIDS)
        + "."
    ]
    for found in every:
        name = "" if found.world.name == "mixture" else f"-{found.world.name}"
        told += [
            _table(found),
            Figure(
                f"tuned{name}-error.png",
                plots.png(errors(found.world.title, _lines(found))),
                "At each number of calls the best solver of every kind of grid. Blue: tuned grids, "
                "chosen on training starts; the others are the best on the very starts they are "
                "judged on. Left the geometric mean over the starts, right the root mean square, "
                "which a few starts between two modes carry.",
                "Error over calls of the denoiser on a logarithmic axis, a line for each grid.",
            ),
            Figure(
                f"tuned{name}-nodes.png",
                plots.png(nodes(*_strips(found))),
                "Where the nodes fall, on the axis of log-SNR: noise left, clean data right; the "
                "last step, to t = 0, is not drawn. Tuned grids crowd where the prediction turns.",
                "Rows of dots on an axis of log-SNR, one row for each grid.",
            ),
        ]
    return tuple(told)


def _table(found: Found) -> Table:
    """Error at equal calls."""
    header = ("calls", "error", "tuned", "fixed", *PUBLISHED, "calls of the rest for the same")
    cells = []
    for budget, pair in found.picked.items():
        for (_, words, measure), mine in zip(MEASURES, pair, strict=True):
            others = [found.rest(budget, measure, GRIDS)]
            others += [found.rest(budget, measure, (name,)) for name in PUBLISHED]
            needed = found.needed(measure(mine), measure)
            line = [_cell(one, measure) for one in (mine, *others)]
            told = str(needed) if needed else f"more than {found.most}"
            cells.append((str(budget), words.split()[0].lower(), *line, told))
    caption = (
        f"{found.world.title}: the error of {len(found.world.test.starts)} test starts, typical "
        "(geometric mean) and RMS, of the best solver on each kind of grid."
    )
    return Table(header, tuple(cells), caption)


def _cell(one: Walked, measure: Measure) -> str:
    where = one.grid if one.grid in GRIDS else ""
    return f"{measure(one):.2g} ({' '.join(filter(None, (one.solver, where)))})"


def _lines(found: Found) -> dict[str, list[tuple[str, list[int], list[float]]]]:
    """Each measure's lines: label, calls, errors."""
    told = {}
    kinds = [("best fixed grid", GRIDS), ("Align Your Steps", (ALIGNED,)), ("KL bound", (BOUND,))]
    kinds += [("error-weighted", (WEIGHTED,)), ("dynamic program", (STEPWISE,))]
    budgets = list(found.picked)
    for place, (_, words, measure) in enumerate(MEASURES):
        lines = [("tuned", budgets, [measure(found.picked[n][place]) for n in budgets])]
        for label, grids in kinds:
            calls = sorted({one.calls for one in found.others if one.grid in grids})
            some = [n for n in calls if n >= budgets[0]]
            some = [n for n in some if len(grids) == 1 or n <= 1.5 * budgets[-1]]
            best = [measure(found.rest(n, measure, grids)) for n in some]
            lines.append((label, some, best))
        told[words] = lines
    return told


def _strips(found: Found) -> tuple[str, list[tuple[str, list[float], bool]]]:
    """The log-SNR of nodes: grids of ten calls (or the middle budget), then tuned ones of all."""
    budgets = list(found.picked)
    middle = 10 if 10 in budgets else budgets[len(budgets) // 2]
    schedule = found.world.schedule
    rows = []
    for name in (*GRIDS[:1], *GRIDS[3:], *PUBLISHED):
        one = found.rest(middle, typical, (name,))
        rows.append((f"{name}, {one.calls}", schedule.log_snr(one.nodes[:-1]).tolist(), False))
    for budget in budgets:
        one = found.picked[budget][0]
        label = f"tuned for {one.solver}, {budget}"
        rows.append((label, schedule.log_snr(one.nodes[:-1]).tolist(), True))
    return found.world.title, rows
