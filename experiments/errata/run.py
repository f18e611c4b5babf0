"""Runs the experiment: measures each erratum and collects verdicts, figures and data."""

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from experiments.errata import Config, forward, langevin, reverse, score
from experiments.errata.erratum import Erratum
from experiments.output.result import HOLDS, Heading, Measurement, Part, Result, Table, holds_if

ERRATA: dict[str, Callable[[int, int], Erratum]] = {
    "E1": forward.e1, "E2": forward.e2, "E3": reverse.e3, "E4": forward.e4,
    "E5": reverse.e5, "E6": langevin.e6, "E7": langevin.e7, "E8": score.e8,
}  # fmt: skip
"""Each as `(samples, seed) -> Erratum`."""


def run(config: Config) -> Result:
    measures = tqdm(ERRATA.values(), unit="erratum", disable=None)
    found = [measure(config.samples, config.seed) for measure in measures]
    lead = (
        "Eight statements of the lecture need a correction. In each figure the printed form is "
        "orange, the corrected one blue, and measured values are dark."
    )
    parts: list[Part] = [lead, _table(found)]
    for one in found:
        said = f"Printed: {one.printed}. True: {one.true}."
        parts += [Heading(f"{one.id}, of claim {one.of}"), said, one.figure]
    data: dict[str, Any] = {
        "settings": config,
        "errata": {
            one.id: {"true_off": one.true_off, "printed_off": one.printed_off, **one.data}
            for one in found
        },
    }
    rows = (_summary(found), *(one.row() for one in found))
    return Result("errata", "Errata", rows, tuple(parts), data)


def _summary(found: list[Erratum]) -> Measurement:
    right = sum(one.verdict == HOLDS for one in found)
    claim = (
        f"E1-E8: errata, of {len(found)}, whose printed form is rejected and whose corrected form "
        f"holds; all of them"
    )
    return Measurement("errata", claim, float(right), None, holds_if(right == len(found)))


def _table(found: list[Erratum]) -> Table:
    lines = [
        (one.id, one.printed, one.true, f"{one.printed_off:.3g}", f"{one.true_off:.3g}", one.bound)
        for one in found
    ]
    header = ("erratum", "printed", "true", "printed is off by", "true is off by", "in units of")
    caption = (
        "Difference of each form from the measurement, in units of the bound: above 1 the form is "
        "wrong, up to 1 it holds."
    )
    return Table(header, tuple(lines), caption)
