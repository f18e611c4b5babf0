"""Runs the audit: checks every sampler of a library, or of a file, and writes its page."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from diffusion_math.schedule import VPLinear
from diffusion_math.testing.report import Check, Report
from diffusion_math.testing.sampler import ours
from diffusion_math.testing.work_precision import work
from experiments.audit import Config, field, user_file
from experiments.audit.formula import Formula
from experiments.audit.subject import Subject
from experiments.audit.summary import VERDICTS, measurements, table
from experiments.audit.targets import ALL, TARGETS, subjects
from experiments.output import page
from experiments.output.files import to_json, utf8, write_files
from experiments.output.result import Figure, Heading, Part, Result, Table
from experiments.plots import BLUE, GRAY, GREEN, PURPLE, png
from experiments.plots.audit import ladders, orders
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from sd.command_line.terminal import say

SHOWN = ("ddim", "heun", "dpmpp_2m", "deis", "dpmpp_3m", "unipc", "dpm_solver_3s", "lms")
"""Solvers of the work-precision diagram."""
MOST_LINES = 8
"""Lines of the chart of errors of a user's samplers."""
INK = {1: GRAY, 2: BLUE, 3: GREEN, 4: PURPLE}
"""Colors by order."""


def run(config: Config) -> Result:
    if config.target == ALL:
        return field.run(config)
    chosen = subjects(config.target, config.quick)
    if config.samplers:
        names = sorted({subject.name for subject in chosen})
        if not set(config.samplers) <= set(names):
            got = " ".join(config.samplers)
            raise ValueError(f"--samplers: wanted some of {', '.join(names)}, got {got}")
        chosen = [one for one in chosen if one.name in config.samplers]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are small: threads cost more than they bring
    try:
        each = tqdm(chosen, unit="sampler", disable=None)
        path = Path(config.target.rpartition(":")[0])
        with nullcontext() if config.target in TARGETS else user_file.theirs(path):
            audited = [(subject, subject.audit().rows) for subject in each]
    finally:
        torch.set_num_threads(threads)
    rows = [row for _, found in audited for row in found]
    return Result(
        "audit",
        f"Audit of {config.target}",
        measurements(rows),
        _parts(config, rows),
        {
            "settings": config,
            "found": tuple(rows),
            "records": Report(tuple(rows)).records(),
            "reproducers": _reproducers(audited),
        },
    )


def write(result: Result, folder: Path) -> list[Path]:
    """audit.html first; audit.json is the list of rows, or of libraries."""
    files = {
        "audit.html": utf8(page.html(result.title, [result])),
        "audit.md": utf8(page.markdown(result.title, [result])),
        "audit.json": to_json(result.data["records"]),
    }
    files |= {figure.name: figure.image for figure in result.figures}
    files |= {name: utf8(text) for name, text in result.data["reproducers"].items()}
    return write_files(folder, files)


def conclude(result: Result) -> int:
    """Print the checks of each sampler; the exit code is 1 where there is a defect, else 0.

    Of a library, the rows that are not sound are printed.
    """
    target, found = result.data["settings"].target, result.data["found"]
    if target == ALL:
        return field.conclude(result)
    own = target not in TARGETS
    for (name, setting), rows in groupby(found, lambda row: (row.sampler, row.setting)):
        shown = tuple(row for row in rows if own or row.verdict != "sound")
        if shown:
            say(name if setting == name else f"{name}: {setting}")
            for line in str(Report(shown)).splitlines():
                say(f"  {line}")
    counted = Counter(row.verdict for row in found)
    say(", ".join(f"{one}: {counted[one]}" for one in VERDICTS))
    return int(counted["defect"] > 0)


def _parts(config: Config, rows: Sequence[Check]) -> tuple[Part, ...]:
    who = sorted({f"{row.library} {row.version}".strip() for row in rows})
    samplers = {(row.sampler, row.setting) for row in rows}
    lead = (
        f"{len(samplers)} samplers and settings of {', '.join(who)}, run on three test problems "
        "with exact solutions: a point, a Gaussian, and a mixture with its flow. A limit is a "
        "known limitation, of the method or documented. A defect is a claim that the sampler does "
        "not keep."
    )
    parts: list[Part] = [lead]
    fitted = [row for row in rows if row.check in ("order", "weak order")]
    fitted = [row for row in fitted if row.value is not None and math.isfinite(row.value)]
    if fitted:
        caption = (
            "Convergence order of each sampler and setting: measured (dot, with the interval over "
            "the numbers of steps) and claimed (open ring). A dot more than 0.35 to the left of "
            "its ring is a defect, or a limit where only the first step has a lower order."
        )
        alt = "Dots of measured orders beside rings of claimed orders, a line for each sampler."
        figure = Figure("audit-orders.png", png(orders(fitted)), caption, alt)
        parts += [Heading("Measured and claimed orders"), figure]
    if fitted and config.target not in TARGETS:
        caption = (
            "Error against the exact solution over the step size, on logarithmic axes, for the "
            f"first {MOST_LINES} fits at most. The slope of a line is the measured order; the "
            "dashed line has the slope of the claimed order."
        )
        alt = "Falling lines of errors beside dashed lines of the claimed orders."
        drawing = png(ladders(fitted[:MOST_LINES]))
        parts += [Figure("audit-errors.png", drawing, caption, alt)]
    parts += _work(config.quick) if config.target == "ours" else ()
    for verdict, title, more in (
        ("defect", "Defects", " The folder of this page has a reproducer for each, in order."),
        ("limit", "Known limitations", ""),
    ):
        some = [row for row in rows if row.verdict == verdict]
        if some:
            parts += [Heading(title), table(some, f"{title}.{more}")]
    cells = tuple(
        (row.sampler, row.setting, row.check, str(row.expected), row.shown, row.verdict)
        for row in rows
        if "order" in row.check
    )
    head = ("sampler", "setting", "check", "claimed", "measured (interval)", "verdict")
    return (*parts, Heading("All orders"), Table(head, cells, "All measured convergence orders."))


def _work(quick: bool) -> tuple[Part, ...]:
    """The work-precision diagram of our deterministic solvers: error against NFE and seconds."""
    seconds_of, nfe_of, styles = [], [], {order: iter(["-", "--", ":", "-."]) for order in INK}
    counts, repeats = ((4, 8, 16), 1) if quick else ((4, 8, 16, 32, 64, 128), 3)
    for sampler in ours(VPLinear(), SHOWN):
        work(sampler, (4,))  # warm-up
        runs = [work(sampler, counts, copies=64) for _ in range(repeats)]
        points = runs[0]
        nfe = [point.calls for point in points]
        seconds = [median(one.seconds for one in same) for same in zip(*runs, strict=True)]
        errors = [point.error for point in points]
        label, style = f"{sampler.name} (order {sampler.order})", next(styles[sampler.order])
        for series, x in ((nfe_of, nfe), (seconds_of, seconds)):
            series.append(Series(label, x, errors, None, INK[sampler.order], style, size=4.0))
    error = Axis("RMS error", scale="log")
    panels = [
        Chart("", Axis("NFE", scale="log"), error, nfe_of, legend="lower left"),
        Chart("", Axis("seconds, one core", scale="log"), error, seconds_of, legend=""),
    ]
    caption = (
        "Work-precision diagram: RMS error at the end of a mixture's flow against NFE (function "
        f"evaluations of the denoiser) and seconds, for {counts[0]} to {counts[-1]} steps of "
        f"{len(SHOWN)} solvers, on logarithmic axes. The color is the order; a higher order has a "
        "steeper line. This denoiser is cheap, so the seconds include the solver's own arithmetic; "
        "with a network the NFE determines the time."
    )
    alt = "Two panels of falling lines, error against NFE and seconds, a line for each solver."
    return (Figure("audit-work.png", png(side_by_side(panels, 6.5, 5.6)), caption, alt),)


def _reproducers(audited: Sequence[tuple[Subject | Formula, tuple[Check, ...]]]) -> dict[str, str]:
    """A script for each defect, which exits with 1 while it is there.

    It needs only the library and this project.
    """
    scripts: dict[str, str] = {}
    for subject, rows in audited:
        for row in rows:
            if row.verdict != "defect":
                continue
            name = re.sub(r"[^a-z0-9]+", "-", f"{row.sampler} {row.check}".lower()).strip("-")
            head = [f"{row.library} {row.version}, {row.sampler}({row.setting})"]
            head += [f"{row.check}: expected {row.expected}, measured {row.shown}", row.note]
            lines = ['"""' + "\n".join(head).replace('"', "'") + '"""', "", subject.again, ""]
            lines += [f"rows = [row for row in subject.audit().rows if row.check == {row.check!r}]"]
            lines += ["for row in rows:"]
            lines += ['    print(f"expected {row.expected}, measured {row.shown}", row.note)']
            lines += ['raise SystemExit(any(row.verdict == "defect" for row in rows))', ""]
            scripts[f"defect-{len(scripts) + 1:02d}-{name}.py"] = "\n".join(lines)
    return scripts
