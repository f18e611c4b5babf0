"""Langevin's experiment: its verdicts, and what turns them."""

from dataclasses import replace

import pytest
import torch

from diffusion_math import langevin as moves
from diffusion_math import langevin_law
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.langevin import proposal
from experiments.langevin import bias, figures, mixing
from experiments.langevin import run as langevin
from tests.support.result_schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

TINY = langevin.Config(particles=400, budget=120, chains=2000, frames=3)


@pytest.fixture(autouse=True, scope="module")
def _enough():
    """As if the few states of these runs were enough to decide the claims."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(langevin, "STATES", 0)
        yield


@pytest.fixture(scope="module")
def result():
    return langevin.run(TINY)


@pytest.fixture
def unseen(monkeypatch):
    """No pictures: for runs whose rows alone are looked at."""
    monkeypatch.setattr(figures, "plane", lambda *given: ())
    monkeypatch.setattr(figures, "distributions", lambda *given: "")


def verdicts(result):
    return {row.name: row.verdict for row in result.rows}


def rerun():
    return langevin.run(replace(TINY, frames=0))


def test_schema_and_verdicts(result):
    """All that does not need the annealing's full budget holds; the budget is everyone's."""
    check(result, "langevin")
    found = verdicts(result)
    assert {name for name, one in found.items() if one != "holds"} <= {"langevin"}
    assert set(result.data["evaluations"].values()) == {TINY.budget}
    assert [one.name.rpartition(".")[2] for one in result.figures].count("gif") == 1


@pytest.mark.usefixtures("unseen")
def test_a_repeat_is_the_same(result):
    again = rerun()
    assert [row.measured for row in again.rows] == [row.measured for row in result.rows]
    assert not any(one.name.endswith(".gif") for one in again.figures)


def ula(chains=2000):
    return [one for one in bias.stationary(chains, 1) if one.sampler == "ULA"]


def test_wrong_noise_is_noticed(monkeypatch):
    """sqrt(delta) z in the place of sqrt(2 delta) z: neither the law on the way nor the last."""

    def halved(x, score, delta):
        right = proposal(x, score, delta)
        return replace(right, variance=right.variance / 2)

    monkeypatch.setattr(moves, "proposal", halved)
    assert langevin._bias_row(ula()).verdict == "does not hold"
    assert langevin._distribution_row("", "", bias.transient(2000, 1)).verdict == "does not hold"


def test_the_printed_stationary_law_is_rejected(monkeypatch):
    """E7 as printed: the target itself, whatever the step."""
    assert langevin._bias_row(ula()).verdict == "holds"
    monkeypatch.setattr(langevin_law, "ula_stationary", lambda target, delta: target)
    assert langevin._bias_row(ula()).verdict == "does not hold"


@pytest.mark.parametrize(("levels", "verdict"), [(20, "holds"), (1, "does not hold")])
def test_annealing_needs_its_ladder(monkeypatch, levels, verdict):
    """With the last level alone it is no better than ULA, and the main verdict says so."""
    monkeypatch.setattr(mixing, "LEVELS", levels)
    data, count = mixing.modes(), 8000
    generator = torch.Generator().manual_seed(0)
    start = mixing.SPREAD * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    sampler = mixing.samplers(data, 800, 1)[0][-1]
    *_, end = mixing.states_at(sampler.trajectory(start), []).values()
    row = langevin._annealed_row(langevin._shares(data, end.x), TINY)
    assert row.verdict == verdict


def test_the_bound_is_a_bound():
    """More moves never raise it, no ball reaches over the midline, and modes that touch hold
    nothing for sure.
    """
    far = mixing.modes()
    delta = mixing.RATE * mixing.STD**2
    few, many = (mixing.trapping_bound(far, 0, delta, k) for k in (20, 200))
    assert 0.1 < many <= few < 0.5
    near = GaussianMixture(far.log_weights, far.means / 8, far.covariances)
    assert mixing.trapping_bound(near, 0, delta, 20) == 0


def test_the_turning_point_is_that_of_the_variance():
    """2 for N(0, 1); an interval without it is refused."""
    points = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)
    assert bias.turning_point(points, 0.5, 5.0) == pytest.approx((2, 2), abs=1e-9)
    with pytest.raises(ValueError, match="wanted a rise at low alone"):
        bias.turning_point(points, 2.5, 5.0)
