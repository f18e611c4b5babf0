"""Every density of the table: normalised, diffused, scored and sampled as it says."""

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_math.densities.banana_funnel import Ribbon, banana, funnel
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.toy import DENSITIES, grid25, pinwheel, ring, spirals, two_moons
from diffusion_math.schedule import VPLinear
from tests.support.chance import Cells, Mean, rare
from tests.support.distribution import Law
from tests.support.mixtures import SCHEDULES, seeded, time_at

SCHEDULE = VPLinear()
# Not the density: its least standard deviation is too large, by a fifth or, on the board, twofold.
WIDER = {
    "ring": lambda: ring(std=0.18),
    "grid25": lambda: grid25(std=0.12),
    "two_moons": lambda: two_moons(std=0.12),
    "pinwheel": lambda: pinwheel(std=0.12),
    "spirals": lambda: spirals(std=0.096),
    "checkerboard": lambda: Checkerboard(std=0.1),
    "banana": lambda: banana(thickness=0.3),
    "funnel": lambda: funnel(std=1.44),
}


def line(reach, step):
    return torch.arange(-reach + step / 2, reach, step, dtype=torch.float64)


def rule(name, step):
    """Points and weights of a product rule, spaced `step` where nothing else is said.

    The trapezoid rule on Gaussians of standard deviation a has the relative error
    exp(-2 pi^2 a^2 / step^2): e^-31 for the board's 0.05 at 0.04, below e^-50 for the others'. The
    banana's second coordinate reaches far up; the funnel's is spaced evenly in asinh(50 w), fine
    where the funnel is thin.
    """
    if name == "banana":
        first, second = line(8, 2 * step), line(16, 2 * step) + 8.5
        weights = torch.full_like(second, 2 * step)
    elif name == "funnel":
        first, y = line(8, 2 * step), line(10.5, step / 2)
        second, weights = y.sinh() / 50, step / 2 * y.cosh() / 50
    else:
        first = second = line(8, step)
        weights = torch.full_like(second, step)
    space = first[1] - first[0]
    return torch.cartesian_prod(first, second), (space * weights).repeat(len(first))


@lru_cache
def clean(name):
    """Points, the probability each stands for, and log q_0 there."""
    x, weights = rule(name, 0.04 if name in ("checkerboard", "banana", "funnel") else 0.05)
    log_q = DENSITIES[name]().log_density(SCHEDULE, x, 0)
    return x, weights * log_q.exp(), log_q


def mean_of(name):
    """The mean in closed form: that of the mixture, or 0 by symmetry (the banana's by design)."""
    density = DENSITIES[name]()
    return density.moments()[0] if hasattr(density, "moments") else torch.zeros(2).double()


@pytest.mark.parametrize("name", DENSITIES)
def test_mass_mean_and_covariance_at_every_time(name):
    """q_t integrates to 1, with mean alpha m and covariance alpha^2 C + sigma^2 I.

    Tolerance 1e-9: [-8, 8]^2, or the rule made for it, leaves out six standard deviations or more.
    """
    x, mass, _ = clean(name)
    mean = mass @ x
    covariance = (x - mean).T @ (mass[:, None] * (x - mean))
    torch.testing.assert_close(mass.sum().item(), 1.0, rtol=0, atol=1e-9)
    torch.testing.assert_close(mean, mean_of(name), rtol=0, atol=2e-9)
    for t in (0.3, 1.0):
        alpha_t, sigma_t = SCHEDULE(t)
        x, weights = rule(name, 0.1)
        mass = weights * DENSITIES[name]().log_density(SCHEDULE, x, t).exp()
        spread = (x - alpha_t * mean).T @ (mass[:, None] * (x - alpha_t * mean))
        torch.testing.assert_close(mass.sum().item(), 1.0, rtol=0, atol=1e-9)
        torch.testing.assert_close(mass @ x, alpha_t * mean, rtol=0, atol=1e-8)
        wanted = alpha_t**2 * covariance + sigma_t**2 * torch.eye(2, dtype=torch.float64)
        # The funnel's second moment is that of a log-normal: its last tenth lies far out.
        torch.testing.assert_close(spread, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_q_t_and_the_denoiser_by_convolution(name, t):
    """log q_t(x) and E[x_0 | x_t = x], by the integral over all x_0, at points x where q_t lives.

    Not so without the shrinking by alpha, or with sigma for sigma^2. Tolerance: the noise at
    t = 0.05 has sigma 0.17, over three steps of the rule: e^-100; the mass left out is 1e-9.
    """
    density = DENSITIES[name]()
    x_0, mass, _ = clean(name)
    alpha_t, sigma_t = SCHEDULE(t)
    generator = seeded(3)
    x = alpha_t * density.sample(generator, 12)
    x = x + sigma_t * torch.randn(12, 2, generator=generator, dtype=torch.float64)

    def joint(alpha, variance):
        squares = (x[:, None] - alpha * x_0).square().sum(2)
        return mass.log() - squares / (2 * variance) - math.log(2 * math.pi * variance)

    log_joint = joint(alpha_t, sigma_t**2)
    log_q = density.log_density(SCHEDULE, x, t)
    torch.testing.assert_close(log_joint.logsumexp(1), log_q, rtol=1e-7, atol=1e-7)
    mean = log_joint.softmax(1) @ x_0
    torch.testing.assert_close(density.posterior_mean(SCHEDULE, x, t), mean, rtol=1e-6, atol=1e-6)
    for alpha, variance in ((1.0, sigma_t**2), (alpha_t, sigma_t)):
        if (alpha, variance) != (1.0, 1.0) and abs(variance - sigma_t**2) + 1 - alpha_t > 1e-3:
            wrong = joint(alpha, variance).logsumexp(1)
            assert (wrong - log_q).abs().max() > 1e-5


@pytest.mark.parametrize("name", DENSITIES)
@settings(max_examples=15)
@given(
    schedule=st.sampled_from(SCHEDULES),
    part=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_score_is_the_gradient_and_obeys_tweedie(name, schedule, part, seed):
    """score = grad log q_t by autograd, and alpha E[x_0 | x_t] = x_t + sigma^2 score.

    At draws of x_t and of a normal, so inside and out, under every schedule from t = 0 to T.
    Tolerance: x over a variance of at least 0.05^2 (alpha^2 + sigma^2) loses 1e3 |x| roundings,
    and as many again where a log-density in the hundreds is exponentiated.
    """
    density, t = DENSITIES[name](), time_at(schedule, part)
    alpha_t, sigma_t = schedule(t)
    generator = seeded(seed)
    noise = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    inside = alpha_t * density.sample(generator, 4) + sigma_t * noise[:4]
    x = torch.cat([inside, (1 + sigma_t) * noise[4:]])
    if isinstance(density, Ribbon):  # exact to rounding down to there
        x = x[density.log_density(schedule, x, t) > -50]
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_density(schedule, x, t).sum(), x)
    x = x.detach()
    score = density.score(schedule, x, t)
    size = 1 + gradient.abs().max().item()
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-10 * size)
    got = alpha_t * density.denoiser(schedule)(x, torch.tensor(t, dtype=torch.float64))
    wanted = x + sigma_t.square() * score
    atol = 1e-10 * (1 + sigma_t.item() ** 2 * size)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=atol)


@pytest.mark.chance(3.2e-8, "the density of WIDER: its mean log-density is another")
@pytest.mark.parametrize("name", DENSITIES)
def test_samples_have_the_density_s_entropy_and_mean(name):
    """Means of log q_0 and of both coordinates over 20000 draws, of which quadrature has the laws.

    Its rule leaves out next to nothing: not even a draw of the funnel comes to its ends, 360 out.
    """
    density, wider, n = DENSITIES[name](), WIDER[name](), 20_000
    x, mass, log_q = clean(name)
    _, weights = rule(name, 0.04 if name in ("checkerboard", "banana", "funnel") else 0.05)
    of_wider = weights * wider.log_density(SCHEDULE, x, 0).exp()
    some = torch.maximum(mass, of_wider) > 1e-25  # 1e-20 in all is left out
    x, mass, log_q, of_wider = x[some], mass[some], log_q[some], of_wider[some]
    bound = Mean(Law(log_q, mass), n, 1e-9)
    draws, wrong = density.sample(seeded(0), n), wider.sample(seeded(1), n)
    assert draws.shape == (n, 2)
    assert bound.holds(density.log_density(SCHEDULE, draws, 0).mean())
    assert rare(bound.misses(Law(log_q, of_wider)))
    assert not bound.holds(density.log_density(SCHEDULE, wrong, 0).mean())
    for side, draw in zip(x.T, draws.T, strict=True):
        assert Mean(Law(side, mass), n, 1e-9).holds(draw.mean())


@pytest.mark.chance(1.2e-8, "the same draws turned by 0.1 rad about the origin")
@pytest.mark.parametrize("name", [name for name in DENSITIES if name not in ("banana", "funnel")])
def test_samples_lie_in_every_square_as_often_as_they_should(name):
    """Pearson's sum of 20000 draws over squares of side 0.2 (the ribbons have a sharper test).

    Squares that expect fewer than 20 draws are one. A square's probability is a sum over 16 or
    more nodes, known to a few thousandths, which moves the sum by less than 1: 2 are allowed.
    """
    n, side, reach = 20_000, 0.2, 5.0
    x, mass, _ = clean(name)
    count = round(2 * reach / side)

    def square(points):
        i, j = ((points.clamp(-reach, reach - 1e-9) + reach) / side).floor().long().T
        return i * count + j

    def every(points, weights):
        return torch.zeros(count**2, dtype=torch.float64).index_add(0, square(points), weights)

    enough = n * every(x, mass) > 20

    def cells(points, weights):
        each = every(points, weights)
        return torch.cat([each[enough], each[~enough].sum()[None]])

    bound = Cells(cells(x, n * mass), 1e-9, slack=2)
    draws, one = DENSITIES[name]().sample(seeded(1), n), torch.ones(n, dtype=torch.float64)
    turn = torch.tensor([[math.cos(0.1), math.sin(0.1)], [-math.sin(0.1), math.cos(0.1)]]).double()
    assert bound.holds(cells(draws, one))
    assert rare(bound.misses(cells(x @ turn, n * mass)))
    assert not bound.holds(cells(draws @ turn, one))


@pytest.mark.parametrize("name", DENSITIES)
def test_dtypes_times_of_a_batch_and_empty_batches(name):
    """float32 in, float32 out; each row at its own time, t = 0 among them; no rows are no error."""
    density, x = DENSITIES[name](), torch.tensor([[0.1, -0.3], [1.0, 0.5]], dtype=torch.float64)
    t = torch.tensor([0.0, 0.7], dtype=torch.float64)
    for method in (density.log_density, density.score, density.posterior_mean):
        each = torch.cat([method(SCHEDULE, x[i : i + 1], t[i]) for i in range(2)])
        torch.testing.assert_close(method(SCHEDULE, x, t), each, rtol=1e-11, atol=1e-11)
        assert len(method(SCHEDULE, x[:0], 0.5)) == 0
    assert density.score(SCHEDULE, x.float(), 0.5).dtype == torch.float32
    assert density.log_density(SCHEDULE, x.float(), 0.5).dtype == torch.float64
    assert density.sample(seeded(0), 0).shape == (0, 2)


def test_places():
    """The ring lies on its circle, the grid on its lattice, each moon on a half circle."""
    torch.testing.assert_close(
        ring(modes=5, radius=3.0).means.norm(dim=1), torch.full((5,), 3.0, dtype=torch.float64)
    )
    assert len(grid25().means) == 25
    assert grid25(spacing=2.0).means.abs().amax() == 4
    upper, lower = two_moons(modes=9).means.split(9)
    centre = torch.tensor([-0.5, -0.25], dtype=torch.float64)
    torch.testing.assert_close(
        (upper - centre).norm(dim=1), torch.ones(9, dtype=torch.float64), rtol=1e-14, atol=0
    )
    assert ((upper - centre)[:, 1] >= 0).all()
    torch.testing.assert_close(lower, -upper)
    assert torch.cdist(upper, lower).min() > 0.4  # interleaved, not touching


@pytest.mark.parametrize("twist", [0.25, 0.0, -0.6])
def test_the_pinwheel_is_its_formula(twist):
    """Modes at 2 r exp(i (2 pi k / 5 + twist e^r)), r in 1 +- 0.7, weights as N(r; 1, 0.3^2).

    And its mean and covariance from there: none, by symmetry, and half of the sum of squares a
    side, of which each mode's own are 0.1 across and the way to its neighbour along.
    """
    data, r = pinwheel(twist=twist), np.tile(np.linspace(0.3, 1.7, 12), 5)
    turn = 2 * np.pi * np.repeat(np.arange(5), 12) / 5 + twist * np.exp(r)
    places = 2 * r * np.exp(1j * turn)
    np.testing.assert_allclose(data.means.numpy() @ [1, 1j], places, rtol=0, atol=1e-12)
    weights = np.exp(-((r - 1) ** 2) / 0.18)
    weights /= weights.sum()
    np.testing.assert_allclose(data.log_weights.exp().numpy(), weights, rtol=1e-12)
    along = 2 * np.hypot(1, r * twist * np.exp(r)) * 1.4 / 11
    square = float((weights * (abs(places) ** 2 + along**2 + 0.1**2)).sum())
    mean, covariance = data.moments()
    torch.testing.assert_close(mean, torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        covariance, square / 2 * torch.eye(2).double(), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(("make", "arms", "std"), [(pinwheel, 5, 0.1), (spirals, 2, 0.08)])
def test_chains_follow_their_curves(make, arms, std):
    """Each arm is the first one turned; a mode is `std` wide, and as long as neighbours are apart.

    Between its neighbours p, p' a mode has the covariance c c^T + std^2 n n^T, c = (p' - p) / 2 and
    n across it, to second order in the distance. A tangent that forgets the twist, or turns the
    other way, misses by the twist's angle. The spirals' neighbours are equally far apart.
    """
    data = make(modes=200)
    means = data.means.reshape(arms, 200, 2)
    places = torch.view_as_complex(means)
    angle = 2 * math.pi / arms * torch.arange(arms, dtype=torch.float64)
    turn = torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(places, turn[:, None] * places[:1])
    chord = (means[:, 2:] - means[:, :-2]) / 2
    unit = chord / chord.norm(dim=2, keepdim=True)
    across = std * torch.stack([-unit[..., 1], unit[..., 0]], dim=2)
    wanted = sum(v[..., None] * v[..., None, :] for v in (chord, across))
    got = data.covariances.reshape(arms, 200, 2, 2)[:, 1:-1]
    torch.testing.assert_close(got[:, 9:], wanted[:, 9:], rtol=0, atol=0.02 * std**2)
    steps = chord.norm(dim=2)
    if make is spirals:
        assert steps.max() / steps.min() < 1.25
    weights = data.log_weights.reshape(arms, 200)
    torch.testing.assert_close(weights, weights[:1].expand(arms, -1))
    if make is pinwheel:  # radius 2 at r = 1, weights as N(r; 1, 0.3^2)
        r = places.abs()[0] / 2
        bell = -(r - 1).square() / (2 * 0.3**2)
        torch.testing.assert_close(weights[0] - weights[0, 100], bell - bell[100])


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ring(modes=0), "modes"),
        (lambda: two_moons(modes=1), "modes"),
        (lambda: ring(std=0.0), "std"),
        (lambda: grid25(std=-1.0), "std"),
        (lambda: two_moons(std=math.nan), "std"),
        (lambda: pinwheel(arms=0), "arms"),
        (lambda: pinwheel(modes=1), "modes"),
        (lambda: pinwheel(std=0.0), "std"),
        (lambda: spirals(arms=0), "arms"),
        (lambda: spirals(modes=1), "modes"),
        (lambda: spirals(std=math.inf), "std"),
    ],
)
def test_bad_arguments(make, argument):
    """Each names its argument."""
    with pytest.raises(ValueError, match=f"{argument}: wanted"):
        make()
