"""Error over seconds: the front, the reference, what is counted, and the whole on a tiny model."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diffusion_math.schedule import Discrete
from experiments.tradeoff import run as tradeoff
from experiments.tradeoff.figures import Judged, best
from experiments.tradeoff.measure import (
    EVERYWHERE,
    Point,
    Target,
    TimedSampling,
    certain,
    each,
    pareto,
    rms,
)
from sd.pipeline import TextToImage
from tests.support.result_schema import check

LIMITED = (0.28, 2.9)


def test_the_front_of_known_points() -> None:
    points = [(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (2.0, 3.0), (4.0, 2.0), (1.0, 6.0), (3.0, 1.0)]
    assert pareto(points) == [1, 3, 0]
    assert pareto([]) == []
    # Every point left out is beaten by one on the front, and none on the front by any.
    front = [points[i] for i in pareto(points)]
    for a in points:
        assert any(b[0] <= a[0] and b[1] <= a[1] for b in front)
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(front))


def test_the_front_is_of_medians_and_of_root_mean_squares() -> None:
    slow_once = replace(point("euler", (0.1, 0.1, 0.1)), seconds=(1.0, 1.0, 50.0))
    steady = replace(point("heun", (0.0, 0.0, 0.3)), seconds=(2.0, 2.0, 2.0))
    assert slow_once.error == pytest.approx(0.1)
    assert steady.error == pytest.approx(0.3 / math.sqrt(3))
    assert slow_once.time == (1.0, (1.0, 50.0))
    assert best([steady, slow_once]) == [1]


def test_the_certain_grid_has_nodes_on_both_sides_of_every_jump() -> None:
    schedule = Discrete.scaled_linear()
    grid = certain(schedule, 10, LIMITED)
    alpha, sigma = schedule(grid)
    for end in LIMITED:
        near = (sigma / alpha)[((sigma / alpha) / end - 1).abs() < 1e-5]
        assert len(near) == 2 and near[0] > end > near[1]
    assert len(certain(schedule, 10, EVERYWHERE)) == 11 == len(certain(schedule, 10, (1e-9, 1e9)))


def test_the_reference_is_its_own_and_rows_are_counted(pipeline: TextToImage) -> None:
    """From itself the reference is 0; inside of the interval a call has two rows, outside one."""
    timed = TimedSampling(pipeline, ["a red circle", "a blue star"], [3, 4], 2.0)
    targets = {one: timed.target(one, 8) for one in (EVERYWHERE, LIMITED)}
    again = timed.target(EVERYWHERE, 8)
    assert rms(each(again.ends, targets[EVERYWHERE].ends)) == 0
    assert targets[EVERYWHERE].doubt > 0
    ticks: list[int] = []
    jobs = [
        ("euler", 5, "karras", EVERYWHERE),
        ("euler", 5, "karras", LIMITED),
        ("heun", 5, "karras", EVERYWHERE),
    ]
    full, limited, heun = timed.points(jobs, targets, lambda: ticks.append(1))
    assert len(ticks) == 6
    assert (full.nfe, full.rows) == (5, 10)
    assert (heun.nfe, heun.rows) == (9, 18)
    assert limited.nfe == 5 and 5 < limited.rows < 10
    assert full.errors == full.from_guided and min(full.errors) > 0
    together = timed.errors(jobs[0], targets[EVERYWHERE])
    assert together == pytest.approx(full.errors, rel=1e-3)
    assert limited.errors != limited.from_guided
    # An image is sampled by itself, from its own seed, with its own prompt.
    alone = TimedSampling(pipeline, ["a blue star"], [4], 2.0)
    end = alone._run(jobs[0], 0)[0]
    assert each(end, targets[EVERYWHERE].ends[1:])[0] == pytest.approx(full.errors[1], rel=1e-3)


def small(**settings: object) -> tradeoff.Config:
    given = {"counts": (2, 4), "grids": ("karras",), "intervals": (LIMITED,), "pictures": 2}
    return tradeoff.Config(**{**given, "compared": 2, "reference": 8, "judged": 4, **settings})  # type: ignore[arg-type]


@pytest.mark.slow
def test_tradeoff(pipeline: TextToImage) -> None:
    result = tradeoff.run(small(grids=("trailing", "karras")), pipeline)
    check(result, "tradeoff")
    assert {row.name for row in result.rows} == {
        "tradeoff",
        "tradeoff-reference",
        "tradeoff-0.28-2.9",
    }
    solvers = result.data["solvers"]
    points = result.data["points"]
    assert len(points) == 3 * len(solvers) * 2
    assert all(point["median_seconds"] > 0 and point["error"] > 0 for point in points)
    first, second = result.data["intervals"]
    assert first["distance_from_guided"] == [0, 0]
    assert min(second["distance_from_guided"]) > 0


def point(solver: str, errors: tuple[float, ...]) -> Point:
    return Point(solver, 4, "karras", EVERYWHERE, 4, 8, (1.0, 1.0, 1.0), errors, errors)


@pytest.mark.parametrize(
    ("errors", "doubt", "verdicts"),
    [
        ((0.10, 0.11, 0.10), 0.01, ("holds", "holds")),
        ((0.45, 0.44, 0.43), 0.01, ("does not hold", "holds")),
        ((0.10, 0.90, 0.40), 0.01, ("inconclusive", "holds")),
        ((0.10, 0.11, 0.10), 0.06, ("holds", "does not hold")),
    ],
)
def test_rows_can_fail(errors: tuple[float, ...], doubt: float, verdicts: tuple[str, str]) -> None:
    """dpmpp_2m beside euler's 0.4, 0.41, 0.39; the reference's doubt beside the least error."""
    compared = {"euler": (0.40, 0.41, 0.39), "dpmpp_2m": errors}
    points = [point(solver, found) for solver, found in compared.items()]
    target = Target(EVERYWHERE, torch.zeros(3, 1), doubt)
    rows = tradeoff._rows(points, [target], [Judged(EVERYWHERE, [0.0], [], [True])], compared)
    assert tuple(row.verdict for row in rows) == verdicts


def test_limited_guidance_is_compared_on_the_same_prompts() -> None:
    compared = {"euler": (0.4, 0.4), "dpmpp_2m": (0.1, 0.1)}
    points = [point(solver, found) for solver, found in compared.items()]
    target = Target(EVERYWHERE, torch.zeros(2, 1), 0.01)
    judged = [
        Judged(EVERYWHERE, [0.0], [], [True, False, True, True]),
        Judged(LIMITED, [0.1], [], [True, True, True, True]),
        Judged((1.0, 2.0), [0.1], [], [None, None, None, None]),
    ]
    *_, row = tradeoff._rows(points, [target], judged, compared)
    assert (row.name, row.measured, row.verdict) == ("tradeoff-0.28-2.9", 0.25, "measured")


def test_at_scale_one_an_interval_changes_nothing(pipeline: TextToImage) -> None:
    timed = TimedSampling(pipeline, ["a red circle"], [3], 1.0)
    whole, limited = (timed.target(one, 8) for one in (EVERYWHERE, LIMITED))
    assert max(each(whole.ends, limited.ends)) < whole.doubt  # four nodes more, nothing else
    guided = TimedSampling(pipeline, ["a red circle"], [3], 9.0)
    whole, limited = (guided.target(one, 8) for one in (EVERYWHERE, LIMITED))
    assert min(each(whole.ends, limited.ends)) > 0
