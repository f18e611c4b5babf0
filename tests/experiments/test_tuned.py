"""The experiment on tuned grids: its verdicts and what turns them, its worlds, its guards."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from diffusion_math import published
from diffusion_math import tuned as grids
from diffusion_math.grid import uniform_log_snr
from diffusion_math.samplers import SOLVERS
from diffusion_math.schedule import Discrete
from experiments import tuned, tuned_parts, tuned_rivals, tuned_worlds
from experiments.model import Model
from experiments.tuned_rivals import Walked, rms, typical
from tests.experiments.schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

TINY = tuned.Config(
    counts=(4,),
    more=(5,),
    solvers=("unipc",),
    beside=("unipc", "plms"),
    train=16,
    test=16,
    scales=(1.0,),
    rounds=3,
    nodes=6,
)


@pytest.fixture(autouse=True)
def _unsearched(monkeypatch):
    """No search for the error-weighted grid, which has tests of its own."""
    monkeypatch.setattr(published, "error_weighted", uniform_log_snr)


@pytest.fixture
def bare(monkeypatch):
    """No pictures: for runs whose rows alone are looked at."""
    monkeypatch.setattr(tuned, "parts", lambda found: ())


def rows(result):
    return {row.name: row for row in result.rows}


def test_schema_and_what_beats_what():
    result = tuned.run(TINY)
    check(result, "tuned")
    found = rows(result)
    assert found["tuned"].measured == found["tuned-4-typical"].measured < 1
    assert found["tuned-reference"].verdict == "holds"
    record = result.data["worlds"]["mixture"]
    for one in record["tuned"]["4"]:
        assert one["grid"] == "tuned" and one["calls"] == 4 and len(one["nodes"]) == 5
    names = {(one["solver"], one["grid"]) for one in record["others"] if one["calls"] <= 4}
    fits = {("unipc", name) for name in (*tuned_rivals.GRIDS, *tuned_rivals.PUBLISHED)}
    assert fits <= names
    assert ("plms", "stepwise") not in names  # plms is not tuned for here
    best = min(one["typical"] for one in record["others"] if one["calls"] <= 4)
    mine = record["tuned"]["4"][0]["typical"]
    assert found["tuned"].measured == pytest.approx(mine / best, rel=1e-12)


@pytest.mark.usefixtures("bare")
def test_a_grid_that_is_not_tuned_does_not_win(monkeypatch):
    """Fitting that gives back a poor grid: the verdict turns, the judge does not."""
    monkeypatch.setattr(
        grids, "tuned", lambda step, schedule, *given, **named: uniform_log_snr(schedule, 4)
    )
    found = rows(tuned.run(replace(TINY, beside=("unipc",), more=())))
    assert found["tuned"].measured > 1
    assert found["tuned"].verdict == "does not hold"


def test_the_model_is_a_world_of_other_prompts_and_seeds(pipeline, monkeypatch):
    """Random weights: the flow's own ends, from starts that the two sides do not share."""
    monkeypatch.setattr(tuned_worlds, "FINE", 2)
    world = tuned_worlds.model(pipeline, 3.0, 2, 2, 3)
    assert (world.name, world.title) == ("model", "The embedded model, guided with w = 3")
    for side in (world.train, world.test):
        assert side.starts.shape == side.ends.shape == (2, *pipeline.config.latent_shape)
        assert len(side.nodes) == len(side.teacher) == 4
        assert torch.equal(side.teacher[0], side.starts)
        assert torch.equal(side.teacher[-1], side.ends)
    assert not torch.equal(world.train.starts, world.test.starts)


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_the_model_is_measured_beside_the_mixture(pipeline):
    model = Model(guidance_scale=3.0)
    few = {"beside": ("unipc",), "more": (), "modes": 1, "rounds": 1}
    found = rows(tuned.run(replace(TINY, **few, pictures=2, nodes=5, model=model), pipeline))
    assert found["tuned"].claim.startswith("Eight Gaussians")
    assert found["tuned-model"].claim.startswith("The embedded model, guided with w = 3")
    assert found["tuned-model"].measured == found["tuned-model-4-typical"].measured > 0


def walk(errors, calls, solver="unipc", grid="tuned"):
    nodes = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return Walked(solver, grid, calls, nodes, torch.tensor(errors, dtype=torch.float64))


def test_the_best_of_the_rest_and_what_is_saved():
    """Known errors: who is best at a budget, by which measure, and with how many calls."""
    side = tuned_worlds.Side(None, torch.zeros(4), None, None, [], 0.01)
    world = tuned_worlds.World("mixture", "Known", None, side, side)
    calm, wild = [0.2] * 4, [0.1, 0.1, 0.1, 1.6]
    others = [walk(calm, 5, grid="karras"), walk(wild, 5, grid="ays"), walk([0.05] * 4, 9)]
    mine = walk([0.05] * 4, 5)
    found = tuned_parts.Found(world, others, {5: (mine, mine)})
    assert typical(others[1]) == pytest.approx(0.2) and rms(others[1]) > rms(others[0])
    assert found.rest(5, rms).grid == "karras"
    assert found.rest(5, rms, ("ays",)).grid == "ays"
    assert found.rest(9, rms).calls == found.needed(0.05, rms) == found.most == 9
    assert found.needed(0.01, rms) is None
    told = {row.name: row for row in tuned_parts.rows_of(found)}
    assert told["tuned"].measured == pytest.approx(0.25)
    assert told["tuned-5-rms"].measured == pytest.approx(0.25)
    assert told["tuned-5-rms"].interval == pytest.approx((0.25, 0.25))
    assert told["tuned-saving-rms"].measured == pytest.approx(5 / 9)
    assert told["tuned-saving-rms"].verdict == "holds"
    assert told["tuned-reference"].measured == pytest.approx(0.2)
    unreached = walk([0.01] * 4, 5)
    told = tuned_parts.rows_of(tuned_parts.Found(world, others, {5: (unreached, unreached)}))
    assert {row.name: row for row in told}["tuned-saving-typical"].measured == pytest.approx(0.5)


def test_calls_are_counted_not_claimed(monkeypatch):
    """plms begins with Heun's step, so a budget buys it one step less; heun's steps cost two."""
    monkeypatch.setattr(tuned_worlds, "FINE", 2)
    world = tuned_worlds.mixture(8, 8, 5, 0)
    assert [tuned_rivals.steps_of(world, name, 5) for name in ("ddim", "plms", "heun")] == [5, 4, 3]
    grid = uniform_log_snr(world.schedule, 4)
    for name in ("ddim", "plms", "heun"):
        asked = []

        def counted(x_t, t, asked=asked):
            asked.append(float(t))
            return world.test.denoise(x_t, t)

        side = replace(world.test, denoise=counted)
        one = tuned_rivals.walked(world, side, name, "grid", grid)
        assert one.calls == len(asked) == tuned_worlds.calls(SOLVERS[name], world.schedule, grid)


def test_the_mixture_is_one_of_its_seed_and_its_sides_differ(monkeypatch):
    monkeypatch.setattr(tuned_worlds, "FINE", 2)
    first, same, other = (tuned_worlds.mixture(8, 8, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.ends, same.test.ends)
    assert not torch.equal(first.test.ends, other.test.ends)
    parts = [first.test.starts, first.train.starts, other.test.starts, other.train.starts]
    for one, another in combinations(parts, 2):
        assert not torch.equal(one, another)
    assert isinstance(first.schedule, Discrete)
    fine = uniform_log_snr(first.schedule, 50)
    *_, end = tuned_worlds.walk(first.test.denoise, first.schedule, first.test.starts, fine)
    assert float((end - first.test.ends).square().mean().sqrt()) < 10 * first.test.doubt


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"counts": ()}, "--counts: wanted rising numbers of at least 4"),
        ({"counts": (3, 5)}, "--counts: wanted rising numbers of at least 4, got 3 5"),
        ({"counts": (8, 5)}, "--counts: wanted rising"),
        ({"train": 7}, "--train: wanted at least 8, got 7"),
        ({"test": 0}, "--test: wanted at least 8, got 0"),
        ({"rounds": 0}, "--rounds: wanted at least 1, got 0"),
        ({"modes": 0}, "--modes: wanted at least 1, got 0"),
        ({"nodes": 4}, "--nodes: wanted more than 4 and at most 120, got 4"),
        ({"nodes": 121}, "--nodes: wanted more than 4"),
        ({"pictures": 1}, "--pictures: wanted 0 or at least 2, got 1"),
        ({"scales": (0.0,)}, "--scales: wanted numbers above 0"),
        ({"scales": (math.nan,)}, "--scales: wanted numbers above 0"),
        ({"scales": ()}, "--scales: wanted numbers above 0"),
        ({"more": (0,)}, "--more: wanted whole numbers of at least 1"),
        ({"solvers": ("ddpm",)}, "--solvers: wanted some of ddim"),
        ({"beside": ()}, "--beside: wanted some of ddim"),
        ({"seed": -1}, "--seed: wanted a number in"),
    ],
)
def test_illegal_settings_are_named(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        tuned.run(replace(TINY, **given))
