"""The bound's experiment: its verdicts, and what turns them."""

from dataclasses import replace

import jaxtyping
import pytest
import torch

from diffusion_math import elbo, path
from experiments import bound, bound_figures, terms
from tests.experiments.schema import check

TINY = bound.Config(density="ring", steps=40, draws=200, finest=16)


@pytest.fixture(scope="module", autouse=True)
def _unchecked():
    """No shapes checked at run time, which has tests of its own and costs ten times the work."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def result():
    return bound.run(TINY)


@pytest.fixture
def unseen(monkeypatch):
    """No pictures: for runs whose rows alone are looked at."""
    monkeypatch.setattr(bound_figures, "terms", lambda *given: "")
    monkeypatch.setattr(bound_figures, "limit", lambda *given: "")


def verdicts(result):
    return {row.name: row.verdict for row in result.rows}


def test_schema_and_verdicts(result):
    """All but the limit, which sixteen steps are too few for, hold on a short chain."""
    check(result, "bound")
    found = verdicts(result)
    assert found.pop("bound-variance") == "measured"
    assert found.pop("bound-limit") == "does not hold"
    assert set(found.values()) == {"holds"}


@pytest.mark.usefixtures("unseen")
def test_a_wrong_bound_is_noticed(monkeypatch):
    """L_T left out: the gap is no KL any more, by far more than rounding."""
    monkeypatch.setattr(elbo, "prior_term", lambda schedule, x0: torch.zeros(len(x0)).double())
    assert verdicts(bound.run(TINY))["bound"] == "does not hold"


@pytest.mark.usefixtures("unseen")
def test_a_bound_above_the_truth_is_noticed(monkeypatch):
    """Four nats too little for every path: -ELBO falls below -log q."""
    right = path.path_log_density
    monkeypatch.setattr(path, "path_log_density", lambda *given: right(*given) - 4)
    assert verdicts(bound.run(TINY))["bound-below"] == "does not hold"


@pytest.mark.usefixtures("unseen")
def test_wrong_weights_and_bins_are_noticed(monkeypatch):
    """lambda_t without its half, and bins that overlap."""
    weight, probability = elbo.lambda_t, elbo.quantized_log_probability
    monkeypatch.setattr(elbo, "lambda_t", lambda *given: 2 * weight(*given))
    monkeypatch.setattr(elbo, "quantized_log_probability", lambda p, x0: probability(p, x0) + 0.01)
    found = verdicts(bound.run(TINY))
    assert found["bound-weight"] == found["bound-levels"] == "does not hold"


@pytest.mark.usefixtures("unseen")
def test_a_wrong_limit_is_noticed(monkeypatch):
    """The integrand without its half: no number of steps tends to it."""
    right = elbo.continuous_integrand
    world = terms.World.of("ring", 2)
    x0 = world.data.sample(torch.Generator().manual_seed(1), 50)

    def off():
        found = terms.limit(world, x0, 64, torch.Generator().manual_seed(2))
        return abs(sum(found.extrapolated) / 50)

    near = off()
    monkeypatch.setattr(elbo, "continuous_integrand", lambda *given: 2 * right(*given))
    assert near < 0.5 < off()


def test_levels_are_levels():
    """Rounded to 2 k / 255 - 1, ends included, and no farther than half a level."""
    x = torch.tensor([-1.2, -1.0, 0.3, 1.0, 1.4], dtype=torch.float64)
    levels = terms.on_levels(x)
    assert torch.equal((127.5 * (levels + 1)).round() / 127.5 - 1, levels)
    assert (levels - x.clamp(-1, 1)).abs().max() <= 1 / 255
    assert levels.min() == -1 and levels.max() == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 1), ("steps", 1001), ("draws", 49), ("finest", 4), ("finest", 12), ("seed", -1)],
)
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=rf"--{name}: wanted .* got {value}"):
        bound.run(replace(TINY, **{name: value}))
