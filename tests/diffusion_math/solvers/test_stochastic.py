"""Solvers that add noise: k-diffusion's and EDM's formulas in VE, identities, exact laws."""

import math

import pytest
import torch

from diffusion_math import gaussian
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.noise import from_seeds, zeros
from diffusion_math.sample import final
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPLinear
from diffusion_math.solvers.exponential import multistep
from diffusion_math.solvers.one_step import ddim, ddpm, heun
from diffusion_math.solvers.step import State
from diffusion_math.solvers.stochastic import (
    ancestral,
    churn,
    corrected,
    down_time,
    dpmpp_sde,
    sde_heun,
)
from tests.support.counted_noise import law
from tests.support.solver_step import MIXTURE, X, forbidden_noise
from tests.support.tensors import f64, normal

pytestmark = pytest.mark.usefixtures("unchecked")  # long walks; shapes have tests of their own

SCHEDULE = VE()
T, S = f64(3.0)[0], f64(1.2)[0]
Z = torch.roll(X, 1, 1)


def draws(*given):
    """The k-th ask is answered by given[k]; asks beyond are an error."""
    left = list(given)
    return lambda x, t, s: left.pop(0).to(x)


def one(step, source, t=T, s=S, x=X, schedule=SCHEDULE):
    return step(MIXTURE.denoiser(schedule), State(x, t), t, s, source).x


def denoised(x, sigma):
    return MIXTURE.posterior_mean(SCHEDULE, x, f64(float(sigma))[0])


def ancestral_levels(eta):
    """k-diffusion's get_ancestral_step."""
    up = min(float(S), eta * math.sqrt(float(S**2 * (T**2 - S**2) / T**2)))
    return math.sqrt(float(S) ** 2 - up**2), up


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_euler_ancestral_is_ddim(eta):
    for schedule, t, s in ((SCHEDULE, T, S), (VPLinear(), f64(0.8)[0], f64(0.3)[0])):
        got = one(ancestral(schedule, 1, eta=eta), draws(Z), t, s, schedule=schedule)
        wanted = one(ddim(schedule, eta), draws(Z), t, s, schedule=schedule)
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [VPLinear(), RectifiedFlow(), Discrete.scaled_linear()])
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_down_time_is_where_the_flow_of_ddim_ends(eta, schedule):
    """A step of ddim(eta) is one without noise to that time, then q(x_s | x_down)."""
    t, s = (0.8 * float(schedule.T), 0.5 * float(schedule.T))
    down = down_time(schedule, t, s, eta)
    assert 0 < down < s or (eta == 0 and torch.isclose(down, torch.tensor(s).double()))
    x, x0 = normal(3, 2).double(), normal(3, 2, seed=1).double()
    z = from_seeds([0, 1, 2])(x, f64(t)[0], f64(s)[0])
    there = final(ddim(schedule), lambda *_: x0, x, torch.stack([f64(t)[0], down]))
    if eta > 0:
        there = gaussian.transition(schedule, there, down, s).sample(z)
    wanted = final(ddim(schedule, eta), lambda *_: x0, x, f64(t, s), from_seeds([0, 1, 2]))
    torch.testing.assert_close(there, wanted, rtol=0, atol=1e-13)  # float64's rounding
    assert down_time(schedule, t, 0.0, eta) == 0


def test_down_time_checks_eta():
    with pytest.raises(ValueError, match=r"eta: wanted .*1\.5"):
        down_time(VPLinear(), 0.5, 0.2, 1.5)


def test_at_eta_one_it_is_ddpm():
    got, wanted = one(ancestral(SCHEDULE, 1), draws(Z)), one(ddpm(SCHEDULE), draws(Z))
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_dpm2_ancestral(eta):
    """Midpoint in log sigma between t and sigma_down; then sigma_up z."""
    down, up = ancestral_levels(eta)
    middle = math.sqrt(float(T) * down)
    d = (X - denoised(X, T)) / T
    x_2 = X + d * (middle - T)
    d_2 = (x_2 - denoised(x_2, middle)) / middle
    wanted = X + d_2 * (down - T) + up * Z
    got = one(ancestral(SCHEDULE, 2, eta=eta), draws(Z))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_dpmpp_2s_ancestral():
    down, up = ancestral_levels(1.0)
    h = math.log(float(T) / down)
    middle = float(T) * math.exp(-h / 2)
    x_2 = middle / T * X - math.expm1(-h / 2) * denoised(X, T)
    wanted = down / T * X - math.expm1(-h) * denoised(x_2, middle) + up * Z
    got = one(ancestral(SCHEDULE, 2, "x0"), draws(Z))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_one_stage_where_an_inner_level_has_no_time():
    """Into t = 1 of a table the last inner level of three lies below it."""
    schedule = Discrete.linear()
    t, s = f64(2)[0], f64(1)[0]
    got = one(ancestral(schedule, 3), draws(Z), t, s, schedule=schedule)
    wanted = one(ddim(schedule, 1.0), draws(Z), t, s, schedule=schedule)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("share", [0.3, 5.0])
def test_churn_is_edm_s(share):
    """Algorithm 2 at gamma = min((r_t / r_s)^share - 1, sqrt(2) - 1)."""
    gamma = math.exp(min(share * math.log(float(T / S)), math.log(2) / 2)) - 1
    hat = float(T) * (1 + gamma)
    x_hat = X + 1.1 * math.sqrt(hat**2 - float(T) ** 2) * Z
    d = (x_hat - denoised(x_hat, hat)) / hat
    x = x_hat + (S - hat) * d
    d_2 = (x - denoised(x, S)) / S
    wanted = x_hat + (S - hat) * (d + d_2) / 2
    got = one(churn(SCHEDULE, share, inflation=1.1), draws(Z))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "t", "s"),
    [
        ({"low": 3.5}, 3.0, 1.2),
        ({"high": 2.9}, 3.0, 1.2),
        ({"share": 0.0}, 3.0, 1.2),
        ({}, 80.0, 60.0),
        ({}, 3.0, 0.0),
    ],
)
def test_where_nothing_is_churned_it_is_heun_s(options, t, s):
    t, s = f64(t)[0], f64(s)[0]
    got = one(churn(SCHEDULE, **options), forbidden_noise, t, s)
    assert torch.equal(got, one(heun(SCHEDULE), zeros, t, s))


def test_the_interval_of_churn_has_its_ends():
    for options in ({"low": 3.0}, {"high": 3.0}):
        assert not torch.equal(
            one(churn(SCHEDULE, **options), draws(Z)), one(heun(SCHEDULE), zeros)
        )


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_dpmpp_sde_is_the_midpoint_on_one_path(eta):
    h = math.log(float(T / S))
    middle = math.sqrt(float(T * S))
    z_1, z_2 = Z, X.flip(1)

    def half(x, D, start, stop, z):
        length = h / 2
        kept = stop / start * math.exp(-eta * length)
        fresh = stop * math.sqrt(-math.expm1(-2 * eta * length))
        return kept * x - math.expm1(-(1 + eta) * length) * D + fresh * z

    x_m = half(X, denoised(X, T), float(T), middle, z_1)
    D = denoised(x_m, middle)
    wanted = half(half(X, D, float(T), middle, z_1), D, middle, float(S), z_2)
    got = one(dpmpp_sde(SCHEDULE, eta), draws(z_1, z_2))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_sde_heun_is_the_line_between_both_ends(eta):
    h, a = math.log(float(T / S)), 1 + eta
    kept = float(S / T) * math.exp(-eta * h)
    fresh = float(S) * math.sqrt(-math.expm1(-2 * eta * h))
    D = denoised(X, T)
    x = kept * X - math.expm1(-a * h) * D + fresh * Z
    late = 1 + math.expm1(-a * h) / (a * h)  # the integral of a e^{-a(h - v)} v / h
    weights = -math.expm1(-a * h) - late, late
    wanted = kept * X + weights[0] * D + weights[1] * denoised(x, S) + fresh * Z
    got = one(sde_heun(SCHEDULE, eta), draws(Z))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_corrector_is_langevin_s(rounds):
    d = min(0.5 * math.log(float(T / S)), 1) / rounds
    noises = [Z, X.flip(1), X.flip(0), -Z]
    x = one(ddpm(SCHEDULE), draws(Z))
    for z in noises[1 : 1 + rounds]:
        eps = (x - denoised(x, S)) / S
        x = x - d * S * eps + math.sqrt(2 * d) * S * z
    got = one(corrected(ddpm(SCHEDULE), SCHEDULE, rounds=rounds), draws(*noises))
    torch.testing.assert_close(got, x, rtol=1e-11, atol=1e-11)


def test_the_corrector_s_step_is_at_most_one():
    got = one(corrected(ddim(SCHEDULE), SCHEDULE, share=100), draws(Z))
    x = one(ddim(SCHEDULE), zeros)
    wanted = denoised(x, S) + math.sqrt(2) * S * Z
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_its_normals_come_from_parts_of_the_step():
    asked = []

    def source(x, t, s):
        asked.append((float(t), float(s)))
        return torch.zeros_like(x)

    one(corrected(ddpm(SCHEDULE), SCHEDULE, rounds=2), source)
    assert asked == [pytest.approx(pair) for pair in ((3.0, 2.4), (2.4, 1.8), (1.8, 1.2))]


@pytest.mark.parametrize(("t", "s"), [(3.0, 0.0)])
def test_clean_data_is_not_corrected(t, s):
    t, s = f64(t)[0], f64(s)[0]
    got = one(corrected(ddim(SCHEDULE), SCHEDULE), forbidden_noise, t, s)
    assert torch.equal(got, one(ddim(SCHEDULE), zeros, t, s))


@pytest.mark.parametrize(
    "make", [dpmpp_sde, sde_heun, lambda s: ancestral(s, 2), lambda s: multistep(s, 2, eta=1.0)]
)
def test_out_of_pure_noise_fresh_noise_is_all(make):
    """h is infinite: x_s = alpha_s x0 + sigma_s z."""
    schedule = RectifiedFlow()
    t, s = f64(1.0)[0], f64(0.7)[0]
    got = one(make(schedule), draws(Z), t, s, schedule=schedule)
    wanted = 0.3 * MIXTURE.posterior_mean(schedule, X, t) + 0.7 * Z
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


def test_the_corrector_waits_out_of_pure_noise():
    schedule = RectifiedFlow()
    t, s = f64(1.0)[0], f64(0.7)[0]
    got = one(corrected(ddim(schedule), schedule), forbidden_noise, t, s, schedule=schedule)
    assert torch.equal(got, one(ddim(schedule), zeros, t, s, schedule=schedule))


def test_a_fixed_langevin_step_keeps_its_bias():
    """(stochastic.10): with d fixed the variance stays wrong by about d / 2 of sigma^2; with d a
    share of the step it falls with the steps."""
    data = GaussianMixture(f64(0.0), f64([0.0]), f64(1.0))
    schedule = VPLinear()

    def off(n, share):
        levels = torch.linspace(float(schedule.log_snr(1.0)), 2.0, n + 1, dtype=torch.float64)
        grid = schedule.time(levels)
        step = corrected(ddim(schedule), schedule, share(n))
        _, covariance = law(step, data.denoiser(schedule), f64(0.0), f64([1.0]), grid)
        return abs(float(covariance) - 1)

    def fixed(n):
        return 0.2 * n / ((2.0 - float(schedule.log_snr(1.0))) / 2)  # d = 0.2 at every n

    assert off(128, fixed) > 0.02
    shrinking = [off(n, lambda n: 0.5) for n in (32, 64, 128)]
    assert shrinking[0] / shrinking[1] > 1.7 and shrinking[1] / shrinking[2] > 1.7


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ancestral(SCHEDULE, 4), "order"),
        (lambda: ancestral(SCHEDULE, 2, eta=1.1), "eta"),
        (lambda: churn(SCHEDULE, -0.1), "share"),
        (lambda: churn(SCHEDULE, math.inf), "share"),
        (lambda: churn(SCHEDULE, low=2, high=2), "low, high"),
        (lambda: churn(SCHEDULE, inflation=0.4), "inflation"),
        (lambda: churn(SCHEDULE, inflation=2.1), "inflation"),
        (lambda: dpmpp_sde(SCHEDULE, 0), "eta"),
        (lambda: dpmpp_sde(SCHEDULE, 1.1), "eta"),
        (lambda: sde_heun(SCHEDULE, 0), "eta"),
        (lambda: sde_heun(SCHEDULE, 1.1), "eta"),
        (lambda: corrected(ddim(SCHEDULE), SCHEDULE, 0), "share"),
        (lambda: corrected(ddim(SCHEDULE), SCHEDULE, rounds=0), "rounds"),
    ],
)
def test_illegal_arguments(make, name):
    with pytest.raises(ValueError, match=f"{name}: wanted"):
        make()
