"""The gallery of densities: it holds, and notices a wrong formula, score and sampler."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from scipy import stats

from diffusion_math.densities import toy
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import DENSITIES
from diffusion_math.schedule import VPLinear
from experiments.common.quadrature import Cells, cells_about, chi_square
from experiments.densities import Config, Name
from experiments.densities import run as densities
from tests.support.result_schema import check

TINY = Config(densities=("ring", "funnel"), samples=2000)


def verdicts(config: Config) -> dict[str, str]:
    return {row.name: row.verdict for row in densities.run(config).rows}


def test_the_densities_hold() -> None:
    result = densities.run(TINY)
    check(result, "densities")
    assert {row.verdict for row in result.rows} == {"holds"}
    for one in result.data["densities"].values():
        # The entropy by draws is that by quadrature: seven standard errors, false alarm 3e-12.
        assert abs(one["entropy"] - one["entropy_by_samples"]) < 7 * one["error"]
    again = densities.run(TINY)
    assert [row.measured for row in again.rows] == [row.measured for row in result.rows]


def test_every_density_is_offered() -> None:
    assert set(get_args(Name)) == set(DENSITIES)


def test_a_sampler_of_another_width_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth too wide; the density and its score stay what they are."""
    config = replace(TINY, densities=("ring",))
    wide = toy.ring(std=0.18)
    monkeypatch.setattr(
        GaussianMixture, "sample", lambda _, generator, n: _drawn(wide, generator, n)
    )
    assert verdicts(config) == {
        "densities": "holds",
        "densities-sampler": "does not hold",
        "densities-score": "holds",
    }


def _drawn(mixture: GaussianMixture, generator: torch.Generator, n: int) -> torch.Tensor:
    """Draws of isotropic modes, apart from `sample`, which is replaced."""
    k = torch.randint(len(mixture.means), (n,), generator=generator)
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return mixture.means[k] + mixture.covariances[k, None].sqrt() * z


def test_a_density_without_its_constant_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in a million off in log q: the mass, and nothing else."""
    right = GaussianMixture.log_density
    monkeypatch.setattr(
        GaussianMixture, "log_density", lambda *given: right(*given) + math.log1p(1e-6)
    )
    found = verdicts(replace(TINY, densities=("ring",)))
    assert found["densities"] == "does not hold"
    assert found["densities-score"] == "holds"


def test_a_score_of_the_wrong_variance_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GaussianMixture.score
    monkeypatch.setattr(GaussianMixture, "score", lambda *given: right(*given) * (1 + 1e-6))
    found = verdicts(replace(TINY, densities=("ring",)))
    assert found["densities-score"] == "does not hold"
    assert found["densities"] == "holds"


def test_cells_integrate_and_count() -> None:
    """Degree 5 in each coordinate is exact for 3 points a cell; a draw on no cell is not counted.

    Tolerance: a few roundings of numbers of order 10.
    """
    cells = Cells(torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([-1.0, 0.0, 2.0]).double())
    at, weights = cells.rule(3)
    sums = cells.sums(weights * at[:, 0] ** 5 * at[:, 1] ** 4)
    by_first, by_second = torch.tensor([[1 / 6, 364 / 3], [1 / 5, 32 / 5]], dtype=torch.float64)
    torch.testing.assert_close(sums, torch.outer(by_first, by_second), rtol=1e-13, atol=0)
    points = torch.tensor([[0.5, -0.5], [2.0, 1.0], [2.5, 1.9], [4.0, 0.0], [0.5, -3.0]]).double()
    assert cells.counts(points).tolist() == [[1, 0], [0, 2]]


def test_cells_about_a_mixture_hold_it() -> None:
    """The error of six points to a cell of two deviations is below 1e-7; with three it is not."""
    mixture = toy.two_moons(modes=4)
    at, weights = cells_about(mixture).rule()
    mass = weights @ mixture.log_density(VPLinear(), at, 0).exp()
    assert mass.item() == pytest.approx(1, abs=1e-7)
    at, weights = cells_about(mixture).rule(3)
    mass = weights @ mixture.log_density(VPLinear(), at, 0).exp()
    assert mass.item() != pytest.approx(1, abs=1e-7)


def test_chi_square_by_hand() -> None:
    """Two cells of 60 and 40 expected, 70 and 30 seen: 100/60 + 100/40."""
    cells = Cells(torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([0.0, 1.0]).double())
    points = torch.tensor([[0.5, 0.5]] * 70 + [[1.5, 0.5]] * 30).double()
    found = chi_square(cells, points, torch.tensor([[0.6], [0.4]]).double(), 1e-3)
    assert found.value == pytest.approx(100 / 60 + 100 / 40)
    assert found.freedom == 1
    assert found.limit > 10.828  # chi-square of one degree


@pytest.mark.parametrize("expected", [20, 50, 500])
@pytest.mark.parametrize("n", [2000, 20_000])
def test_chi_square_keeps_its_rate_where_one_cell_expects_few(expected: int, n: int) -> None:
    """One cell and the rest: the binomial's own tails. By chi-squared it was 3e-8 at 20 expected.

    Chernoff's bound for the square of one number is cautious: 0.4 of its limit is too little.
    """
    cells = Cells(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.0, 1.0]).double())
    share, rate = expected / n, 1e-9
    points = torch.full((n, 2), 2.0).double()
    found = chi_square(cells, points, torch.tensor([[share]], dtype=torch.float64), rate)
    assert (found.freedom, found.value) == (1, pytest.approx(expected / (1 - share)))

    def passes(limit: float) -> float:
        reach = math.sqrt(limit * expected * (1 - share))
        law = stats.binom(n, share)
        return float(
            law.cdf(math.ceil(expected - reach) - 1) + law.sf(math.floor(expected + reach))
        )

    assert passes(found.limit) <= rate < passes(found.limit / 2.5)
    if expected == 20:
        assert passes(1.1 * float(stats.chi2.isf(rate, 1))) > 10 * rate


def test_what_is_too_little_for_a_cell_counts_with_the_least() -> None:
    """30 expected in a cell, 20 in another, 5 outside: 70 draws out there are not overlooked."""
    cells = Cells(torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([0.0, 1.0]).double())
    points = torch.tensor([[5.0, 5.0]] * 70 + [[0.5, 0.5]] * 30).double()
    found = chi_square(cells, points, torch.tensor([[0.75], [0.2]]).double(), 1e-3)
    assert found.freedom == 1
    assert found.value == pytest.approx(45**2 / 75 + 45**2 / 25) and found.value > found.limit
