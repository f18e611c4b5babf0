"""The outcome of `tuned` on one test problem: our errors, the baselines' and the NFE saved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from experiments.tuned.baselines import FITTED, Evaluation, Measure
from experiments.tuned.problems import FittingProblem

Pair = tuple[Evaluation, Evaluation]
PairedError = Callable[[Evaluation, Evaluation], float]
"""The error of a baseline, given one of our evaluations."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The evaluations on the test side of one problem.

    baselines: all solvers and grids that are not ours.
    picked: for each of our methods and each budget, the two with the lowest typical and the lowest
    RMS error on the training side.
    """

    problem: FittingProblem
    baselines: list[Evaluation]
    picked: dict[str, dict[int, Pair]]

    @property
    def budgets(self) -> list[int]:
        """The NFE budgets."""
        return list(self.picked[FITTED])

    @property
    def most(self) -> int:
        """The largest NFE of the baselines."""
        return max(one.nfe for one in self.baselines)

    def best_baseline(
        self, budget: int, measure: Measure, grids: Sequence[str] = ()
    ) -> Evaluation | None:
        """The baseline (on these grids) with the lowest test error within an NFE budget."""
        fits = [one for one in self.baselines if one.nfe <= budget]
        fits = [one for one in fits if not grids or one.grid in grids]
        return min(fits, key=measure, default=None)

    def needed(self, error: float, measure: Measure) -> float | None:
        """The NFE at which the baselines reach an error; None if none does."""
        lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for one in self.baselines:
            lines.setdefault((one.solver, one.grid), []).append((one.nfe, measure(one)))
        reached = [nfe for line in lines.values() if (nfe := _reached(line, error))]
        return min(reached, default=None)

    def share(
        self, kind: str, place: int, measure: Measure, beside: PairedError | None = None
    ) -> float:
        """The mean over the budgets of our NFE over the NFE that the baselines need.

        An error that no baseline reaches counts as the largest NFE plus 1. `place` selects from a
        pair; `beside` may replace the measured error of the baselines.
        """
        needs = []
        for budget, pair in self.picked[kind].items():
            mine = pair[place]
            baselines = partial(beside, mine) if beside else measure
            needs.append((budget, self.needed(measure(mine), baselines)))
        return sum(budget / (nfe or self.most + 1) for budget, nfe in needs) / len(needs)


def _reached(line: Sequence[tuple[int, float]], error: float) -> float | None:
    """The NFE at which a solver on one kind of grid reaches an error.

    Between two measured NFE at which the error falls, it is interpolated linearly in logarithms.
    """
    before: tuple[int, float] | None = None
    for nfe, found in sorted(line):
        if found <= error:
            if before is None:
                return nfe
            fewer, worse = before
            share = math.log(worse / error) / math.log(worse / found)
            return fewer * math.exp(share * math.log(nfe / fewer))
        if before is None or found < before[1]:
            before = nfe, found
    return None
