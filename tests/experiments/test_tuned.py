"""The experiment on fitted solvers: its verdicts, its test problems and its guards."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from diffusion_math.fitting import published_grids as published
from diffusion_math.fitting.grids import errors
from diffusion_math.grid import uniform_log_snr
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.registry import SOLVERS
from experiments.tuned import baselines, problems
from experiments.tuned import run as tuned
from experiments.tuned.baselines import rms, typical
from tests.support.result_schema import check
from tests.support.tiny_tuned import TINY

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own


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
    result = tuned.run(replace(TINY, more=(3, 5, 31)))
    check(result, "tuned")
    found = rows(result)
    for kind in ("fitted", "tuned"):
        assert found[kind].measured == found[f"{kind}-4-typical"].measured
    assert found["fitted"].measured < min(1, found["tuned"].measured)
    assert found["tuned-reference"].verdict == "holds"
    record = result.data["problems"]["mixture"]
    for kind in ("fitted", "tuned"):
        for one in record[kind]["4"]:
            assert one["nfe"] == 4 and len(one["nodes"]) == 5
    assert {one["grid"] for one in record["tuned"]["4"]} == {"tuned"}
    names = {(one["solver"], one["grid"]) for one in record["baselines"] if one["nfe"] <= 4}
    published = set(baselines.PUBLISHED) - {"s4s", "s4s_alt"}
    assert {("unipc", name) for name in (*baselines.GRIDS, *published)} <= names
    assert {("s4s", "s4s"), ("s4s_alt", "s4s_alt")} <= names
    sought = [one["nfe"] for one in record["baselines"] if one["solver"] == "s4s_alt"]
    assert sought == [4, 5]  # beyond the budgets too, which tells what they save
    assert ("plms", "stepwise") not in names  # plms is not tuned for here
    best = min(one["typical"] for one in record["baselines"] if one["nfe"] <= 4)
    mine = record["fitted"]["4"][0]["typical"]
    assert found["fitted"].measured == pytest.approx(mine / best, rel=1e-12)


@pytest.mark.usefixtures("bare")
def test_what_is_not_fitted_does_not_win(monkeypatch):
    """Tuning and fitting that give back something poor: verdicts turn, the judge does not."""
    monkeypatch.setattr(
        baselines, "fit_grid", lambda step, schedule, *given, **named: uniform_log_snr(schedule, 4)
    )
    poor = lambda *given: torch.eye(4, 5).double()  # noqa: E731
    monkeypatch.setattr(baselines, "fit_weights", poor)
    monkeypatch.setattr(
        baselines, "fit_weights_and_grid", lambda schedule, denoise, path, grid, *more: grid
    )
    monkeypatch.setattr(baselines, "fit_weights_to_ends", lambda *given: torch.eye(4, 5).double())
    found = rows(tuned.run(replace(TINY, beside=("unipc",), more=(), s4s=0)))
    for kind in ("fitted", "tuned"):
        assert found[kind].measured > 1
        assert found[kind].verdict == "does not hold"


@pytest.mark.usefixtures("bare")
def test_a_problem_and_kinds_can_be_left_out():
    result = tuned.run(replace(TINY, rounds=0, beside=("unipc",), more=(), s4s=3))
    found = rows(result)
    assert "fitted-4-rms" in found and not any(name.startswith("tuned-4") for name in found)
    record = result.data["problems"]["mixture"]
    assert "tuned" not in record and not any(
        one["grid"].startswith("s4s") for one in record["baselines"]
    )


def test_fits_are_of_the_training_starts_and_evaluated_as_given(monkeypatch):
    """Every candidate that begins where starts are, three blends, the moved one and the best by its
    ends at each scale, from four of six starts."""
    monkeypatch.setattr(problems, "FINE", 4)
    problem = problems.mixture(6, 5, 4, 9, 0)
    assert len(problem.train.path.states[0]) == 4 and len(problem.train.starts) == 6
    assert len(problem.test.path.states[0]) == 0
    assert torch.equal(problem.train.path.states[-1], problem.train.ends[:4])
    assert torch.equal(problem.train.teacher[-1], problem.train.ends[:4])
    candidates = baselines.BaselineGrids(problem, torch.zeros(0), {}).plain(4)
    every = baselines.fit(problem, candidates, (math.inf, 1.0), 1, 1, 2)
    assert len(every) == 2 * (5 + 3 + 1 + 1)
    for one in every:
        assert one.solver == "fitted" and one.nfe == 4 and len(one.errors) == 6
        side = problem.train
        apart = errors(one.step, side.denoise, side.starts, side.ends, one.nodes)
        torch.testing.assert_close(apart, one.errors)
    names = [one.grid for one in every]
    assert names[:5] == [name for name in candidates if name != "leading"]
    assert names[8].endswith(", moved")
    best = min(every[10:15], key=typical)
    assert names[15].startswith("25% ") and names[15].endswith(f" in {best.grid}")
    assert names[9] == f"{min(every[:9], key=rms).grid}, by ends"
    assert names[19] == f"{min(every[10:19], key=typical).grid}, by ends"
    assert torch.equal(every[9].nodes, min(every[:9], key=rms).nodes)
    without = baselines.fit(problem, candidates, (math.inf,), 1, 1, 0)
    assert [one.grid for one in without] == names[:9]


def test_s4s_is_fitted_to_the_training_starts_and_evaluated_from_others(monkeypatch):
    """Its weights on UniPC's best grid; S4S-Alt's nodes and weights from there, and nearer."""
    monkeypatch.setattr(problems, "FINE", 4)
    problem = problems.mixture(40, 5, 40, 9, 0)
    grids = baselines.BaselineGrids(problem, torch.zeros(0), {}).plain(4)
    plain, alt = baselines.s4s(problem, grids, (1.0,), 4, 1)
    assert [one.grid for one in (plain, alt)] == ["s4s", "s4s_alt"]
    side = problem.train
    first = [baselines.evaluate(problem, side, "unipc", *one) for one in grids.items()]
    best = min(first, key=typical)
    assert torch.equal(plain.nodes, best.nodes) and not torch.equal(alt.nodes, best.nodes)
    sizes = [typical(best)]
    for one in (plain, alt):
        assert one.nfe == 4 and len(one.errors) == 5
        again = errors(
            one.step, problem.test.denoise, problem.test.starts, problem.test.ends, one.nodes
        )
        torch.testing.assert_close(one.errors, again)
        own_errors = errors(
            one.step, side.path_denoise, side.path.states[0], side.path.states[-1], one.nodes
        )
        sizes.append(float(own_errors.log().mean().exp()))
    assert sizes[0] > sizes[1] > sizes[2]
    alone = baselines.s4s(problem, grids, (math.inf, 1.0), 4, 0)
    assert [one.grid for one in alone] == ["s4s", "s4s"]
    assert torch.equal(alone[1].errors, plain.errors)


def test_the_model_is_a_problem_of_other_prompts_and_seeds(pipeline, monkeypatch):
    """Random weights: the flow's own ends, from starts that the two sides do not share."""
    monkeypatch.setattr(problems, "FINE", 2)
    problem = problems.model(pipeline, 3.0, 2, 1, 3)
    assert (problem.name, problem.title) == ("model", "The embedded model, guided with w = 3")
    for side in (problem.train, problem.test):
        assert side.starts.shape == side.ends.shape == (2, *pipeline.config.latent_shape)
        assert len(side.nodes) == len(side.teacher) == 4
    side, first = problem.train, problem.train.path.states[0]
    assert torch.equal(side.teacher[0], side.starts[:1])
    assert torch.equal(side.teacher[-1], side.ends[:1])
    t = side.path.times[2]
    torch.testing.assert_close(side.path_denoise(first, t), side.denoise(side.starts, t)[:1])
    assert problem.groups == pipeline.config.latent_shape[0]
    assert len(problem.test.teacher[0]) == 0
    assert not torch.equal(problem.train.starts, problem.test.starts)
    same = torch.cat([first, first])
    assert not torch.allclose(problem.train.denoise(same, t), problem.test.denoise(same, t))


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_the_model_is_measured_beside_the_mixture(pipeline, monkeypatch):
    monkeypatch.setattr(problems, "FINE", 2)
    few = {"beside": ("unipc",), "more": (), "rounds": 1, "s4s": 0, "ends": 0}
    few["descent"] = tuned.Config.descent  # nothing is moved by its ends
    found = rows(tuned.run(replace(TINY, **few, pictures=2, nodes=5, guidance_scale=3.0), pipeline))
    assert found["tuned"].claim.startswith("Eight Gaussians")
    assert found["fitted-model"].claim.startswith("The embedded model, guided with w = 3")
    assert found["fitted-model"].measured == found["fitted-model-4-typical"].measured > 0
    assert "tuned-model" not in found


def test_nfe_is_counted_not_claimed(monkeypatch):
    """plms begins with Heun's step, so a budget buys it one step less; heun's steps cost two."""
    monkeypatch.setattr(problems, "FINE", 2)
    problem = problems.mixture(8, 8, 8, 5, 0)
    names = ("ddim", "plms", "heun")
    assert [baselines.steps_of(problem.schedule, name, 5) for name in names] == [5, 4, 3]
    grid = uniform_log_snr(problem.schedule, 4)
    for name in names:
        asked = []

        def counted(x_t, t, asked=asked):
            asked.append(float(t))
            return problem.test.denoise(x_t, t)

        side = replace(problem.test, denoise=counted)
        one = baselines.evaluate(problem, side, name, "grid", grid)
        assert one.nfe == len(asked) == problems.nfe(SOLVERS[name], problem.schedule, grid)


def test_the_mixture_is_one_of_its_seed_and_its_sides_differ(monkeypatch):
    monkeypatch.setattr(problems, "FINE", 2)
    first, same, other = (problems.mixture(8, 8, 8, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.ends, same.test.ends)
    assert not torch.equal(first.test.ends, other.test.ends)
    parts = [first.test.starts, first.train.starts, other.test.starts, other.train.starts]
    for one, another in combinations(parts, 2):
        assert not torch.equal(one, another)
    assert isinstance(first.schedule, Discrete)
    fine = uniform_log_snr(first.schedule, 50)
    _, end = problems.fine_path(first.test.denoise, first.schedule, first.test.starts, fine, 0)
    assert float((end - first.test.ends).square().mean().sqrt()) < 10 * first.test.doubts.max()
