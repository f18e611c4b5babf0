"""One step back: Bayes holds, wrong kernels are noticed, and distances are what they must be."""

from dataclasses import replace

import pytest
import torch

from diffusion_math import gaussian, variance
from diffusion_math.densities import multivariate, reverse_kernel
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import ring, spirals
from diffusion_math.schedule import Discrete
from experiments.posterior import run as posterior
from experiments.posterior.gaussian_approximations import (
    BEST,
    BETA,
    BETA_HAT,
    bayes,
    distances,
    spreads,
    unit,
)
from experiments.posterior.run import Config
from tests.support.result_schema import check

TINY = Config(times=(500,), steps=(1, 350), points=2, samples=4000, curve=2)
SCHEDULE = Discrete.scaled_linear()


def verdicts(config: Config = TINY) -> dict[str, str]:
    return {row.name: row.verdict for row in posterior.run(config).rows}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which what is tested does not touch."""
    monkeypatch.setattr(posterior, "figures", lambda *_: ())


def test_one_step_back_holds() -> None:
    result = posterior.run(TINY)
    check(result, "posterior")
    assert {row.verdict for row in result.rows} == {"holds"}
    assert len(result.figures) == 4


def test_full_covariances_hold_too() -> None:
    """Two slanted components: the ties between the kernels, and the variances in their order."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    slanted = turn @ torch.diag(torch.tensor([0.5, 0.05]).double()) @ turn.T
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])
    mixture = unit(
        GaussianMixture(torch.tensor([0.0, 0.5]), means, torch.stack([slanted, slanted.flip(0, 1)]))
    )
    generator = torch.Generator().manual_seed(0)
    x_0 = mixture.sample(generator, 3)
    x_t = gaussian.marginal(SCHEDULE, x_0, 400).sample(torch.ones(3, 2, dtype=torch.float64))
    for s in (399, 100, 2):
        gaps = bayes(mixture, SCHEDULE, generator, x_0, x_t, 400, s)
        assert max(gaps) < posterior.AGREE
        errors = distances(mixture, SCHEDULE, x_t, 400, s)
        assert errors[BEST].kl < min(errors[BETA].kl, errors[BETA_HAT].kl)
        assert all(0 <= one.tv <= 1 for one in errors.values())
    for one in spreads(mixture, SCHEDULE, 20, 3):
        assert one.small < one.best < one.large + one.error


@pytest.mark.usefixtures("undrawn")
def test_a_kernel_from_the_wrong_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reverse kernel as if x stood one step later; what is given x_0 has no part in it."""
    right = GaussianMixture.reverse
    monkeypatch.setattr(
        GaussianMixture,
        "reverse",
        lambda self, schedule, x, t, s=0: right(self, schedule, x, min(t + 1, schedule.T), s),
    )
    found = verdicts(replace(TINY, steps=(20, 350)))
    assert found["posterior"] == "does not hold"
    assert found["posterior-mixed"] == "does not hold"
    assert found["posterior-given-x0"] == "holds"


@pytest.mark.usefixtures("undrawn")
def test_beta_for_beta_hat_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """C16 with the forward variance: no longer Bayes' rule, and drawn too wide."""
    right = gaussian.posterior

    def wrong(schedule, x_t, x0, t, s):  # type: ignore[no-untyped-def]
        found = right(schedule, x_t, x0, t, s)
        return replace(found, variance=variance.large_variance(schedule, t, s))

    monkeypatch.setattr(gaussian, "posterior", wrong)
    found = verdicts()
    assert found["posterior-given-x0"] == "does not hold"
    assert found["posterior-draws"] == "does not hold"
    assert found["posterior"] == "holds"


@pytest.mark.usefixtures("undrawn")
def test_draws_that_forget_where_they_start_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """x_0 from the data, not from q(x_0 | x_t)."""
    monkeypatch.setattr(
        reverse_kernel,
        "sample_clean",
        lambda mixture, generator, schedule, x, t: mixture.sample(generator, len(x)),
    )
    assert verdicts()["posterior-draws"] == "does not hold"


@pytest.mark.usefixtures("undrawn")
def test_the_best_variance_leaves_its_bounds_for_other_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not scaled to variance 1, the ring's is above beta; the bound is about scaled data."""
    monkeypatch.setattr(posterior.gaussians, "unit", lambda mixture: mixture)
    assert verdicts()["posterior-variance"] == "does not hold"


@pytest.mark.usefixtures("undrawn")
def test_a_run_is_a_function_of_its_seed() -> None:
    first, again, other = (posterior.run(replace(TINY, seed=seed)) for seed in (0, 0, 1))
    assert first.rows == again.rows
    assert first.rows != other.rows


@pytest.mark.usefixtures("undrawn")
def test_the_claims_about_steps_can_fail() -> None:
    """A long step alone is not short, and a short one not long."""
    long = {row.name: row for row in posterior.run(replace(TINY, steps=(340, 350))).rows}
    assert long["posterior-short"].verdict == "does not hold"
    short = {row.name: row for row in posterior.run(replace(TINY, steps=(1, 2))).rows}
    assert short["posterior-long"].verdict == "does not hold"


@pytest.mark.parametrize("s", [399, 300, 50])
def test_distances_of_one_gaussian_are_the_closed_forms(s: int) -> None:
    """One component: the best Gaussian is the kernel; the others' KL is that of two Gaussians.

    Total variation between N(m, v I) and N(m, w I) of the plane, v > w: the mass of each in the
    circle where they cross. Tolerance: the quadrature's, and min(q, p) has an edge there.
    """
    one = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.ones(1) * 0.3)
    x_t = torch.tensor([[0.4, -1.0], [1.5, 0.2]], dtype=torch.float64)
    found = distances(one, SCHEDULE, x_t, 400, s)
    assert found[BEST].kl == pytest.approx(0, abs=1e-9)
    assert found[BEST].tv == pytest.approx(0, abs=1e-6)
    kernel = one.reverse(SCHEDULE, x_t[0], 400, s)
    eye = torch.eye(2, dtype=torch.float64)
    mean, covariance = kernel.moments()
    for name, chosen in ((BETA_HAT, variance.small_variance), (BETA, variance.large_variance)):
        v = chosen(SCHEDULE, 400, s)
        stand_in = multivariate.Multivariate(mean, v * eye)
        wanted = multivariate.kl(multivariate.Multivariate(mean, covariance), stand_in)
        assert found[name].kl == pytest.approx(wanted.item(), rel=1e-5, abs=1e-9)
        assert found[name].kl_error < 1e-9  # the same at every x_t
        own = covariance[0, 0]
        crossing = 2 * (v / own).log() / (1 / own - 1 / v)
        overlap = ((-crossing / (2 * v)).exp() - (-crossing / (2 * own)).exp()).abs()
        assert found[name].tv == pytest.approx(overlap.item(), rel=0.02, abs=1e-6)


def test_one_gaussian_s_best_variance_is_optimal_variance() -> None:
    """Data N(0, c I) before scaling: c = 1 after it, where the best is beta itself."""
    one = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.ones(1) * 0.3)
    for data, c in ((one, 0.3), (unit(one), 1.0)):
        for found in spreads(data, SCHEDULE, 20, 3):
            wanted = variance.optimal_variance(c)(SCHEDULE, found.t, found.t - 20).item()
            assert found.best == pytest.approx(wanted, abs=10 * found.error + 1e-9)


def test_the_best_variance_is_the_mean_of_the_kernels_own() -> None:
    """E tr Cov[x_s | x_t] / 2, over 200 draws of x_t: within six and a half standard errors.

    False alarm 1e-10. Wrong alternatives: either of DDPM's variances.
    """
    mixture = unit(ring())
    found = spreads(mixture, SCHEDULE, 20, 2)[0]
    generator = torch.Generator().manual_seed(0)
    x_0 = mixture.sample(generator, 200)
    z = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    x_t = gaussian.marginal(SCHEDULE, x_0, found.t).sample(z)
    kernels = [mixture.reverse(SCHEDULE, x, found.t, found.t - 20) for x in x_t]
    own = torch.stack([kernel.moments()[1].diagonal().mean() for kernel in kernels])
    error = 6.5 * own.std().item() / 200**0.5
    assert found.best == pytest.approx(own.mean().item(), abs=error)
    assert abs(found.small - own.mean().item()) > error
    assert abs(found.large - own.mean().item()) > error


def test_scaling_keeps_the_shape() -> None:
    mixture = unit(spirals())
    assert mixture.moments()[1].diagonal().mean().item() == pytest.approx(1)
    assert mixture.covariances.shape == spirals().covariances.shape
