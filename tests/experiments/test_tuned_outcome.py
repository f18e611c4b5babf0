"""What the experiment on fitted solvers finds: who is best, what is saved, the test side unseen."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.tuned import baselines, figures, problems
from experiments.tuned import run as tuned
from experiments.tuned.baselines import BaselineGrids, Evaluation, rms, typical
from experiments.tuned.outcome import Outcome
from tests.support.tiny_tuned import TINY

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own


def evaluation(errors, nfe, solver="unipc", grid="tuned"):
    nodes = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return Evaluation(solver, grid, nfe, nodes, torch.tensor(errors, dtype=torch.float64))


def test_the_best_of_the_rest_and_what_is_saved():
    """Known errors: who is best at a budget, by which measure, and with how many nfe."""
    ends = torch.zeros(4), torch.zeros(4)
    side = problems.Side(None, None, *ends, None, torch.full((4,), 0.01))
    problem = problems.FittingProblem("mixture", "Known", None, side, side)
    calm, wild = [0.2] * 4, [0.1, 0.1, 0.1, 1.6]
    others = [evaluation(calm, 5, grid="karras"), evaluation(wild, 5, grid="ays")]
    others.append(evaluation([0.05] * 4, 9, grid="karras"))
    mine = evaluation([0.05] * 4, 5)
    found = Outcome(problem, others, {"fitted": {5: (mine, mine)}})
    assert typical(others[1]) == pytest.approx(0.2) and rms(others[1]) > rms(others[0])
    assert found.best_baseline(5, rms).grid == "karras"
    assert found.best_baseline(5, rms, ("ays",)).grid == "ays"
    assert found.best_baseline(9, rms).nfe == found.most == 9
    assert (
        found.best_baseline(4, rms) is None and found.best_baseline(9, rms, ("linspace",)) is None
    )
    assert found.needed(0.05, rms) == pytest.approx(9)
    assert found.needed(0.1, rms) == pytest.approx(5 * 1.8**0.5)
    assert found.needed(0.2, rms) == found.needed(0.3, rms) == 5
    for grid in ("karras", "linspace"):  # no better with two nfe more; another's small gain
        more = replace(found, baselines=[*others, evaluation([0.199] * 4, 7, grid=grid)])
        between = 5 * 1.8**0.5 if grid == "linspace" else 7 * (9 / 7) ** (math.log(1.99, 3.98))
        assert more.needed(0.1, rms) == pytest.approx(between)
    same = replace(found, baselines=[*others, evaluation(calm, 7, grid="karras")])
    assert same.needed(0.1, rms) == pytest.approx(5 * 1.8**0.5)
    late = replace(found, baselines=[*others, evaluation([0.1] * 4, 12, grid="linspace")])
    assert late.needed(0.1, rms) == pytest.approx(5 * 1.8**0.5)
    assert found.needed(0.01, rms) is None
    told = {row.name: row for row in figures.rows_of(found)}
    assert told["fitted"].measured == pytest.approx(0.25)
    assert told["fitted-5-rms"].measured == pytest.approx(0.25)
    assert told["fitted-5-rms"].interval == pytest.approx((0.25, 0.25))
    assert told["fitted-saving-rms"].measured == pytest.approx(5 / 9)
    # One start carries the wild one's error: with other starts it might have been the nearest.
    assert told["fitted-saving-rms"].interval == pytest.approx((5 / 9, 1.0))
    alone = replace(found, baselines=[others[0], others[2]])
    [row] = [row for row in figures.rows_of(alone) if row.name == "fitted-saving-rms"]
    assert row.interval == pytest.approx((5 / 9, 5 / 9)) and row.verdict == "holds"
    assert told["tuned-reference"].measured == pytest.approx(0.2)
    two = replace(alone, picked={"fitted": {5: (mine, mine), 9: (mine, mine)}})
    assert two.share("fitted", 1, rms) == pytest.approx((5 / 9 + 1) / 2)  # no geometric mean
    mixed = evaluation([0.05, 0.15] * 2, 5)  # between those of NFE 9 and those of 5, not alike
    told = {
        r.name: r for r in figures.rows_of(replace(found, picked={"fitted": {5: (mixed,) * 2}}))
    }
    row = told["fitted-saving-rms"]
    assert row.interval[0] < row.measured < row.interval[1] and row.verdict == "inconclusive"
    unreached = evaluation([0.01] * 4, 5)
    told = figures.rows_of(Outcome(problem, others, {"fitted": {5: (unreached, unreached)}}))
    assert {row.name: row for row in told}["fitted-saving-typical"].measured == pytest.approx(0.5)


class Unseen:
    """The test side, where nothing may look: whatever is read of it is an error."""

    def __getattr__(self, name):
        raise AssertionError(f"the test side's {name} was read")


def test_nothing_is_fitted_or_tuned_with_a_look_at_the_test_starts(monkeypatch):
    """All of `fit` and `tune`, and S4S until it is evaluated, without a test side."""
    monkeypatch.setattr(problems, "FINE", 4)
    problem = problems.mixture(8, 8, 8, 9, 0)
    published = baselines.BaselineGrids(problem, torch.zeros(0), {})
    blind = replace(problem, test=Unseen())
    assert baselines.fit(blind, published.plain(4), (1.0,), 1, 1, 1)
    assert baselines.tune(blind, "unipc", published.plain(4), (1.0,), None, 1)
    with pytest.raises(AssertionError, match="the test side's"):
        baselines.evaluate(blind, blind.test, "unipc", "grid", published.plain(4)["trailing"])


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_best_is_chosen_on_the_training_starts(monkeypatch, place):
    """40 candidates that differ by chance alone. A choice by the test starts would be a win.

    What is picked is the training side's best, by its own measure; on the test side it is one of
    many, where the best there is 30% below the mean.
    """
    draws = torch.Generator().manual_seed(1)
    seen = {side: torch.randn(40, 8, generator=draws).exp() for side in ("train", "test")}

    def named(k, side):
        return evaluation(seen[side][k].tolist(), 4, solver="fitted", grid=str(k))

    problem = problems.mixture(8, 8, 8, 6, 0)
    monkeypatch.setattr(tuned, "fit", lambda *given: [named(k, "train") for k in range(40)])
    monkeypatch.setattr(
        tuned,
        "evaluate",
        lambda problem, side, solver, grid, *more: named(
            int(grid) if grid.isdigit() else 0, "test" if side is problem.test else "train"
        ),
    )
    config = replace(TINY, rounds=0, s4s=0, more=(), beside=("unipc",))
    candidates = BaselineGrids.of(problem, config.seed)
    _, pairs = tuned._made(config, problem, candidates, ("fitted",), (tuned.BUDGET, 4))
    picked, measure = pairs["fitted"][place], (typical, rms)[place]
    best = {side: min(range(40), key=lambda k, side=side: measure(named(k, side))) for side in seen}
    assert picked.grid == str(best["train"]) != str(best["test"])
    assert torch.equal(picked.errors, named(best["train"], "test").errors)
    every = torch.tensor([measure(named(k, "test")) for k in range(40)]).mean()
    assert measure(named(best["test"], "test")) < 0.7 * every < measure(picked)
