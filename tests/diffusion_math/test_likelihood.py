"""The probability-flow log-density against oracles: closed for Gaussians, exact for mixtures."""

import itertools
import math

import pytest
import torch

from diffusion_math.denoiser import from_eps, from_x0
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.likelihood import flow_log_density
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPCosine, VPLinear
from diffusion_math.score_matching import rademacher
from tests.support.chance import Count, Mean, pinned, rare
from tests.support.distribution import Law, independent, uniform
from tests.support.mixtures import FORMS, mixture, normal, seeded

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULES = [Discrete.linear(20), VPLinear(), VPCosine(), VE(), RectifiedFlow()]


def kind(value):
    return value if isinstance(value, str) else type(value).__name__


def solve(data, schedule, x, t=None, s=None, **options):
    """The flow's density for the oracle's denoiser, started from the oracle's law of x_t."""
    end = schedule.T if t is None else t
    return flow_log_density(
        schedule,
        data.denoiser(schedule),
        x,
        lambda x_t: data.log_density(schedule, x_t, end),
        s=s,
        t=t,
        **options,
    )


def points(data, schedule, s, n=4, seed=3):
    return data.marginal(schedule, s).sample(seeded(seed), n)


@pytest.mark.parametrize(
    ("schedule", "form"),
    [*zip(SCHEDULES, itertools.cycle(FORMS)), (VPLinear(), "full")],
    ids=kind,
)
def test_it_is_the_mixture_s_own_density(schedule, form):
    """From t_min to T, alpha_T = 0 included, log p = log q_{t_min} to 1e-6 of a nat.

    The flow of the exact score carries q_{t_min} to q_T, so the ODE's error is all there is: DOP853
    at 1e-9. Wrong: the divergence's sign, half of it, the change of scale left out, the law of
    another time at the end; each is off by more than 1e-2.
    """
    data = mixture(form, seed=4)
    x = points(data, schedule, schedule.t_min)
    got = solve(data, schedule, x, rtol=1e-9, atol=1e-9)
    exact = data.log_density(schedule, x, schedule.t_min)
    torch.testing.assert_close(got.log_density, exact, rtol=0, atol=1e-6)

    prior = data.log_density(schedule, got.end, schedule.T)
    scale_s, scale_t = (sum(schedule(t)) for t in (schedule.t_min, schedule.T))
    stretch = 2 * torch.log(scale_t / scale_s)
    change = got.log_density - prior - stretch
    wrong = {
        "sign of the divergence": prior + stretch - change,
        "half the divergence": prior + stretch + change / 2,
        "the law of t_min at T": got.log_density
        - prior
        + data.log_density(schedule, got.end, schedule.t_min),
    }
    if abs(stretch) > 0.02:
        wrong["no change of scale"] = prior + change
    for what, value in wrong.items():
        assert ((value - exact).abs() > 1e-2).any(), what


@pytest.mark.parametrize("event", [(), (2, 2)])
def test_between_any_two_times_and_events_of_any_shape(event):
    """s and t need not be the ends, an event may be () or have several axes."""
    schedule, data = VPCosine(), mixture("isotropic", event, seed=2)
    x = points(data, schedule, 0.2)
    got = solve(data, schedule, x, s=0.2, t=0.7)
    exact = data.log_density(schedule, x, 0.2)
    torch.testing.assert_close(got.log_density, exact, rtol=0, atol=1e-6)
    back = solve(data, schedule, x[:0], s=0.2, t=0.7)
    assert back.log_density.shape == (0,)
    assert back.end.shape == x[:0].shape


@pytest.mark.parametrize("schedule", [Discrete.linear(20), VPCosine(), VE()], ids=kind)
def test_the_flow_s_end_is_the_closed_one(schedule):
    """One Gaussian: x_T = alpha_T m + S(T)^{1/2} S(s)^{-1/2} (x_s - alpha_s m)."""
    data = mixture("full", (3,), K=1, seed=1)
    x = points(data, schedule, schedule.t_min)
    got = solve(data, schedule, x, rtol=1e-10, atol=1e-10)
    exact = data.probability_flow(schedule, x, schedule.t_min, schedule.T)
    torch.testing.assert_close(got.end, exact, rtol=1e-7, atol=1e-8)
    density = data.log_density(schedule, x, schedule.t_min)
    torch.testing.assert_close(got.log_density, density, rtol=0, atol=1e-7)


def test_a_wrong_denoiser_has_a_density_of_its_own():
    """It need not be the data's, but integrates to 1: the model is a density, not a score.

    A smooth network on a line, from s = 0.3 to 1; trapezoid rule, exact to the solver's 1e-8.
    """
    schedule = VPLinear()
    denoise = from_x0(lambda x, t: torch.sin(2 * x) - 0.3 * t, schedule)
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    unit = torch.ones((), dtype=torch.float64)

    def log_prior(x):
        return Gaussian(torch.zeros_like(x), unit).log_density(x)

    got = flow_log_density(schedule, denoise, line, log_prior, s=0.3)
    mass = torch.trapezoid(got.log_density.exp(), line).item()
    assert mass == pytest.approx(1, abs=1e-7)
    turned = 2 * log_prior(got.end) - got.log_density  # the divergence's sign
    assert abs(torch.trapezoid(turned.exp(), line).item() - 1) > 0.1
    other = mixture("isotropic", (), K=1).log_density(schedule, line, 0.3)
    assert (got.log_density - other).abs().max() > 0.1


def test_the_error_follows_the_tolerance():
    """A hundred times the tolerance, at most half the work, and an error that is no smaller."""
    schedule, data = VPLinear(), mixture("isotropic", seed=4)
    x = points(data, schedule, schedule.t_min)
    exact = data.log_density(schedule, x, schedule.t_min)
    runs = [solve(data, schedule, x, rtol=tol, atol=tol) for tol in (1e-3, 1e-10)]
    errors = [(run.log_density - exact).abs().max().item() for run in runs]
    assert errors[1] < 1e-7 < errors[0] < 0.1
    assert runs[0].evaluations < runs[1].evaluations / 2


def test_hutchinson_is_unbiased_after_integration():
    """log p is linear in e e^T, so a few probes whose mean of e e^T is I have the exact mean.

    The path does not depend on the probe, and the others of the four signs are opposites: (1, 1)
    and (1, -1) for signs, sqrt(2) times the axes for any law of covariance I. Each probe alone is
    off by what J has off the diagonal, or by how its diagonal's entries differ.
    """
    schedule, data = RectifiedFlow(), mixture("full", seed=4)
    x, root = points(data, schedule, schedule.t_min), math.sqrt(2)
    exact = data.log_density(schedule, x, schedule.t_min)
    every = torch.tensor([[1, 1], [1, -1], [root, 0], [0, root]], dtype=torch.float64)
    probes = every.repeat_interleave(len(x), 0)[None]
    got = solve(data, schedule, x.repeat(4, 1), probes=probes, rtol=1e-9, atol=1e-9)
    each = got.log_density.reshape(4, len(x))
    torch.testing.assert_close((each[0] + each[1]) / 2, exact, rtol=0, atol=1e-6)
    torch.testing.assert_close((each[2] + each[3]) / 2, exact, rtol=0, atol=1e-6)
    assert ((each - exact).abs().amax(1) > 1e-2).all()
    both = solve(data, schedule, x, probes=every[:2, None].expand(2, *x.shape).clone())
    torch.testing.assert_close(both.log_density, exact, rtol=0, atol=1e-6)


def estimate_of_uniforms(estimates, x):
    """The law of the estimate with probes uniform on [-1, 1]^2, from four probes.

    It is linear in e e^T: c + p e_1^2 + q e_2^2 + r e_1 e_2.
    """
    corners = torch.tensor([[0.0, 0], [1, 0], [1, 1], [1, -1]], dtype=torch.float64)
    c, one, same, other = estimates(corners[None], x.expand(4, 2)).tolist()
    p, q, r = one - c, (same + other) / 2 - one, (same - other) / 2
    side = uniform(-1, 1, 400)
    return independent(side, side, lambda a, b: c + p * a * a + q * b * b + r * a * b)


@pytest.mark.chance(4e-9, "probes uniform on [-1, 1], which take a third of the divergence")
def test_drawn_signs_average_to_the_density():
    """2000 copies of a point with a probe of their own each: 2000 estimates of one log-density.

    Two values are possible, (1, 1)'s and (1, -1)'s, each with probability 1/2, and the exact one is
    half-way. Signs of which two in three are alike are rejected too.
    """
    schedule, data, n = VPLinear(), mixture("full", seed=4), 2000
    # A point chosen once: where the divergence is small the wrong probes would do as well.
    point = data.marginal(schedule, 0.1).sample(pinned(3), 1)
    x = point.expand(n, 2).clone()
    exact = data.log_density(schedule, x[:1], 0.1).item()

    def estimates(probes, x=x):
        return solve(data, schedule, x, s=0.1, probes=probes, rtol=1e-6, atol=1e-6).log_density

    signs = estimates(rademacher(seeded(11), x))
    distance = (signs.max() - signs.min()).item()
    ends = torch.stack([signs.min(), signs.max()])
    assert (signs[:, None] - ends).abs().amin(1).max() < 1e-4 < 1e-2 < distance
    assert ends.mean().item() == pytest.approx(exact, abs=1e-4)
    alike = Count(n, 0.5, 1e-9)
    assert alike.holds(int((signs > exact).sum()))
    assert rare(alike.misses(2 / 3))
    bound = Mean(Law(ends, torch.full_like(ends, 0.5)), n, 1e-9)
    assert bound.holds(signs.mean())
    assert rare(bound.misses(estimate_of_uniforms(estimates, x[:1])))
    uniforms = 2 * torch.rand(1, n, 2, generator=seeded(12), dtype=torch.float64) - 1
    assert not bound.holds(estimates(uniforms).mean())


def test_a_network_in_single_precision():
    """The network sees float32, and time as it was trained; the answer is near float64's."""
    schedule = Discrete.linear(20)
    seen = []

    def network(x, time):
        seen.append((x.dtype, time.dtype, time.min().item(), time.max().item()))
        return torch.tanh(x)

    denoise = from_eps(network, schedule)

    def log_prior(x):
        return Gaussian(torch.zeros_like(x), torch.ones_like(x[:1, :1])).log_density(x)

    x = normal(seeded(2), 3, 2)
    wide = flow_log_density(schedule, denoise, x, log_prior, rtol=1e-4, atol=1e-4)
    assert {entry[0] for entry in seen} == {torch.float64}
    seen.clear()
    narrow = flow_log_density(schedule, denoise, x.float(), log_prior, rtol=1e-4, atol=1e-4)
    assert {entry[0] for entry in seen} == {torch.float32}
    assert narrow.end.dtype == torch.float32
    assert min(entry[2] for entry in seen) == 0
    assert max(entry[3] for entry in seen) <= 19
    torch.testing.assert_close(narrow.log_density, wide.log_density, rtol=0, atol=1e-3)
    assert math.isfinite(wide.log_density.sum().item())


def test_evaluations_of_the_network_are_counted():
    times = []

    def denoise(x_t, t):
        times.append(t)
        return torch.zeros_like(x_t)

    found = flow_log_density(VPLinear(), denoise, torch.ones(1, 1), lambda end: end[:, 0], s=0.5)
    assert found.evaluations == len(times) // 2 > 0  # the divergence asks once more


@pytest.mark.usefixtures("unchecked")
def test_illegal_arguments():
    """Times out of order or range, tolerances, probes of another shape, a network that breaks."""
    schedule, data, x = VPLinear(), mixture("isotropic"), torch.zeros(2, 2, dtype=torch.float64)
    for s, t in ((0.0, 1.0), (0.5, 0.5), (0.5, 0.2), (0.5, 1.5), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=r"^s, t: wanted 0 < s < t <= T = 1"):
            solve(data, schedule, x, s=s, t=t)
    for name in ("rtol", "atol"):
        for value in (0.0, -1.0, 2.0, math.nan):
            with pytest.raises(ValueError, match=f"^{name}: wanted"):
                solve(data, schedule, x, **{name: value})
    for probes in (torch.zeros(0, 2, 2), torch.zeros(1, 3, 2), torch.zeros(1, 2)):
        with pytest.raises(ValueError, match=r"^probes: wanted shape"):
            solve(data, schedule, x, probes=probes)

    def broken(x_t, t):
        return x_t / 0

    with pytest.raises(ValueError, match=r"^denoise: wanted finite values"):
        flow_log_density(schedule, broken, x, lambda end: end[:, 0])
    single = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.ones(1))
    with pytest.raises(ValueError, match="shape"):
        solve(single, schedule, torch.zeros(2, 3, dtype=torch.float64))
