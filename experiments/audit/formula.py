"""A function of a library that has a formula, and the assertion that compares the two."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, final

import torch

from diffusion_math.testing import MistakeError
from diffusion_math.testing.report import Check, Report, Verdict
from diffusion_math.testing.verdicts import Origin


@final
@dataclass(frozen=True)
class Formula:
    """What a library exports, and what holds it to its formula.

    Attributes:
        name: what is exported, such as "GaussianDiffusion.q_posterior".
        check: the formula's name, as in `assert_...`.
        run: the assertion; it raises AssertionError where the formula does not hold.
        limit: where the library states openly that it does otherwise, or why it must.
        again: lines of Python that make the name `subject`, of this kind, anew.
    """

    name: str
    check: str
    run: Callable[[], Any]
    who: Origin
    limit: str = ""
    again: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the library's others."""
        return self.name, self.check, self.who.setting

    def audit(self) -> Report:
        """One row."""
        measured, verdict, note = self._verdict()
        who = self.who
        row = (who.library, who.version, self.name, who.setting, self.check, "the formula")
        return Report((Check(*row, measured, verdict, note),))

    def _verdict(self) -> tuple[str, Verdict, str]:
        bad: Verdict = "limit" if self.limit else "defect"
        try:
            self.run()
        except MistakeError as wrong:
            notes = [str(one) for one in wrong.differences[1:]]
            notes += [f"diagnosis: {one.name}" for one in wrong.mistakes] + [self.limit]
            first = str(wrong.differences[0] if wrong.differences else wrong)
            return first, bad, "; ".join(filter(None, notes))
        except Exception as error:  # code that is audited may raise anything
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            first, *rest = (line.strip() for line in f"{kind}{error}".splitlines() or [kind])
            return first, bad, "; ".join([*rest, self.limit] if self.limit else rest)
        return "holds", "sound", self.limit


def assert_same(name: str, got: Any, wanted: Any, slack: float = 1e-4) -> None:
    """Two values of one thing, most of all where the library says it in two ways."""
    worst = float((torch.as_tensor(got).detach().double() - torch.as_tensor(wanted)).abs().max())
    assert worst <= slack, f"{name}: differs by {worst:.4g}"


def formulas_of(
    library: str,
    setting: str,
    each: Mapping[tuple[str, str], Callable[[], Any]],
    limits: Mapping[str, str] | None = None,
    distribution: str = "",
) -> Iterator[Formula]:
    """Formulas of a library at one setting, by what is exported and the formula's name.

    Args:
        distribution: what it is installed as, where its name as a target is another.
    """
    module = library.replace("-", "_")
    for (name, check), run in each.items():
        again = (
            f"from experiments.audit.peers.{module} import subjects\n\n"
            f"own = ({name!r}, {check!r}, {setting!r})\n"
            "subject = next(one for one in subjects(quick=False) if one.key == own)"
        )
        who = Origin(library, version(distribution or library), setting)
        yield Formula(name, check, run, who, (limits or {}).get(name, ""), again)
