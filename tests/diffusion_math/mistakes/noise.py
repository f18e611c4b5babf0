"""Mistakes in solvers that draw noise, and in its variance."""

import math
from types import SimpleNamespace
from typing import Any

import torch

from diffusion_math import variance
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.noise import zeros
from diffusion_math.schedule import RectifiedFlow, VPLinear
from diffusion_math.solvers import exponential, stochastic
from diffusion_math.solvers.exponential import Level, exponential_step
from diffusion_math.solvers.one_step import heun
from diffusion_math.solvers.step import State
from diffusion_math.variance import learned_range
from tests.diffusion_math import test_variance
from tests.diffusion_math.mistakes import named
from tests.diffusion_math.mistakes.mistake import Mistake, existing
from tests.diffusion_math.solvers import test_exponential_steps, test_stochastic
from tests.support.counted_noise import law
from tests.support.solver_step import marginal_error
from tests.support.tensors import f64


def takes_the_law_with_order_2(make: Any) -> None:
    """On N(0.7, 0.5), exactly, by unit vectors: twice the steps leave a fourth of the error."""
    data, schedule = GaussianMixture(f64(0.0), f64([0.7]), f64(0.5)), VPLinear()
    errors = []
    for n in (8, 16):
        grid = schedule.time(torch.linspace(-4, 3, n + 1, dtype=torch.float64))
        start, end = (data.marginal(schedule, t).moments() for t in (grid[0], grid[-1]))
        _, covariance = law(make(schedule), data.denoiser(schedule), *start, grid)
        errors.append(float((covariance - end[1]).abs()))
    assert errors[0] / errors[1] > 3


def keeps_the_marginals_of_a_line(make: Any) -> None:
    """With x_0 known, a step on rectified flow takes q(x_t | x_0) to q(x_s | x_0); to rounding."""
    schedule = RectifiedFlow()
    for t, s in ((0.9, 0.6), (0.5, 0.1)):
        assert marginal_error(make(schedule, 1), schedule, f64(t)[0], f64(s)[0]) < 1e-12


def with_noise(deviation: Any) -> Any:
    """The ancestral step with another deviation than sigma_up's."""

    def make(schedule: Any, order: int, kind: Any = "eps", eta: float = 1.0) -> Any:
        right = stochastic.ancestral(schedule, order, kind, eta)

        def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
            x = right(denoise, state, t, s, zeros).x
            return State(x + deviation(schedule, t, s) * noise(state.x, t, s), s)

        return step

    return make


def as_if_alpha_were_one(schedule: Any, order: int) -> Any:
    """sigma_down and sigma_up from sigma as it is, where alpha falls beside it."""

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        sigma_t, sigma_s = schedule(t)[1], schedule(s)[1]
        up = sigma_s * (1 - (sigma_s / sigma_t) ** 2).sqrt()
        down = (sigma_s**2 - up**2).sqrt()
        x0 = denoise(state.x, t)
        x = state.x + (down - sigma_t) * (state.x - x0) / sigma_t
        return State(x + up * noise(state.x, t, s), s)

    return step


def churned(deviation: Any = None, told: Any = None, limit: Any = min) -> Any:
    """EDM's Algorithm 2 in VE with another deviation, level for the network, or bound of gamma."""

    def make(schedule: Any, share: float, inflation: float) -> Any:
        def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
            hat = t * limit(float(t / s) ** share, math.sqrt(2))
            added = (hat**2 - t**2).sqrt() if deviation is None else deviation(t, hat)
            level = hat if told is None else told(t, hat)
            churned = State(state.x + inflation * added * noise(state.x, t, s), hat)
            return heun(schedule)(
                lambda x, u: denoise(x, level if u == hat else u), churned, hat, s, zeros
            )

        return step

    return make


def too_little_noise(schedule: Any, order: int, kind: Any = "x0", eta: float = 0.0) -> Any:
    """sqrt(1 - e^{-eta h}): the exponent of a deviation under the root of a variance."""
    right = exponential.multistep(schedule, order, kind, eta)

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        wrong = there.sigma * math.sqrt(-math.expm1(-eta * (there.lam - here.lam)))
        less = wrong / exponential.noise_std(kind, here, there, eta)
        return right(denoise, state, t, s, lambda x, t, s: less * noise(x, t, s))

    return step


def new_noise_for_the_whole(schedule: Any) -> Any:
    """DPM-Solver++ (SDE) whose half step draws one normal and the whole step another."""

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        middle = schedule.time(here.lam + there.lam)
        half, early = Level.at(schedule, middle), [(here.lam, denoise(state.x, t))]
        x = exponential_step("x0", state.x, here, half, early, 1.0, noise(state.x, t, middle))
        late = [(half.lam, denoise(x, middle))]
        return State(
            exponential_step("x0", state.x, here, there, late, 1.0, noise(state.x, t, s)), s
        )

    return step


def between_the_variances(entry: str) -> Any:
    """A learned variance between the bounds, by the catalogue's mean of them."""
    mix = named.MEANS[entry]

    def make(schedule: Any, share: Any) -> Any:
        given = [lambda x, t, f=f: torch.full_like(x, f) for f in (0.0, 1.0)]
        ends = [learned_range(schedule, one) for one in given]
        return lambda x, t, s: mix(share(x, t), *(end(x, t, s) for end in ends))

    return make


NOISES = [
    Mistake(
        "sigma_s for sigma_up",
        "The ancestral step goes down to sigma_down and then adds all of sigma_s.",
        "right: k-diffusion, get_ancestral_step; DDIM (arXiv:2010.02502), Eq. 16",
        existing(test_stochastic.test_dpm2_ancestral, "ancestral", eta=1.0),
        stochastic.ancestral,
        with_noise(lambda schedule, t, s: schedule(s)[1]),
    ),
    Mistake(
        "ancestral sampling as if alpha were 1",
        "sigma_up and sigma_down of the exploding variance on a line where alpha = 1 - sigma.",
        "lllyasviel/stable-diffusion-webui-forge#2915, leejet/stable-diffusion.cpp#1363",
        keeps_the_marginals_of_a_line,
        stochastic.ancestral,
        as_if_alpha_were_one,
    ),
    Mistake(
        "churn by the difference of levels",
        "(r^ - r) z in the place of sqrt(r^^2 - r^2) z: deviations do not add, variances do.",
        "EDM (arXiv:2206.00364), Algorithm 2, line 6",
        existing(test_stochastic.test_churn_is_edm_s, "churn", share=0.3),
        stochastic.churn,
        churned(deviation=lambda t, hat: hat - t),
    ),
    Mistake(
        "the network is not told of the churn",
        "x^ goes in with the level t that it had before noise was added.",
        "huggingface/diffusers#8549",
        existing(test_stochastic.test_churn_is_edm_s, "churn", share=0.3),
        stochastic.churn,
        churned(told=lambda t, hat: t),
    ),
    Mistake(
        "gamma's bound as a floor",
        "max(gamma, sqrt(2) - 1) for min: every step churns as much as none may.",
        "Koishi-Star/Euler-Smea-Dyn-Sampler#11, Comfy-Org/ComfyUI#13820",
        existing(test_stochastic.test_churn_is_edm_s, "churn", share=0.3),
        stochastic.churn,
        churned(limit=max),
    ),
    Mistake(
        "the exponent of a deviation under the root",
        "sqrt(1 - e^{-eta h}) z in the multistep SDE solver, whose variance is 1 - e^{-2 eta h}.",
        "the two forms side by side: huggingface/diffusers#14356; right: k-diffusion, "
        "sample_dpmpp_2m_sde",
        existing(
            test_exponential_steps.test_k_diffusion_s_sde_solvers,
            "multistep",
            order=2,
            eta=1,
            schedule=VPLinear(),
        ),
        exponential.multistep,
        too_little_noise,
    ),
    Mistake(
        "two paths in one step",
        "The whole step's noise is drawn anew and not that of its halves: weak order 1.",
        "why k-diffusion has a Brownian tree: crowsonkb/k-diffusion#25",
        takes_the_law_with_order_2,
        stochastic.dpmpp_sde,
        new_noise_for_the_whole,
    ),
    named.of_the_catalogue(
        "the mean of two variances",
        "the mean of beta and beta~ is arithmetic, not geometric",
        "Nichol & Dhariwal (arXiv:2102.09672), Eq. 15",
        existing(
            test_variance.test_the_learned_range_is_geometric,
            "variance",
            lambda candidate: SimpleNamespace(**{**vars(variance), "learned_range": candidate}),
            share=0.5,
        ),
        learned_range,
        between_the_variances,
    ),
]
