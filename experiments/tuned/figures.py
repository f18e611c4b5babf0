"""What `tuned` says: rows, a table of error at equal calls, and two figures."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor

from experiments import plots
from experiments.common.statistics import mean_interval, ratio_of_means
from experiments.output.result import Figure, Measurement, Table, estimated
from experiments.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.tuned.baselines import (
    ALIGNED,
    BOUND,
    FITTED,
    GRIDS,
    PUBLISHED,
    S4S,
    S4S_ALT,
    STEPWISE,
    TUNED,
    WEIGHTED,
    Measure,
    Walked,
    rms,
    typical,
)
from experiments.tuned.outcome import Beside, Found

DOUBT = 0.5
"""The largest share of the least error measured that the converged ends may be wrong by."""
SAVED = 2 / 3
"""The calls of the denoiser that the aim leaves of every three."""
MEASURES: tuple[tuple[str, str, Measure], ...] = (
    ("typical", "Typical error", typical),
    ("rms", "RMS error", rms),
)
LOOKS = (
    (BLUE, "-", "o"), (BLUE, "--", "X"), ("#333333", "-", "s"), (ORANGE, "--", "^"),
    (PURPLE, "--", "v"), (GREEN, ":", "D"), (GRAY, ":", "P"), ("#b58900", "-.", "*"),
    ("#a0522d", "-.", "h"),
)  # fmt: skip
OURS = {FITTED: "fitted weights", TUNED: "a tuned grid"}


def rows_of(found: Found) -> list[Measurement]:
    """At every budget each kind of ours over the best of the rest, and what it saves."""
    rows = [row for kind in found.picked for row in _ratios(found, kind)]
    return [*rows, _doubt(found)]


def _told(one: Walked) -> str:
    return one.solver if one.solver == one.grid else f"{one.solver} on {one.grid}"


def _name(found: Found, kind: str) -> str:
    return kind if found.world.name == "mixture" else f"{kind}-{found.world.name}"


def _ratios(found: Found, kind: str) -> list[Measurement]:
    name, where, rows, ratios = _name(found, kind), found.world.title, [], []
    for budget, pair in found.picked[kind].items():
        for (key, words, measure), mine in zip(MEASURES, pair, strict=True):
            other = found.rest(budget, measure)
            value = measure(mine) / measure(other)
            by = "" if kind == FITTED else f" ({mine.solver})"
            claim = (
                f"{where}: {words.lower()} after {budget} calls, {OURS[kind]}{by} over the best of "
                f"the rest, {_told(other)}; at most 1"
            )
            ratio = value, ratio_interval(mine.errors, other.errors, key)
            rows.append(estimated(f"{name}-{budget}-{key}", claim, ratio, most=1.0))
            ratios.append((key, value))
    worst = max(value for key, value in ratios if key == "typical")
    claim = (
        f"{where}: typical error of {OURS[kind]} over that of the best of the rest, at equal "
        f"calls, the worst of {len(found.budgets)} budgets; at most 1"
    )
    return [estimated(name, claim, worst, most=1.0), *rows, *_savings(found, kind)]


def _savings(found: Found, kind: str) -> list[Measurement]:
    rows = []
    for place, (key, words, measure) in enumerate(MEASURES):
        claim = (
            f"{found.world.title}: calls of {OURS[kind]} over those that the best of the rest "
            f"needs for the same {words.lower()}, between its budgets on a line in logarithms, the "
            f"mean of {len(found.budgets)} budgets; at most 2/3. What no other of at most "
            f"{found.most} calls reached counts as {found.most + 1}"
        )
        mean = found.share(kind, place, measure)
        low, high = (found.share(kind, place, measure, end) for end in _ends(key, measure))
        name = f"{_name(found, kind)}-saving-{key}"
        rows.append(estimated(name, claim, (mean, (low, high)), most=SAVED))
    return rows


def _ends(key: str, measure: Measure) -> tuple[Beside, Beside]:
    """Another's error as large, and as small, as the interval of ours over it lets it be."""
    known = cache(lambda mine, other: ratio_interval(mine.errors, other.errors, key))

    def largest(mine: Walked, other: Walked) -> float:
        return measure(mine) / max(known(mine, other)[0], 1e-300)

    def least(mine: Walked, other: Walked) -> float:
        return measure(mine) / min(known(mine, other)[1], 1e300)

    return largest, least


def _doubt(found: Found) -> Measurement:
    shares = []
    for _, _, measure in MEASURES:
        pairs = [pair for kind in found.picked.values() for pair in kind.values()]
        least = min(measure(one) for pair in pairs for one in pair)
        ends = Walked("", "", 0, found.world.test.ends, found.world.test.doubts.clamp(1e-300))
        shares.append(measure(ends) / least)
    claim = (
        f"{found.world.title}: what the converged ends may be wrong by over the least error "
        f"measured against them, typical or RMS, the larger share; at most {DOUBT:g}"
    )
    return estimated(f"{_name(found, TUNED)}-reference", claim, max(shares), most=DOUBT)


def ratio_interval(a: Tensor, b: Tensor, key: str) -> tuple[float, float]:
    """Of a's typical or RMS error over b's, over the starts, paired: Student's of the logarithms'
    difference, or the root of Fieller's for the squares' means, which few starts carry."""
    if key == "rms":
        low, high = ratio_of_means(a.square().tolist(), b.square().tolist())
        return math.sqrt(low), math.sqrt(high)
    low, high = mean_interval((a / b).log().tolist())
    return math.exp(max(low, -700.0)), math.exp(min(high, 700.0))


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
        "doubt": float(found.world.test.doubts.square().mean().sqrt()),
        **{
            kind: {
                str(budget): [{**line(one), "nodes": one.nodes.tolist()} for one in pair]
                for budget, pair in pairs.items()
            }
            for kind, pairs in found.picked.items()
        },
        "others": [line(one) for one in found.others],
    }


def parts(every: Sequence[Found]) -> tuple[str | Figure | Table, ...]:
    """The report of all worlds."""
    told: list[str | Figure | Table] = [
        "What can be had from a few calls of the denoiser? Fitted weights mix all that a walk has "
        "seen so that it keeps nearest to the flow; a tuned grid places the nodes of one solver so "
        "that its walks end nearest. Both are found on starts of their own and judged on others, "
        "by how far walks end from the end of the flow from the same noise. The best of the rest "
        "is the best, seen on those starts, of all other solvers and grids: "
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
                _errors(found),
                "At each number of calls the best of every kind. Heavy: fitted weights, chosen on "
                "training starts as tuned grids are; the others are the best on the very starts "
                "they are judged on. Left the geometric mean over the starts, right the root mean "
                "square, which a few starts between two modes carry.",
                "Error over calls of the denoiser on a logarithmic axis, a line for each grid.",
            ),
            Figure(
                f"tuned{name}-nodes.png",
                _nodes(found),
                "Where the nodes fall, on the axis of log-SNR: noise left, clean data right; the "
                "last step, to t = 0, is not drawn. Blue: those that were fitted or tuned.",
                "Rows of dots on an axis of log-SNR, one row for each grid.",
            ),
        ]
    return tuple(told)


def _table(found: Found) -> Table:
    """Error at equal calls."""
    kinds = list(found.picked)
    header = ("calls", "error", *kinds, "fixed", *PUBLISHED, "calls of the rest for fitted's")
    cells = []
    for budget in found.budgets:
        for place, (_, words, measure) in enumerate(MEASURES):
            ours = [found.picked[kind][budget][place] for kind in kinds]
            rest = [
                found.rest(budget, measure, grids)
                for grids in (GRIDS, *((name,) for name in PUBLISHED))
            ]
            line = [_cell(one, measure) for one in (*ours, *rest)]
            needed = found.needed(measure(ours[0]), measure)
            told = f"{needed:.1f}" if needed else f"more than {found.most}"
            cells.append((str(budget), words.split()[0].lower(), *line, told))
    caption = (
        f"{found.world.title}: the error of {len(found.world.test.starts)} test starts, typical "
        "(geometric mean) and RMS, of the best solver on each kind of grid."
    )
    return Table(header, tuple(cells), caption)


def _cell(one: Walked | None, measure: Measure) -> str:
    if one is None:
        return "–"
    solver = one.solver if one.solver not in (FITTED, S4S, S4S_ALT) else ""
    where = one.grid if one.grid in GRIDS or one.solver == FITTED else ""
    told = " ".join(filter(None, (solver, where)))
    return f"{measure(one):.2g}" + (f" ({told})" if told else "")


def _errors(found: Found) -> bytes:
    """A chart a measure, a line a kind of grid, the first of them heavy."""
    charts = []
    kinds = [("best fixed grid", GRIDS), ("Align Your Steps", (ALIGNED,)), ("KL bound", (BOUND,))]
    kinds += [("error-weighted", (WEIGHTED,)), ("dynamic program", (STEPWISE,)), ("S4S", (S4S,))]
    kinds.append(("S4S-Alt", (S4S_ALT,)))
    budgets = found.budgets
    for place, (_, words, measure) in enumerate(MEASURES):
        lines = []
        for label, kind in (("fitted weights", FITTED), ("tuned grid", TUNED)):
            pairs = found.picked.get(kind, {})
            lines.append((label, list(pairs), [measure(pair[place]) for pair in pairs.values()]))
        for label, grids in kinds:
            calls = sorted({one.calls for one in found.others if one.grid in grids})
            some = [n for n in calls if n >= budgets[0]]
            some = [n for n in some if len(grids) == 1 or n <= 1.5 * budgets[-1]]
            best = [one for n in some if (one := found.rest(n, measure, grids))]
            lines.append((label, some, [measure(one) for one in best]))
        series = [
            Series(label, x, y, None, *look, *((1.7, 6) if place else (3.4, 9)))
            for place, ((label, x, y), look) in enumerate(zip(lines, LOOKS, strict=True))
            if x
        ]
        ticks = sorted({*lines[0][1], max(n for _, x, _ in lines for n in x)})
        calls_axis = Axis("calls of the denoiser", scale="log", ticks=ticks)
        charts.append(Chart(words, calls_axis, Axis("distance from the flow's end", scale="log"),
                            series))  # fmt: skip
    return plots.png(side_by_side(charts, 6.4, 5.8, legend_columns=4, title=found.world.title))


def _nodes(found: Found) -> bytes:
    """The log-SNR of nodes: grids of ten calls (or the middle budget), then tuned ones of all."""
    budgets = found.budgets
    middle = 10 if 10 in budgets else budgets[len(budgets) // 2]
    schedule = found.world.schedule
    kind = TUNED if TUNED in found.picked else FITTED

    rows = [
        (name, one, "#555555")
        for name in (*GRIDS[:1], *GRIDS[3:], ALIGNED, BOUND, WEIGHTED, STEPWISE)
        if (one := found.rest(middle, typical, (name,)))
    ]
    for budget in budgets:
        one = found.picked[kind][budget][0]
        label = f"tuned for {one.solver}" if kind == TUNED else f"fitted on {one.grid}"
        rows.append((label, one, BLUE))
    series = [
        Series("", schedule.log_snr(one.nodes[:-1]), [k] * one.nodes[1:].numel(), None, ink, "")
        for k, (_, one, ink) in enumerate(rows)
    ]
    x = Axis(r"log-SNR, $\log(\alpha_t^2 / \sigma_t^2)$: noise on the left, data right")
    names = [f"{label}, {one.calls}" for label, one, _ in rows]
    y = Axis("", len(rows) - 0.5, -0.5, ticks=range(len(rows)), names=names)
    chart = Chart(found.world.title, x, y, series)
    return plots.png(side_by_side([chart], 11, 1.2 + 0.42 * len(rows)))
