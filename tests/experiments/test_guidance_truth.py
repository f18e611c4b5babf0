"""The distribution of guided flows: verdicts, and identities of the test problems."""

import math
from dataclasses import replace

import pytest
import torch

from diffusion_math import guidance_law
from diffusion_math.guidance import cfg_batched, projected, rescaled
from experiments.guidance_truth import figures, measure
from experiments.guidance_truth import run as guidance_truth
from experiments.guidance_truth.measure import LABEL, METHODS, SCHEDULE, GuidedFlow, Settings
from tests.support.result_schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

TINY = guidance_truth.Config(scales=(3.0,), shown=3.0, nodes=16, digits=3)
COARSE = Settings((0.3, 2.0), 0.7, math.inf, 3.0, 16, 1e-3)


@pytest.fixture(scope="module")
def result():
    """At a coarser tolerance where flows are compared with what they must be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance_truth, "FINEST", 1e-5)
        patch.setattr(guidance_truth, "SAME", 1e-5)
        return guidance_truth.run(TINY)


@pytest.mark.slow
def test_schema_and_verdicts(result):
    """At so few nodes the integral of a narrow density is less exact, and nothing else is worse."""
    check(result, "guidance-truth")
    found = {row.name: row.verdict for row in result.rows}
    for name in ("ends", "gaussian"):
        assert found[f"guidance-truth-{name}"] == "holds"
    assert [flow.method for flow in result.data["distributions"] if flow.problem == "plane"] == [
        "cfg",
        *METHODS,
    ]


@pytest.mark.slow
def test_guidance_samples_no_tilted_density(result):
    """At w = 3: more than 0.2 nats, and the near mode loses more than under the tilted density."""
    for flow in result.data["distributions"]:
        if flow.scale == 1:
            assert abs(flow.to_tilted) < 1e-5 and flow.modes == pytest.approx([0.5, 0.5], abs=1e-4)
            continue
        assert flow.to_tilted > 0.15
        assert flow.to_nearest <= flow.to_tilted
        assert flow.modes[0] < flow.tilted_modes[0] < 0.5
    plain = {
        (flow.problem, flow.method): flow.to_tilted
        for flow in result.data["distributions"]
        if flow.scale == 3
    }
    for problem in ("line", "plane"):
        assert max(METHODS, key=lambda name: plain[problem, name]) == "cfg"


@pytest.mark.slow
def test_two_gaussians(result):
    """(w, deviations guided and tilted, KL, off) at w = 0, 1 and 3: sqrt(2^(1-w))."""
    for w, guided, tilt, apart, off in result.data["gaussians"]:
        assert guided == pytest.approx(2 ** ((1 - w) / 2), rel=1e-12)
        assert tilt == pytest.approx(math.sqrt(2 / (1 + w)), rel=1e-12)
        assert (abs(apart) < 1e-12) == (w in (0.0, 1.0))
        assert abs(off) < 1e-5


def verdicts(
    known: GuidedFlow, free: float = 0.0, finer: float = 1.0, by_ode: float = 0.0
) -> dict[str, str]:
    """Of a flow at w = 1, beside cfg in the plane with KL 1 to the tilted density."""
    plain = replace(known, problem="plane", method="cfg", scale=3.0, to_tilted=1.0)
    again = replace(plain, to_tilted=finer)
    rows = guidance_truth._rows([known, plain], 3.0, [free], again, [by_ode])
    return {row.name.removeprefix("guidance-truth").lstrip("-"): row.verdict for row in rows}


@pytest.mark.slow
def test_rows_that_turn(result):
    """Another distribution, a lost mass, a coarse tolerance, a wrong closed form."""
    flows = result.data["distributions"]
    (known,) = (flow for flow in flows if flow.problem == "line" and flow.scale == 1)
    known = replace(known, to_conditional=0.0)  # 7e-6 with so few nodes
    assert set(verdicts(known).values()) == {"measured", "holds"}
    no = "does not hold"
    assert verdicts(known, free=2e-6)["ends"] == no
    assert verdicts(replace(known, to_conditional=1e-3))["ends"] == no
    assert verdicts(replace(known, mass=0.98))["mass"] == no
    assert verdicts(known, finer=1.002)["tolerance"] == no
    assert verdicts(known, by_ode=-2e-6)["gaussian"] == no


@pytest.mark.slow
def test_a_wrong_volume_is_noticed(monkeypatch):
    """Half the divergence: the ends are no longer the models' own densities."""
    from diffusion_math import likelihood, score_matching

    _, (known, _) = measure.ends(measure.LINE, COARSE)
    right = score_matching.divergence
    monkeypatch.setattr(likelihood, "divergence", lambda *given: right(*given) / 2)
    _, (flow, _) = measure.ends(measure.LINE, COARSE)
    assert abs(flow.to_conditional) > 100 * abs(known.to_conditional)


def test_pictures_keep_what_coordinates_do():
    """Patterns are orthonormal but for the ground: plain guidance is the same in both."""
    problem = measure.PLANE
    x, t = torch.tensor([[0.3, -0.8], [2.0, 1.0]]).double(), torch.tensor(0.4).double()
    plain = cfg_batched(problem.pair, 3.0)(x, t)
    drawn = measure.in_pixels(lambda p: cfg_batched(p, 3.0), problem.pair, 5.0)(x, t)
    torch.testing.assert_close(drawn, plain)
    by_hand = _rescaled_by_hand(problem, x, t)
    got = measure.in_pixels(lambda p: rescaled(p, 3.0, 1), problem.pair, 3.0)(x, t)
    torch.testing.assert_close(got, by_hand)
    bare = measure.in_pixels(lambda p: projected(p, 3.0), problem.pair, 0.0)(x, t)
    torch.testing.assert_close(bare, projected(problem.pair, 3.0)(x, t))


def _rescaled_by_hand(problem, x, t):
    """A picture's sum of squares about its mean is the coordinates' and the ground's."""
    _, c = problem.pair(x, t)
    plain = cfg_batched(problem.pair, 3.0)(x, t)
    wanted, found = ((one.square().sum(1) + 9).sqrt() for one in (c, plain))
    return (wanted / found)[:, None] * plain


def test_stacked_variants_are_each_alone():
    problem = measure.PLANE
    makes = [measure.variant(name, 3.0, COARSE) for name in METHODS]
    x, t = torch.linspace(-2, 4, 20).double().reshape(10, 2), torch.tensor(0.4).double()
    got = measure.stacked(problem.pair, makes, [2] * 5)(x, t)
    for make, rows, found in zip(makes, x.split(2), got.split(2), strict=True):
        torch.testing.assert_close(found, make(problem.pair)(rows, t))


def test_the_nearest_tilt_of_a_tilted_density_is_its_own():
    """And its KL is no less at other exponents, by quadrature."""
    problem = measure.LINE
    nodes = problem.wide(400)
    log_p = measure.log_tilted(problem, 4.0, nodes.x)
    nearest = measure.nearest_tilt(problem, nodes, log_p)
    assert nearest == pytest.approx(4.0, abs=1e-3)
    for w in (3.5, 4.5):
        assert guidance_law.kl(nodes, log_p, measure.log_tilted(problem, w, nodes.x)) > 1e-4
    known = problem.data.given(LABEL).log_density(SCHEDULE, nodes.x, 0)
    torch.testing.assert_close(measure.log_tilted(problem, 1.0, nodes.x), known, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_captions_name_what_was_found(result):
    (curves,) = (one for one in result.figures if one.name == "guidance-truth-plane-curves.png")
    (plain,) = (
        flow
        for flow in result.data["distributions"]
        if (flow.problem, flow.method, flow.scale) == ("plane", "cfg", 3.0)
    )
    assert f"is {plain.to_tilted:.2f} for the guided flow" in curves.caption
    assert set(figures.NAMES) == {"tilted", "conditional", *METHODS}
