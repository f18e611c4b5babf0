"""The audit of every library, each in an interpreter of its own, and the table of all of them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from diffusion_math.testing.report import Check, Report
from experiments.audit import Config, summary
from experiments.audit.targets import MISSING, TARGETS
from experiments.common.machine import cores
from experiments.common.sweep import cluster, processes, swept
from experiments.output.result import Heading, Part, Result, Table
from sd.command_line.terminal import say

KINDS = {
    "schedule": r"schedule|table|beta|abar|alphas_|snr|times$|range|^grid|of steps|num_steps|count$"
    r"|^inverse|density|index",
    "forward": r"^forward|transition|sigma_t noise|add_noise|scale_noise|q_sample",
    "posterior": r"posterior(?!'s)|learned variance|mean of q|^variance$",
    "maps": r"predict|^score|velocity|unit variance|sigma_t x0|calculate_v|precond|^rate",
    "loss": r"loss|weight|self-conditioning|tangent|distance|dream",
    "bound": r"likelihood|bound|decoder|prior term",
    "EMA": r"average$|sigma_rel",
    "guidance": r"guid|classifier|cond_scale|posterior's score",
    "start": r"start$|image-to-image|inversion",
    "kernel": r"invariant|stationary|chain|covariance|restarts",
    "levels": r"levels?$|last|told|finite|noise|idle|one step|timesteps|spread|evaluations"
    r"|deviation|dtype",
    "order": r"\border\b",
}
"""The table's columns: the first whose words a check's name has, else its function's name."""

OTHER = "other"

LONGEST = 1800
"""Seconds after which a library counts as crashed."""

SLOW = ("diffusers", "denoising-diffusion-pytorch", "blackjax", "monai", "ours")
"""What is begun first, so that no core waits for it at the end."""


@dataclass(frozen=True)
class Library:
    """What was found in one library.

    Attributes:
        failure: why there are no rows: it is not installed, or its audit crashed.
        rows: its checks.
    """

    name: str
    seconds: float
    failure: str = ""
    rows: tuple[Check, ...] = ()

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return vars(self) | {"rows": Report(self.rows).records()}

    @property
    def title(self) -> str:
        """Its name and version."""
        return f"{self.name} {self.rows[0].version}".strip() if self.rows else self.name

    @property
    def missing(self) -> bool:
        """Whether it is not installed."""
        return self.failure.endswith(MISSING)

    @property
    def crashed(self) -> bool:
        """Whether its audit came to no result."""
        return bool(self.failure) and not self.missing

    @property
    def state(self) -> str:
        """The counts of its verdicts, or that there are none."""
        if self.failure:
            return "not installed" if self.missing else "crashed"
        return summary.counts(self.rows)


def run(config: Config, targets: Sequence[str] = TARGETS) -> Result:
    """Audit each target by the command of its own, as many at a time as there are cores.

    With `config.scheduler` they run on the workers of a cluster.
    """
    if config.samplers:
        raise ValueError("--samplers: wanted none with --target field; audit one library alone")
    first = sorted(targets, key=lambda name: name not in SLOW)
    where = cluster(config.scheduler) if config.scheduler else processes(cores())
    bar = tqdm(total=len(first), unit="library", disable=None)
    with bar, where as executor:
        found = swept(partial(audited, config=config), first, executor, bar.update)
    libraries = sorted(found, key=lambda one: targets.index(one.name))
    rows = [row for one in libraries for row in one.rows]
    data = {
        "settings": config,
        "found": tuple(rows),
        "records": [one.record() for one in libraries],
        "reproducers": {},
        "libraries": libraries,
    }
    return Result("audit", "Audit of the field", summary.measurements(rows), parts(libraries), data)


def audited(target: str, config: Config) -> Library:
    """What the command finds in one target, in the folder of its name."""
    folder = config.out / target.replace(":", "-").replace("/", "-")
    written = folder / "audit.json"
    written.unlink(missing_ok=True)  # of an earlier run
    command = [sys.executable, "-W", "ignore", "-m", "experiments", "audit", "--target", target]
    command += ["--out", str(folder), *(["--quick"] if config.quick else [])]
    began = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            env={"OMP_NUM_THREADS": "1", **os.environ},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LONGEST,
        )
        said = ended.stderr.strip().splitlines()[-1:]
        failure = ": ".join([f"exit code {ended.returncode}", *said])
    except subprocess.TimeoutExpired:
        failure = f"no end after {LONGEST} seconds"
    seconds = time.monotonic() - began
    if not written.exists():
        return Library(target, seconds, failure)
    return Library(target, seconds, "", tuple(checks(json.loads(written.read_bytes()))))


def checks(records: Sequence[dict[str, Any]]) -> Iterator[Check]:
    """Rows from what `Report.records` has made of them."""
    for record in records:
        yield Check(**{name: value for name, value in record.items() if name != "value"})


def from_json(text: str | bytes) -> list[Library]:
    """The libraries of a field's audit.json."""
    return [Library(**{**one, "rows": tuple(checks(one["rows"]))}) for one in json.loads(text)]


def kind(row: Check) -> str:
    """The column of a check."""
    for words in (row.check, row.sampler):
        for name, pattern in KINDS.items():
            if re.search(pattern, words):
                return name
    return OTHER


def table(libraries: Sequence[Library]) -> Table:
    """Library x kind of check: the table that docs/audit.md shows."""
    lines = []
    for one in libraries:
        of = {name: [row for row in one.rows if kind(row) == name] for name in (*KINDS, OTHER)}
        cells = (summary.fraction(rows) if rows else "–" for rows in of.values())
        every = one.state if one.failure else summary.fraction(one.rows)
        lines.append((one.title, *cells, every, f"{one.seconds:.0f}"))
    head = ("library", *KINDS, OTHER, "all", "s")
    caption = (
        "Checks of each library by what they look at. 12: all 12 are sound. 10/1/2: 10 are sound, "
        "1 is a known limitation, 2 are defects. maps: between predictions of noise, data, "
        "velocity and score. bound: likelihoods too. EMA: averages of weights. start: "
        "image-to-image, inversion. kernel: Langevin and MCMC. levels: mean, noise "
        "and end of sampling. s: seconds of its process, beside others."
    )
    return Table(head, tuple(lines), caption)


def parts(libraries: Sequence[Library]) -> tuple[Part, ...]:
    """The page: the table of all, what could not be audited, the defects of each."""
    found: list[Part] = [table(libraries)]
    missing = [one.name for one in libraries if one.missing]
    if missing:
        installs = "`make peers` installs what can be audited."
        found.append(f"Not installed: {', '.join(missing)}. {installs}")
    found += [f"{one.name} {one.state}: {one.failure}" for one in libraries if one.crashed]
    found.append(
        "The folder of each library has its page, audit.html, and a reproducer for each defect."
    )
    for one in libraries:
        defects = [row for row in one.rows if row.verdict == "defect"]
        if defects:
            found += [Heading(f"Defects in {one.title}"), summary.table(defects, "In order.")]
    return tuple(found)


def conclude(result: Result) -> int:
    """Print a line for each library; the exit code is 1 where there is a defect or a crash."""
    libraries = result.data["libraries"]
    for one in libraries:
        say(f"{one.title}: {one.state}{f' ({one.failure})' if one.crashed else ''}")
    say(summary.counts(result.data["found"]))
    return int(
        any(one.crashed for one in libraries)
        or any(row.verdict == "defect" for row in result.data["found"])
    )
