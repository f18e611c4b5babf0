"""E1 to E8: the lecture's printed forms beside the true ones, each with a counterexample."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments.results import FAILS, HOLDS, Result, Row, Table
from sd.flags import Range, Seed, check

if TYPE_CHECKING:
    from experiments.erratum import Erratum


@dataclass(frozen=True)
class Config:
    """Eight statements of the lecture that are not true as printed (E1-E8), each with a picture.

    In every picture orange is the printed form and blue the corrected one, computed by the
    primitive that carries it. An erratum holds only if what is measured agrees with the corrected
    form within a bound that has a reason, and contradicts the printed one.
    """

    samples: Annotated[int, Range(1000, 10**7)] = 20_000
    """Draws behind each of the pictures that have any, at least 1000."""
    seed: Seed = 0
    """Of the draws."""
    out: Path = Path("out/errata")
    """Folder for errata.md, errata.json and the figures."""

    def __post_init__(self) -> None:
        check(self)


def run(config: Config) -> Result:
    """Measure each, and set both forms beside it."""
    from tqdm import tqdm

    from experiments import errata_forward, errata_langevin, errata_reverse, errata_score

    every = {
        name: measure
        for module in (errata_forward, errata_reverse, errata_langevin, errata_score)
        for name, measure in module.ERRATA.items()
    }
    found = [
        every[name](config.samples, config.seed)
        for name in tqdm(sorted(every), unit="erratum", disable=None)
    ]
    lead = (
        "Eight statements of the lecture need a correction. Orange is what is printed, blue what "
        "is true, computed by the primitives that carry it; what is sampled is dark."
    )
    parts: list[Any] = [lead, _table(found)]
    for one in found:
        parts += [f"{one.id}, of {one.of}. Printed: {one.printed}. True: {one.true}.", one.figure]
    data: dict[str, Any] = {
        "settings": config,
        "errata": {
            one.id: {"true_off": one.true_off, "printed_off": one.printed_off, **one.data}
            for one in found
        },
    }
    rows = (_summary(found), *(one.row() for one in found))
    return Result("errata", "Errata", rows, tuple(parts), data)


def _summary(found: "list[Erratum]") -> Row:
    right = sum(one.verdict == HOLDS for one in found)
    claim = (
        f"E1-E8: errata, of {len(found)}, whose printed form is rejected and whose corrected form "
        f"holds; all of them"
    )
    verdict = HOLDS if right == len(found) else FAILS
    return Row("errata", claim, float(right), None, verdict)


def _table(found: "list[Erratum]") -> Table:
    lines = [
        (one.id, one.printed, one.true, f"{one.printed_off:.3g}", f"{one.true_off:.3g}", one.bound)
        for one in found
    ]
    header = ("erratum", "printed", "true", "printed is off by", "true is off by", "in units of")
    caption = (
        "How far each form lies from what was measured, in units of the bound: beyond 1 it is "
        "wrong, within 1 it holds."
    )
    return Table(header, tuple(lines), caption)
