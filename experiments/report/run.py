"""All experiments in one illustrated report: report.html, report.md and report.json."""

import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.common.machine import cores
from experiments.common.sweep import Done, attempt, each, processes
from experiments.output import page
from experiments.output.files import to_json, utf8, write_files
from experiments.output.result import MEASURED, Measurement, Part, Result
from experiments.report import Config
from experiments.report.sections import ALONE, SECONDS, make
from sd.command_line.entry import line, reason
from sd.command_line.terminal import say
from sd.embedded import is_embedded

TITLE = "From equations to images: the report"

LECTURE_PROMPT = (
    "The lecture's own prompt is “A cat stretching on the floor, highly detailed, ultra sharp, "
    "cinematic, 100mm lens, 8k resolution.” The embedded model knows colored shapes alone, and "
    "its vocabulary does not have these words. So every experiment here uses prompts of shapes."
)


@dataclass
class Report:
    """The report so far: what every section came to, in the order of their ends."""

    config: Config
    done: dict[str, Done[str, Result]] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @property
    def results(self) -> list[Result]:
        """The sections in the report's order; those that are not there say so."""
        return [self._section(name) for name in SECONDS]

    def _section(self, name: str) -> Result:
        if name not in self.done:
            return Result(name, f"{name} (to come)", (), ("This experiment has not run yet.",), {})
        found = self.done[name]
        if found.value is not None:
            return found.value
        said = f"This experiment failed: {_reason(found.error)}."
        return Result(name, f"{name} (failed)", (), (said,), {})

    @property
    def rows(self) -> list[Measurement]:
        """The measurements of all sections, then the seconds that each of them took."""
        rows = [row for result in self.results for row in result.rows]
        for name, one in self.done.items():
            claim = f"Seconds that the report's section `{name}` took"
            rows.append(Measurement(f"report-seconds-{name}", claim, one.seconds, None, MEASURED))
        return rows

    @property
    def lead(self) -> tuple[Part, ...]:
        """What stands on top: how the report was made, and each experiment's first claim."""
        seconds = time.perf_counter() - self.started
        how = "quick setting: too few samples to conclude from" if self.config.quick else "default"
        left = len(SECONDS) - len(self.done)
        first = {name: one.value.rows for name, one in self.done.items() if one.value is not None}
        names = [name for name in SECONDS if first.get(name)]
        return (
            f"Made by `python -m experiments report` in {seconds:.0f} s ({how}). Every sampling "
            "step was taken by the primitives of `diffusion_math`. A program that reads pixels "
            "decides whether an image shows what its prompt says.",
            *([f"{left} of {len(SECONDS)} sections are still to come."] if left else []),
            LECTURE_PROMPT,
            page.rows_table([row for name in names for row in first[name] if row.name == name]),
        )

    def write(self) -> list[Path]:
        """The report so far, each file whole; the paths of the three to look at."""
        results = self.results
        files = {
            "report.html": utf8(page.html(TITLE, results, self.lead)),
            "report.md": utf8(page.markdown(TITLE, results, self.lead)),
            "report.json": to_json(self.rows),
        }
        return write_files(self.config.out, files)

    def add(self, one: Done[str, Result]) -> None:
        """Take a section in, and write it with its figures before the pages that name them."""
        self.done[one.name] = one
        if one.value is not None:
            page.write(one.value, self.config.out)
        self.write()


def run(config: Config) -> Report:
    """Every experiment, as many at a time as there are cores; written as they end."""
    report = Report(config)
    workers = config.workers or (cores() if is_embedded(config.model.weights) else 1)
    names = sorted(set(SECONDS) - {ALONE}, key=lambda name: -SECONDS[name])
    names.sort(key=lambda name: name != "pictures")  # something to look at comes first
    work = partial(make, config=config)
    total = sum(SECONDS.values())
    shape = "{percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"
    try:
        with tqdm(total=total, bar_format=shape, disable=None) as bar:
            report.write()
            with processes(workers, max(1, cores() // workers)) as executor:
                for one in each(work, names, executor, bar.refresh):
                    _take(report, one, bar)
            _take(report, attempt(work, ALONE), bar)
    except KeyboardInterrupt:
        ready = f"{len(report.done)} of {len(SECONDS)} sections are in"
        raise KeyboardInterrupt(f"{ready} {config.out / 'report.html'}") from None
    failures = [one.error for one in report.done.values() if one.error is not None]
    if failures:
        raise failures[0]
    return report


def _take(report: Report, one: Done[str, Result], bar: "tqdm[Any]") -> None:
    """Add a section and say so; an error of the first one, which loads the model, ends the run."""
    report.add(one)
    bar.update(SECONDS[one.name])
    counted = f"{len(report.done)} of {len(SECONDS)}"
    bar.set_postfix_str(f"{counted} sections")
    for said in one.warnings:
        warnings.warn(f"{one.name}: {said}", stacklevel=1)
    failed = f" failed: {_reason(one.error)}" if one.error is not None else ""
    with tqdm.external_write_mode():
        say(f"[{counted}] {one.name}, {one.seconds:.0f} s{failed}", error=True)
    if one.error is not None and one.name == "pictures":
        raise one.error


def _reason(error: Exception | None) -> str:
    """An error on one line."""
    return reason(error) or line(f"{type(error).__name__}: {error}") if error is not None else ""


def write(report: Report, _: Path) -> list[Path]:
    """The three files to look at: the run has written all."""
    return report.write()
