"""The rows, the table and the figures of `tuned`: error at equal NFE, and the nodes."""

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
    Evaluation,
    Measure,
    rms,
    typical,
)
from experiments.tuned.outcome import Outcome, PairedError

DOUBT = 0.5
"""Largest error of the reference ends, as a share of the lowest error measured."""
SAVED = 2 / 3
"""Largest share of the baselines' NFE that our methods may need."""
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


def rows_of(found: Outcome) -> list[Measurement]:
    """For each of our methods the error ratio at every budget, and the NFE that it saves."""
    rows = [row for kind in found.picked for row in _ratios(found, kind)]
    return [*rows, _doubt(found)]


def _label(one: Evaluation) -> str:
    return one.solver if one.solver == one.grid else f"{one.solver} on {one.grid}"


def _name(found: Outcome, kind: str) -> str:
    return kind if found.problem.name == "mixture" else f"{kind}-{found.problem.name}"


def _ratios(found: Outcome, kind: str) -> list[Measurement]:
    name, where, rows, ratios = _name(found, kind), found.problem.title, [], []
    for budget, pair in found.picked[kind].items():
        for (key, words, measure), mine in zip(MEASURES, pair, strict=True):
            other = found.best_baseline(budget, measure)
            value = measure(mine) / measure(other)
            by = "" if kind == FITTED else f" ({mine.solver})"
            claim = (
                f"{where}: {words.lower()} at NFE {budget}, {OURS[kind]}{by} over the best "
                f"baseline, {_label(other)}; at most 1"
            )
            ratio = value, ratio_interval(mine.errors, other.errors, key)
            rows.append(estimated(f"{name}-{budget}-{key}", claim, ratio, most=1.0))
            ratios.append((key, value))
    worst = max(value for key, value in ratios if key == "typical")
    claim = (
        f"{where}: typical error of {OURS[kind]} over that of the best baseline at equal NFE, the "
        f"largest ratio of {len(found.budgets)} budgets; at most 1"
    )
    return [estimated(name, claim, worst, most=1.0), *rows, *_savings(found, kind)]


def _savings(found: Outcome, kind: str) -> list[Measurement]:
    rows = []
    for place, (key, words, measure) in enumerate(MEASURES):
        claim = (
            f"{found.problem.title}: NFE of {OURS[kind]} over the NFE that the best baseline needs "
            f"for the same {words.lower()}, interpolated in logarithms, mean of "
            f"{len(found.budgets)} budgets; at most 2/3. An error that no baseline reaches at NFE "
            f"{found.most} counts as {found.most + 1}"
        )
        mean = found.share(kind, place, measure)
        low, high = (found.share(kind, place, measure, end) for end in _ends(key, measure))
        name = f"{_name(found, kind)}-saving-{key}"
        rows.append(estimated(name, claim, (mean, (low, high)), most=SAVED))
    return rows


def _ends(key: str, measure: Measure) -> tuple[PairedError, PairedError]:
    """The largest and the smallest error of a baseline within the interval of the ratio."""
    interval = cache(lambda mine, other: ratio_interval(mine.errors, other.errors, key))

    def largest(mine: Evaluation, other: Evaluation) -> float:
        return measure(mine) / max(interval(mine, other)[0], 1e-300)

    def least(mine: Evaluation, other: Evaluation) -> float:
        return measure(mine) / min(interval(mine, other)[1], 1e300)

    return largest, least


def _doubt(found: Outcome) -> Measurement:
    shares = []
    for _, _, measure in MEASURES:
        pairs = [pair for kind in found.picked.values() for pair in kind.values()]
        least = min(measure(one) for pair in pairs for one in pair)
        side = found.problem.test
        ends = Evaluation("", "", 0, side.ends, side.doubts.clamp(1e-300))
        shares.append(measure(ends) / least)
    claim = (
        f"{found.problem.title}: error of the reference ends over the lowest error measured "
        f"against them, typical or RMS, the larger ratio; at most {DOUBT:g}"
    )
    return estimated(f"{_name(found, TUNED)}-reference", claim, max(shares), most=DOUBT)


def ratio_interval(a: Tensor, b: Tensor, key: str) -> tuple[float, float]:
    """The 95% interval of a's typical or RMS error over b's, paired by start.

    Student's interval of the difference of the logarithms, or the root of Fieller's interval for
    the ratio of the mean squares.
    """
    if key == "rms":
        low, high = ratio_of_means(a.square().tolist(), b.square().tolist())
        return math.sqrt(low), math.sqrt(high)
    low, high = mean_interval((a / b).log().tolist())
    return math.exp(max(low, -700.0)), math.exp(min(high, 700.0))


def record(found: Outcome) -> dict[str, Any]:
    """Every measured value as plain data."""

    def line(one: Evaluation) -> dict[str, Any]:
        return {
            "solver": one.solver,
            "grid": one.grid,
            "nfe": one.nfe,
            "rms": rms(one),
            "typical": typical(one),
            "median": float(one.errors.median()),
        }

    data: dict[str, Any] = {"doubt": float(found.problem.test.doubts.square().mean().sqrt())}
    for kind, pairs in found.picked.items():
        data[kind] = {
            str(budget): [{**line(one), "nodes": one.nodes.tolist()} for one in pair]
            for budget, pair in pairs.items()
        }
    return {**data, "baselines": [line(one) for one in found.baselines]}


def parts(every: Sequence[Outcome]) -> tuple[str | Figure | Table, ...]:
    """The report of all test problems."""
    blocks: list[str | Figure | Table] = [
        "NFE is the number of function evaluations of the denoiser. Fitted weights combine all "
        "predictions of a trajectory so that it stays close to the exact flow. A tuned grid places "
        "the nodes of one solver so that the error of its samples is least. Both are fitted on "
        "training starts and evaluated on test starts. The error is the RMS distance of a sample "
        "from the exact end of the flow that starts at the same noise. The best baseline has the "
        "lowest error on the test starts among all other solvers and grids: "
        + "; ".join(f"`{name}`, {what}" for name, what in PUBLISHED.items())
        + "; and "
        + ", ".join(f"`{name}`" for name in GRIDS)
        + "."
    ]
    for found in every:
        name = "" if found.problem.name == "mixture" else f"-{found.problem.name}"
        blocks += [
            _table(found),
            Figure(
                f"tuned{name}-error.png",
                _errors(found),
                "Error against NFE on logarithmic axes, in units of x; lower is better. Left: "
                "geometric mean over the starts (typical error). Right: root mean square, which a "
                "few starts between two modes dominate. Fitted weights (heavy) and tuned grids are "
                "chosen on training starts; each baseline is the best on the test starts.",
                "Error against NFE on logarithmic axes, a line for each kind of grid.",
            ),
            Figure(
                f"tuned{name}-nodes.png",
                _nodes(found),
                "Nodes of the time grids on the axis of log-SNR (nats), from noise (left) to clean "
                "data (right). The node at t = 0 lies at infinity and is left out. Blue: fitted or "
                "tuned grids; gray: baselines.",
                "Rows of dots on an axis of log-SNR, one row for each grid.",
            ),
        ]
    return tuple(blocks)


def _table(found: Outcome) -> Table:
    """Error at equal NFE."""
    kinds = list(found.picked)
    header = ("NFE", "error", *kinds, "fixed", *PUBLISHED, "baselines' NFE for fitted's error")
    cells = []
    for budget in found.budgets:
        for place, (_, words, measure) in enumerate(MEASURES):
            ours = [found.picked[kind][budget][place] for kind in kinds]
            rest = [
                found.best_baseline(budget, measure, grids)
                for grids in (GRIDS, *((name,) for name in PUBLISHED))
            ]
            line = [_cell(one, measure) for one in (*ours, *rest)]
            needed = found.needed(measure(ours[0]), measure)
            equal = f"{needed:.1f}" if needed else f"more than {found.most}"
            cells.append((str(budget), words.split()[0].lower(), *line, equal))
    caption = (
        f"{found.problem.title}: typical (geometric mean) and RMS error over "
        f"{len(found.problem.test.starts)} test starts, of the best solver on each kind of grid."
    )
    return Table(header, tuple(cells), caption)


def _cell(one: Evaluation | None, measure: Measure) -> str:
    if one is None:
        return "–"
    solver = one.solver if one.solver not in (FITTED, S4S, S4S_ALT) else ""
    where = one.grid if one.grid in GRIDS or one.solver == FITTED else ""
    source = " ".join(filter(None, (solver, where)))
    return f"{measure(one):.2g}" + (f" ({source})" if source else "")


def _errors(found: Outcome) -> bytes:
    """A chart for each measure; a line for each kind of grid, the first one heavy."""
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
            nfe = sorted({one.nfe for one in found.baselines if one.grid in grids})
            some = [n for n in nfe if n >= budgets[0]]
            some = [n for n in some if len(grids) == 1 or n <= 1.5 * budgets[-1]]
            best = [one for n in some if (one := found.best_baseline(n, measure, grids))]
            lines.append((label, some, [measure(one) for one in best]))
        series = [
            Series(label, x, y, None, *look, *((1.7, 6) if place else (3.4, 9)))
            for place, ((label, x, y), look) in enumerate(zip(lines, LOOKS, strict=True))
            if x
        ]
        ticks = sorted({*lines[0][1], max(n for _, x, _ in lines for n in x)})
        nfe_axis = Axis("NFE", scale="log", ticks=ticks)
        error_axis = Axis("distance from the exact end", scale="log")
        charts.append(Chart(words, nfe_axis, error_axis, series))
    return plots.png(side_by_side(charts, 6.4, 5.8, legend_columns=4, title=found.problem.title))


def _nodes(found: Outcome) -> bytes:
    """The log-SNR of nodes: baselines at NFE 10 (or the middle budget), then ours at all."""
    budgets = found.budgets
    middle = 10 if 10 in budgets else budgets[len(budgets) // 2]
    schedule = found.problem.schedule
    kind = TUNED if TUNED in found.picked else FITTED

    rows = [
        (name, one, "#555555")
        for name in (*GRIDS[:1], *GRIDS[3:], ALIGNED, BOUND, WEIGHTED, STEPWISE)
        if (one := found.best_baseline(middle, typical, (name,)))
    ]
    for budget in budgets:
        one = found.picked[kind][budget][0]
        label = f"tuned for {one.solver}" if kind == TUNED else f"fitted on {one.grid}"
        rows.append((label, one, BLUE))
    series = [
        Series("", schedule.log_snr(one.nodes[:-1]), [k] * one.nodes[1:].numel(), None, ink, "")
        for k, (_, one, ink) in enumerate(rows)
    ]
    x = Axis(r"log-SNR $\log(\alpha_t^2 / \sigma_t^2)$ (nats), from noise to data")
    names = [f"{label}, NFE {one.nfe}" for label, one, _ in rows]
    y = Axis("", len(rows) - 0.5, -0.5, ticks=range(len(rows)), names=names)
    chart = Chart(found.problem.title, x, y, series)
    return plots.png(side_by_side([chart], 11, 1.2 + 0.42 * len(rows)))
