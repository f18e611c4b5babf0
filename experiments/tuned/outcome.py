"""What `tuned` found in one world: ours and all others' walks, who is best and what is saved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from experiments.tuned.baselines import FITTED, Measure, Walked
from experiments.tuned.problems import FittingProblem

Pair = tuple[Walked, Walked]
Beside = Callable[[Walked, Walked], float]
"""The error of another walk, beside one of ours."""


@dataclass(frozen=True, eq=False)
class Found:
    """One world's walks on its test side. `picked` are, for each kind of ours at each budget, the
    walks that were best on the training side by typical error and by RMS; `others` all the rest."""

    world: FittingProblem
    others: list[Walked]
    picked: dict[str, dict[int, Pair]]

    @property
    def budgets(self) -> list[int]:
        """The calls that walks were given."""
        return list(self.picked[FITTED])

    @property
    def most(self) -> int:
        """The most calls that any of the others was given."""
        return max(one.calls for one in self.others)

    def rest(self, budget: int, measure: Measure, grids: Sequence[str] = ()) -> Walked | None:
        """The best of the others (on those grids) that ask no more often, seen on the test side."""
        fits = [one for one in self.others if one.calls <= budget]
        fits = [one for one in fits if not grids or one.grid in grids]
        return min(fits, key=measure, default=None)

    def needed(self, error: float, measure: Measure) -> float | None:
        """The calls with which one of the others would come as near; None if none came so near."""
        lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for one in self.others:
            lines.setdefault((one.solver, one.grid), []).append((one.calls, measure(one)))
        reached = [calls for line in lines.values() if (calls := _reached(line, error))]
        return min(reached, default=None)

    def share(self, kind: str, place: int, measure: Measure, beside: Beside | None = None) -> float:
        """Calls of ours over those needed, the mean of all budgets; `place` in a pair.

        What nobody reached counts as one call more than any was given. `beside` may give another
        error of the others than the one measured.
        """
        needs = []
        for budget, pair in self.picked[kind].items():
            mine = pair[place]
            others = partial(beside, mine) if beside else measure
            needs.append((budget, self.needed(measure(mine), others)))
        return sum(budget / (calls or self.most + 1) for budget, calls in needs) / len(needs)


def _reached(line: Sequence[tuple[int, float]], error: float) -> float | None:
    """The calls with which a solver on one kind of grid comes as near.

    Between two numbers of calls at which it got better, on the line through both in logarithms:
    nobody is charged for the calls between, that it was not tried with.
    """
    before: tuple[int, float] | None = None
    for calls, found in sorted(line):
        if found <= error:
            if before is None:
                return calls
            fewer, worse = before
            share = math.log(worse / error) / math.log(worse / found)
            return fewer * math.exp(share * math.log(calls / fewer))
        if before is None or found < before[1]:
            before = calls, found
    return None
