"""The mixture oracle against autograd, quadrature, Bayes' rule and torch's own Gaussians."""

import math
from fractions import Fraction

import pytest
import torch
from jaxtyping import TypeCheckError

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Discrete, RectifiedFlow, VPLinear
from tests.support.chance import rare
from tests.support.largest_tensor import Largest
from tests.support.mixtures import (
    EVENTS,
    FORMS,
    SCHEDULES,
    Moments,
    cases,
    mixture,
    normal,
    seeded,
    time_at,
)

EPS = torch.finfo(torch.float64).eps


@cases(reach=3e6)
def test_the_score_is_the_gradient_of_the_log_density(data, schedule, part, seed):
    """C08: the marginals' score, from t = 0 to T, with components up to 1e6 apart.

    Tolerance: x - alpha m is known to the rounding of x and alpha m, and is divided by a variance
    of at least 0.05 (alpha^2 + sigma^2) >= 0.025: 40 sum |x| EPS, and a margin of 10.
    """
    t, event = time_at(schedule, part), data.means.shape[1:]
    x = data.means[:1] * schedule(t)[0] + normal(seeded(seed), 3, *event)
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(data.log_density(schedule, x, t).sum(), x)
    size = 1 + x.abs().max().item() + 2 * data.means.abs().max().item()
    atol = 400 * EPS * size * max(1, math.prod(event))
    torch.testing.assert_close(data.score(schedule, x, t), gradient, rtol=1e-9, atol=atol)


@cases(reach=3e6)
def test_the_posterior_mean_obeys_tweedie(data, schedule, part, seed):
    """alpha_t E[x_0 | x_t] = x_t + sigma_t^2 score: two formulas that share no line.

    Tolerance: as for the score, times sigma_t^2 (80^2 at VE's end, where it divides by as much).
    """
    t, event = time_at(schedule, part), data.means.shape[1:]
    alpha_t, sigma_t = schedule(t)
    x = data.means[:1] * alpha_t + (1 + sigma_t) * normal(seeded(seed), 3, *event)
    got = alpha_t * data.posterior_mean(schedule, x, t)
    wanted = x + sigma_t.square() * data.score(schedule, x, t)
    size = 1 + x.abs().max().item() + 2 * data.means.abs().max().item()
    atol = 400 * EPS * size * max(1, math.prod(event))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=atol)
    if t == 0:
        # x alone is left, times weights that sum to 1 and, in full form, through Q Q^T = 1.
        atol = 16 * EPS * x.abs().max().item() * max(1, math.prod(event))
        torch.testing.assert_close(got, x, rtol=0, atol=atol)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_quadrature_in_one_dimension(schedule, part):
    """q_t integrates to 1, and E[x_0 | x_t] is the ratio of two integrals over x_0.

    The trapezoid rule on a step below a third of the least standard deviation (0.2) is exact to
    e^-100 for a sum of Gaussians that ends where they are below e^-50.
    """
    data, t = mixture("isotropic", (), 3, seed=5), time_at(schedule, part)
    alpha_t, sigma_t = schedule(t)
    x = (12 * (alpha_t * 3 + sigma_t)) * torch.linspace(-1, 1, 4001, dtype=torch.float64)
    mass = torch.trapezoid(data.log_density(schedule, x, t).exp(), x).item()
    assert mass == pytest.approx(1, abs=1e-12)

    x_0 = torch.linspace(-25, 25, 20_001, dtype=torch.float64)
    x_t = 0.3 * (alpha_t + sigma_t)
    log_joint = data.log_density(schedule, x_0, 0)
    log_joint = log_joint - (x_t - alpha_t * x_0).square() / (2 * sigma_t.square())
    weight = log_joint.softmax(0)
    got = data.posterior_mean(schedule, x_t[None], t).item()
    assert got == pytest.approx((weight @ x_0).item(), rel=1e-9, abs=1e-10)


def by_torch(data, schedule, x, t):
    """The log-density at t by torch.distributions, over matrices built without an eigenbasis."""
    alpha_t, sigma_t = schedule(t)
    K, D = len(data.means), data.means[0].numel()
    eye = torch.eye(D, dtype=torch.float64)
    C = data.covariances
    if C.ndim == 1:
        C = C[:, None, None] * eye
    elif C.shape == data.means.shape:
        C = torch.diag_embed(C.reshape(K, D))
    each = torch.distributions.MultivariateNormal(
        alpha_t * data.means.reshape(K, D), alpha_t**2 * C + sigma_t**2 * eye
    )
    return (data.log_weights + each.log_prob(x.reshape(len(x), 1, D))).logsumexp(1)


@cases()
def test_the_log_density_is_that_of_torch(data, schedule, part, seed):
    """Every form of covariance, against Cholesky factors; components within reach of each other."""
    t = time_at(schedule, part)
    x = data.sample(seeded(seed), 5)
    wanted = by_torch(data, schedule, x, t)
    torch.testing.assert_close(data.log_density(schedule, x, t), wanted, rtol=1e-10, atol=1e-10)
    marginal = data.marginal(schedule, t).log_density(schedule, x, 0)
    torch.testing.assert_close(marginal, wanted, rtol=1e-10, atol=1e-10)


WRONG = {
    "sigma for sigma^2": lambda d, a, s, x: (d.means * a, a**2 * d.covariances + s),
    "alpha for alpha^2": lambda d, a, s, x: (d.means * a, a * d.covariances + s**2),
    "means not shrunk": lambda d, a, s, x: (d.means, a**2 * d.covariances + s**2),
    "data variance forgotten": lambda d, a, s, x: (d.means * a, 0 * d.covariances + s**2),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_marginals_are_rejected(name):
    """Each wrong marginal is far from log_density at a middle time."""
    schedule, data = VPLinear(), mixture("isotropic")
    x, (alpha_t, sigma_t) = normal(seeded(1), 5, 2), schedule(0.4)
    wrong = GaussianMixture(data.log_weights, *WRONG[name](data, alpha_t, sigma_t, x))
    right = data.log_density(schedule, x, 0.4)
    assert (wrong.log_density(schedule, x, 0) - right).abs().max() > 0.05


def exact_difference(x, alpha, m):
    """x - alpha m in exact arithmetic, rounded once."""
    pairs = zip(x.flatten().tolist(), m.flatten().tolist(), strict=True)
    a = Fraction(alpha.item())
    each = [float(Fraction(one) - a * Fraction(other)) for one, other in pairs]
    return torch.tensor(each, dtype=torch.float64).reshape(x.shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("t", [0.0, 1e-3, 0.2])
def test_components_a_million_apart_do_not_disturb_each_other(form, t):
    """Near one mode all is as if the others were not there, to rounding of the answer alone.

    The variances are 1e-4, so that an expanded square, wrong by 1e12 EPS / 1e-4 = 2, would fail.
    """
    schedule = VPLinear()
    eye = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    variances = {
        "isotropic": torch.full((3,), 1e-4, dtype=torch.float64),
        "diagonal": torch.full((3, 2), 1e-4, dtype=torch.float64),
        "full": 1e-4 * eye,
    }[form]
    means = torch.tensor([[0.0, 0.0], [1e6, 0.0], [1e6, 1e6]], dtype=torch.float64)
    data = GaussianMixture(torch.zeros(3), means, variances)
    alpha_t, sigma_t = schedule(t)
    variance = alpha_t**2 * 1e-4 + sigma_t**2
    x = alpha_t * means + torch.tensor([0.01, -0.02], dtype=torch.float64)
    apart = exact_difference(x, alpha_t, means)
    alone = -(apart.square().sum(1) / variance + 2 * (2 * math.pi * variance).log()) / 2
    got = data.log_density(schedule, x, t)
    torch.testing.assert_close(got, alone - math.log(3), rtol=1e-12, atol=1e-12)
    score = data.score(schedule, x, t)
    torch.testing.assert_close(score, -apart / variance, rtol=1e-12, atol=1e-12)
    expanded = torch.cdist(x, alpha_t * means, compute_mode="use_mm_for_euclid_dist").diag()
    assert t > 0.1 or (expanded**2 - apart.square().sum(1)).abs().max() / variance > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_far_from_everything_is_finite(form):
    """1e8 standard deviations out, no probability under- or overflows."""
    data = mixture(form)
    x = torch.full((1, 2), 1e8, dtype=torch.float64)
    for t in (0.0, 0.5, 1.0):
        for f in (data.log_density, data.score, data.posterior_mean):
            assert f(VPLinear(), x, t).isfinite().all()


@pytest.mark.parametrize("form", ["isotropic", "diagonal"])
def test_no_tensor_of_batch_times_components_times_entries(form):
    """Distances and products only: nothing larger than the largest of BK, BD and KD is built."""
    B, K, D = 17, 19, 23
    data, x = mixture(form, (D,), K), torch.zeros(B, D, dtype=torch.float64)
    for f in (data.log_density, data.score, data.posterior_mean):
        with Largest() as seen:
            f(VPLinear(), x, 0.5)
        assert seen.numel <= K * D


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("event", EVENTS)
def test_a_time_for_each_sample(form, event):
    """A batch of times gives what one time at a time gives, in order, repeats included."""
    schedule, data = VPLinear(), mixture(form, event)
    x = normal(seeded(3), 6, *event)
    t = torch.tensor([0.5, 0.0, 1.0, 0.5, 0.2, 0.0], dtype=torch.float64)
    for f in (data.log_density, data.score, data.posterior_mean):
        together = f(schedule, x, t)
        alone = torch.cat([f(schedule, x[i : i + 1], t[i]) for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-13)
        assert f(schedule, x[:0], t[:0]).shape == together[:0].shape
        assert f(schedule, x[:0], 0.5).shape == together[:0].shape


def test_dtypes():
    """float32 in, float32 out, computed in float64; the log-density is float64."""
    schedule, data = VPLinear(), mixture("full")
    x = torch.randn(4, 2, generator=seeded(0))
    assert data.score(schedule, x, 0.3).dtype == torch.float32
    assert data.log_density(schedule, x, 0.3).dtype == torch.float64
    got = data.denoiser(schedule)(x, torch.tensor(0.3, dtype=torch.float64))
    assert got.equal(data.posterior_mean(schedule, x.double(), 0.3).float())


@pytest.mark.chance(2.4e-8, "variances in the place of standard deviations")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("event", [(), (1,), (3,), (2, 2)])
def test_samples_have_the_exact_moments(form, event):
    """Mean and second moment of 40000 draws along every axis and every sum of two axes."""
    data, n = mixture(form, event, seed=2), 40_000
    bound = Moments(data, n, 1e-9)
    assert bound.holds(data.sample(seeded(0), n))
    squared = data.covariances.square() if form != "full" else data.covariances @ data.covariances
    wrong = GaussianMixture(data.log_weights, data.means, squared)
    assert rare(bound.misses(wrong))
    assert not bound.holds(wrong.sample(seeded(1), n))
    assert data.sample(seeded(0), 0).shape == (0, *event)


def test_a_point_mass_has_a_denoiser_at_every_positive_time():
    """Zero variances are data sets: E[x_0 | x_t] is a weighted mean of the points; none at 0."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    data = GaussianMixture(torch.zeros(2), points, torch.zeros(2))
    schedule, x = RectifiedFlow(), torch.tensor([[0.25, 5.0]], dtype=torch.float64)
    weights = (-(x - 0.5 * points).square().sum(1) / (2 * 0.25)).softmax(0)
    torch.testing.assert_close(data.posterior_mean(schedule, x, 0.5)[0], weights @ points)
    with pytest.raises(ValueError, match="t: wanted a time > 0"):
        data.log_density(schedule, x, 0)


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(0), torch.zeros(0, 2), torch.zeros(0)), "means: wanted K, D >= 1"),
        ((torch.zeros(2), torch.zeros(2, 2), torch.ones(2, 3)), "covariances: wanted a shape"),
        ((torch.zeros(2), torch.zeros(2, 2), -ONE), "covariances: wanted no negative"),
        ((torch.zeros(2), torch.full((2, 2), math.nan), ONE), "means: wanted finite"),
        ((torch.tensor([0.0, -math.inf]), torch.zeros(2, 2), ONE), "log_weights: wanted finite"),
        (
            (torch.zeros(1), torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])),
            "covariances: wanted a symmetric",
        ),
        (
            (torch.zeros(1), torch.zeros(1, 2), torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])),
            "covariances: wanted no negative",
        ),
    ],
)
def test_bad_mixtures(arguments, message):
    """Every argument is checked and named."""
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


def test_as_many_weights_as_means():
    """A ValueError in production; under the tests' run-time types the annotation comes first."""
    with pytest.raises((ValueError, TypeCheckError), match=r"log_weights|dimension K"):
        GaussianMixture(torch.zeros(3), torch.zeros(2, 2), ONE)


def test_bad_points_and_times():
    """x must carry the event, t be () or (batch,)."""
    with pytest.raises(ValueError, match="x: wanted shape"):
        mixture("full").score(VPLinear(), torch.zeros(4, 3), 0.5)
    with pytest.raises(ValueError, match="t: wanted shape"):
        mixture("full").score(VPLinear(), torch.zeros(4, 2), torch.zeros(3))


@pytest.mark.parametrize("covariances", [(2,), (2, 3), (2, 3, 3)])
def test_a_mixture_made_and_used_in_inference_mode_has_gradients_outside(
    covariances: tuple[int, ...],
) -> None:
    x, t = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True), torch.tensor(0.5)
    with torch.inference_mode():
        spread = (
            torch.eye(3).expand(covariances) if len(covariances) == 3 else torch.ones(covariances)
        )
        data = GaussianMixture(torch.zeros(2), torch.arange(6.0).reshape(2, 3), spread)
        schedule = Discrete.linear(4)
        data.log_density(schedule, torch.zeros(4, 3), torch.tensor(2))
    for at, clock in ((RectifiedFlow(), t), (schedule, torch.tensor(2))):
        (slope,) = torch.autograd.grad(data.log_density(at, x, clock).sum(), x)
        torch.testing.assert_close(slope, data.score(at, x.detach(), clock))


def test_a_mixture_does_not_change_with_the_tensors_that_it_was_made_of() -> None:
    means, x = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    data = GaussianMixture(torch.zeros(1), means, torch.ones(1))
    before = data.score(RectifiedFlow(), x, torch.tensor(0.5))
    means += 1
    assert not data.means.any()
    assert torch.equal(data.score(RectifiedFlow(), x, torch.tensor(0.5)), before)
