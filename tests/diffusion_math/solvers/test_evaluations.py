"""What a step asks for and what it hands back: noise, predictions, the time; in every schedule."""

import math
from functools import partial

import pytest
import torch

from diffusion_math import variance
from diffusion_math.langevin import chain
from diffusion_math.noise import zeros
from diffusion_math.sample import inversion, trajectory
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, VPLinear
from diffusion_math.solvers.adams import lms, plms
from diffusion_math.solvers.exponential import (
    Level,
    multistep,
    noise_std,
    singlestep,
    stages,
    unipc,
)
from diffusion_math.solvers.one_step import ddpm
from diffusion_math.solvers.registry import SOLVERS
from diffusion_math.solvers.step import State
from diffusion_math.solvers.stochastic import ancestral, churn, corrected, dpmpp_sde, sde_heun
from tests.support.langevin_moves import MOVES
from tests.support.solver_step import MIXTURE, X, forbidden_noise, unit_noise
from tests.support.tensors import f64

T, S = f64(0.6)[0], f64(0.3)[0]
NOISY = [name for name, claimed in SOLVERS.items() if claimed.noisy]
UNIPC_3 = partial(unipc, order=3)
QUICK = [make for name, make in SOLVERS.items() if name != "adaptive"]


def parts(name, schedule, t, s):
    """The times between which normals are asked for."""
    if name == "dpmpp_sde":
        middle = schedule.time((schedule.log_snr(t) + schedule.log_snr(s)) / 2)
        return [(t, middle), (middle, s)]
    return [((t + s) / 2, s) if name == "langevin_corrected" else (t, s)]


@pytest.mark.parametrize("name", NOISY)
def test_normals_are_asked_for_like_x_between_the_ends(name):
    schedule, asked = VPLinear(), []

    def source(x, t, s):
        assert x.shape == X.shape and x.dtype == X.dtype
        asked.append((float(t), float(s)))
        return torch.zeros_like(x)

    SOLVERS[name](schedule)(MIXTURE.denoiser(schedule), State(X, T), T, S, source)
    wanted = [(float(t), float(s)) for t, s in parts(name, schedule, T, S)]
    assert asked == [pytest.approx(pair) for pair in wanted]


@pytest.mark.parametrize("name", NOISY)
def test_out_of_pure_noise_they_are_asked_for_at_most_once(name):
    schedule, asked, pure = RectifiedFlow(), [], f64(1.0)[0]

    def source(x, t, s):
        assert x.shape == X.shape
        asked.append((float(t), float(s)))
        return torch.zeros_like(x)

    end = SOLVERS[name](schedule)(MIXTURE.denoiser(schedule), State(X, pure), pure, S, source)
    quiet = name in ("edm_churn", "langevin_corrected")
    assert asked == ([] if quiet else [(1.0, float(S))])
    assert end.t is S


@pytest.mark.parametrize("make", [*SOLVERS.values(), partial(lms, order=2), UNIPC_3])
@pytest.mark.parametrize(("t", "s"), [(0.6, 0.3), (0.6, 0.0)])
def test_the_state_is_at_s(make, t, s):
    schedule, t, s = VPLinear(), f64(t)[0], f64(s)[0]
    end = make(schedule)(MIXTURE.denoiser(schedule), State(X, t), t, s, unit_noise)
    assert end.t is s


@pytest.mark.parametrize("name", SOLVERS)
def test_out_of_pure_noise_a_quiet_step_is_euler_s(name):
    """But for the two whose chart is finite there."""
    schedule, pure = RectifiedFlow(), f64(1.0)[0]
    if SOLVERS[name].noisy or name in ("flow_heun", "adaptive"):
        return
    end = SOLVERS[name](schedule)(MIXTURE.denoiser(schedule), State(X, pure), pure, S, zeros)
    wanted = 0.7 * MIXTURE.posterior_mean(schedule, X, pure) + 0.3 * X
    torch.testing.assert_close(end.x, wanted, rtol=1e-13, atol=1e-13)


def test_the_large_variance_is_the_forward_one():
    """What a unit of noise adds is the root of `elbo.large_variance`, more than `ddpm`'s."""
    schedule = VPLinear()
    denoise = MIXTURE.denoiser(schedule)
    step = SOLVERS["ddpm_large"](schedule)
    added = (
        step(denoise, State(X, T), T, S, unit_noise).x - step(denoise, State(X, T), T, S, zeros).x
    )
    root = variance.large_variance(schedule, T, S).sqrt()
    torch.testing.assert_close(added, root.expand_as(X), rtol=1e-12, atol=1e-12)


def test_up_the_grid_nothing_is_drawn():
    def step(denoise, state, t, s, noise):
        return State(state.x + noise(state.x, t, s), s)

    with pytest.raises(ValueError, match=r"^noise: wanted a noise source"):
        list(inversion(step, lambda x, t: x, X, f64(0.6, 0.3)))


def test_the_corrector_passes_its_predictor_s_asks_on():
    """Into the first part of the step in proportion; out of pure noise as they are."""
    asked = []

    def source(x, t, s):
        asked.append((float(t), float(s)))
        return torch.full_like(x, 0.5)

    schedule, (t, s) = VE(), f64(4.0, 1.0)  # halfway in log sigma: 2
    step = corrected(dpmpp_sde(schedule), schedule, rounds=2)
    step(MIXTURE.denoiser(schedule), State(X, t), t, s, source)
    wanted = [(4, 10 / 3), (10 / 3, 3), (3, 2), (2, 1)]
    assert asked == [pytest.approx(pair) for pair in wanted]
    asked.clear()
    schedule, pure = RectifiedFlow(), f64(1.0)[0]
    ends = [
        one(MIXTURE.denoiser(schedule), State(X, pure), pure, S, source).x
        for one in (corrected(ddpm(schedule), schedule), ddpm(schedule))
    ]
    assert torch.equal(*ends) and asked == [(1.0, float(S))] * 2


def test_a_level_of_one_is_a_level():
    """Noise is 0 into sigma = 0, not into sigma = 1: all but e^{-2h} of its variance is drawn."""
    here, there = (Level.at(VE(), f64(sigma)[0]) for sigma in (2.0, 1.0))
    assert noise_std("x0", here, there, 1.0) == pytest.approx(0.75**0.5, rel=1e-14)


def test_a_stage_at_t_min_itself_is_asked_for():
    schedule, asked = Discrete.scaled_linear(40), []
    most = float(schedule.log_snr(f64(1.0)[0])) / 2

    def denoise(x, t):
        asked.append(float(t))
        return MIXTURE.posterior_mean(schedule, x, t)

    for t in range(2, 40):
        here = Level.at(schedule, f64(t)[0])
        lam = here.lam + 2 * (most - here.lam)
        if here.lam + 1 / 2 * (lam - here.lam) != most:
            continue  # no tie, by rounding
        alpha, sigma = (math.sqrt(1 / (1 + math.exp(-sign * 2 * lam))) for sign in (1, -1))
        stages(schedule, 2, "x0", denoise, X, f64(t)[0], Level(alpha, sigma, lam))
        assert asked == [t, 1.0]
        return
    raise AssertionError("no tie among 38 steps")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_without_eta_nothing_is_drawn(order):
    schedule = VPLinear()
    denoise = MIXTURE.denoiser(schedule)
    for step in (ancestral(schedule, order, eta=0), multistep(schedule, order, eta=0)):
        assert step(denoise, State(X, T), T, S, forbidden_noise).x.isfinite().all()


@pytest.mark.parametrize(
    "make", [*QUICK, partial(lms, order=3), UNIPC_3, partial(multistep, order=4)]
)
def test_no_prediction_is_asked_for_twice(make):
    """At one time and one x, in five steps. (The adaptive solver begins each node's step anew.)"""
    schedule, asked = VPLinear(), []

    def denoise(x, t):
        assert not any(torch.equal(t, u) and torch.equal(x, y) for u, y in asked)
        asked.append((t, x))
        return MIXTURE.posterior_mean(schedule, x, t)

    grid = torch.linspace(0.9, 0.4, 6, dtype=torch.float64)
    list(trajectory(make(schedule), denoise, X, grid, unit_noise))


# The posterior mean depends on x / alpha and r = sigma / alpha alone, and so must a step.

BY_LEVELS = {
    "churn": partial(churn, low=2.5, share=0.3, inflation=1.1),
    "churn below": partial(churn, low=3.5),
    "ancestral": partial(ancestral, order=2, eta=0.6),
    "ancestral x0": partial(ancestral, order=3, kind="x0"),
    "dpmpp_sde": partial(dpmpp_sde, eta=0.6),
    "sde_heun": partial(sde_heun, eta=0.6),
    "corrected": lambda schedule: corrected(ddpm(schedule), schedule, rounds=2),
    "lms": lms,
    "plms": plms,
    "singlestep": partial(singlestep, order=3),
    "multistep eps": partial(multistep, order=2, kind="eps", eta=0.6),
    "multistep x0": partial(multistep, order=3, eta=0.6),
    "unipc": unipc,
}


@pytest.mark.parametrize("schedule", [VPLinear(), RectifiedFlow()], ids=["vp", "flow"])
@pytest.mark.parametrize("name", BY_LEVELS)
def test_a_walk_is_that_of_exploding_variance(name, schedule):
    """x / alpha at the same r, from the same normals, step for step."""
    levels = f64(3.0, 1.2, 0.7, 0.4)
    found = {}
    for where in (schedule, VE()):
        grid = where.time(-2 * levels.log())
        alpha = where(grid[0])[0]
        count = iter(range(99))

        def source(x, t, s, count=count):
            return torch.roll(X, next(count), 0)

        stages = trajectory(
            BY_LEVELS[name](where), MIXTURE.denoiser(where), alpha * X, grid, source
        )
        found[where] = torch.stack([state.x / where(state.t)[0] for state in stages])
    torch.testing.assert_close(*found.values(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"low": 0.0}, {"share": 0.5}, {"inflation": 1.0}])
def test_the_settings_of_churn_by_default(options):
    """At r_t < 1, where a lower bound of 1 would be seen, and below gamma's own bound."""
    schedule, (t, s) = VE(), f64(0.5, 0.4)
    step = churn(schedule, **options)
    got = step(MIXTURE.denoiser(schedule), State(X, t), t, s, unit_noise).x
    same = churn(schedule, 0.5, 0.0, float("inf"), 1.0)
    assert torch.equal(got, same(MIXTURE.denoiser(schedule), State(X, t), t, s, unit_noise).x)
    still = churn(schedule, 0)(MIXTURE.denoiser(schedule), State(X, t), t, s, zeros).x
    assert not torch.equal(got, still)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_that_draws_is_not_given_zeros(name):
    """Of all moves only the ascent asks for no noise."""
    stages = chain(MOVES[name](), torch.zeros(2, 1, dtype=torch.float64), 2)
    if name == "ascent":
        assert len(list(stages)) == 3
    else:
        with pytest.raises(ValueError, match=r"^noise: wanted a noise source"):
            list(stages)
