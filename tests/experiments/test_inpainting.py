"""What inpainting samples: the KL of samples against closed forms, verdicts, the schema."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.inpainting import measure
from experiments.inpainting import run as inpainting
from tests.support.chance import pinned
from tests.support.result_schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

TINY = inpainting.Config(steps=8, repeats=(5,), particles=(16,), samples=2048)


@pytest.fixture(scope="module")
def result():
    return inpainting.run(TINY)


def test_schema_and_verdicts(result):
    check(result, "inpainting")
    found = {row.name: row.verdict for row in result.rows}
    for name in ("inpainting", "inpainting-repaint", "inpainting-mass"):
        assert found[name] == "holds"
    methods = {one.method for one in result.data["sampled"]}
    assert methods == {"replacement", "RePaint, U = 5", "SMCDiff, 16 particles", measure.EXACT}
    nfe = {one.method: one.nfe for one in result.data["sampled"]}
    assert list(nfe.values()) == [8, 40, 128, 8]


def test_samples_of_replacement_are_further_than_those_of_repaint(result):
    """On the Gaussian: intervals that do not meet."""
    own = {one.method: one for one in result.data["sampled"] if one.problem == "gaussian"}
    assert own["replacement"].interval[0] > own["RePaint, U = 5"].interval[1]


def test_the_same_seed_gives_the_same_samples():
    problem = measure.PROBLEMS[0]
    first, again, other = (
        measure.sampled(problem, 8, 2, (4,), 2048, seed)[1] for seed in (0, 0, 1)
    )
    for name, u in first.items():
        assert torch.equal(u, again[name])
        assert not torch.equal(u, other[name])


def test_kl_in_cells_of_known_shares():
    """A quarter of the target's cells holds everything: KL = log 4 up to 1e-3; the target: 0.

    Samples are the target's quantiles in groups, from a pinned order.
    """
    problem = measure.PROBLEMS[2]
    t = measure.grid_of(8)[-1]
    edges = measure._edges(problem, t)
    noisy = problem.target().marginal(measure.SCHEDULE, t)
    z = (edges[:, None] - noisy.means[:, 0]) / noisy.covariances.flatten().sqrt()
    shares = torch.special.ndtr(z) @ noisy.log_weights.exp()
    torch.testing.assert_close(shares, torch.arange(1, 16).double() / 16)
    inside = torch.cat([edges - 1e-9, edges[-1:] + 1e-9])  # one point in each cell
    order = torch.randperm(4096, generator=pinned(0))
    whole = inside.repeat(256)[order].reshape(32, 128)
    few = inside[:4].repeat(1024)[order].reshape(32, 128)
    value, (low, high) = measure.kl_in_cells(problem, whole, t)
    assert low <= value <= high and abs(value) < 3e-3
    value, (low, high) = measure.kl_in_cells(problem, few, t)
    assert abs(value - math.log(4)) < 3e-3 and high - low < 0.01


def test_rows_that_turn(result):
    """A KL that rises with U, a lost mass."""
    exact, sampled = result.data["exact"], result.data["sampled"]
    own = [one for one in exact if one.steps == 8][:2]
    same = [one for one in sampled if one.problem == own[0].problem]
    for other, name in (
        (replace(own[1], kl=own[0].kl * 1.1), "inpainting-repaint"),
        (replace(own[1], mass=0.99), "inpainting-mass"),
    ):
        rows = {row.name: row.verdict for row in inpainting._rows(8, [own[0], other], same)}
        assert rows[name] == "does not hold"
