"""Mistakes in the steps of solvers."""

from typing import Any

import torch

from diffusion_math import prediction, variance
from diffusion_math.gaussian import posterior
from diffusion_math.schedule import Discrete, Schedule
from diffusion_math.solvers import exponential
from diffusion_math.solvers import one_step as solver
from diffusion_math.solvers.step import State
from tests.diffusion_math.mistakes import mistake
from tests.diffusion_math.mistakes.mistake import Check, Mistake, existing, within
from tests.diffusion_math.solvers import test_one_step

TABLE = Discrete.scaled_linear(40)


def stepwise(wrong: Any) -> Any:
    """A solver of one step `wrong(schedule, denoise, state, t, s, noise) -> x_s`."""

    def make(schedule: Schedule, eta: float = 0.0) -> Any:
        def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
            return State(wrong(schedule, denoise, state, t, s, noise), s)

        return step

    return make


@stepwise
def guessed(schedule, denoise, state, t, s, noise):
    guess = (t - int(schedule.T) // 13).clamp(min=0)
    return solver.ddpm(schedule)(denoise, state, t, guess, noise).x


@stepwise
def noisy_to_the_last(schedule, denoise, state, t, s, noise):
    q = posterior(schedule, state.x, denoise(state.x, t), t, s)
    floor = schedule.betas[0] if s == 0 else q.variance
    return q.mean + floor.sqrt() * noise(state.x, t, s)


@stepwise
def neighbours_variance(schedule, denoise, state, t, s, noise):
    x0 = denoise(state.x, t)
    variance = posterior(schedule, state.x, x0, t, t - 1).variance
    mean = posterior(schedule, state.x, x0, t, s).mean
    return mean + variance.sqrt() * noise(state.x, t, s)


@stepwise
def variance_for_deviation(schedule, denoise, state, t, s, noise):
    q = posterior(schedule, state.x, denoise(state.x, t), t, s)
    return q.mean + q.variance * noise(state.x, t, s)


@stepwise
def eta_of_the_current_time(schedule, denoise, state, t, s, noise):
    (alpha_s, sigma_s), (_, sigma_t) = schedule(s), schedule(t)
    x0 = denoise(state.x, t)
    eps = prediction.eps_from_x0(schedule, state.x, x0, t)
    kept = (sigma_s**2 - sigma_t**2).clamp(min=0).sqrt()
    return alpha_s * x0 + kept * eps + sigma_t * noise(state.x, t, s)


@stepwise
def never_clean(schedule, denoise, state, t, s, noise):
    return solver.ddim(schedule)(denoise, state, t, s.clamp(min=1), noise).x


@stepwise
def one_entry_early(schedule, denoise, state, t, s, noise):
    alpha_s, sigma_s = schedule(s)
    x0 = denoise(state.x, t)
    return alpha_s * x0 + sigma_s * prediction.eps_from_x0(schedule, state.x, x0, t - 1)


@stepwise
def prediction_for_noise(schedule, denoise, state, t, s, noise):
    alpha_s, sigma_s = schedule(s)
    x0 = denoise(state.x, t)
    return alpha_s * x0 + sigma_s * x0


def second_order(factor: Any, step_of: Any = lambda h: h) -> Any:
    """DPM-Solver++(2M) with another factor of x0 - x0_before, or another h in the exponential."""

    @stepwise
    def wrong(schedule, denoise, state, t, s, noise):
        x0 = D = denoise(state.x, t)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        for before, x0_before in state.history[-1:]:
            D = x0 + factor(h, (schedule.log_snr(t) - schedule.log_snr(before)) / 2) * (
                x0 - x0_before
            )
        (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        return sigma_s / sigma_t * state.x - alpha_s * torch.expm1(-step_of(h)) * D

    return wrong


def right_factor(h, h_before):
    return h / (2 * h_before)


def remembering(schedule: Schedule) -> Any:
    """Its history outlives the walk."""
    inner, kept = exponential.dpmpp_2m(schedule), []

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        end = inner(denoise, State(state.x, t, tuple(kept)), t, s, noise)
        kept[:] = end.history
        return end

    return step


def last_step(name: str) -> Check:
    test = test_one_step.test_the_last_step_returns_the_prediction_without_noise
    return existing(test, "SOLVERS", lambda make: {name: make}, name=name, schedule=TABLE)


def one_step(test: Any, replaced: str, eta: float = 0.0) -> Check:
    return existing(test, replaced, schedule=TABLE, t=0.5, s=0.2, eta=eta)


ALGORITHM_2M = one_step(test_one_step.test_dpmpp_2m_is_algorithm_2, "dpmpp_2m")
EQUATION_12 = one_step(test_one_step.test_ddim_is_equation_12, "ddim")

STEPS = [
    Mistake(
        "the previous time guessed from the current one",
        "s = t - T // steps, where trailing and linspace grids have other gaps.",
        "huggingface/diffusers#9261, #11347",
        mistake.keeps_the_marginals_of_a_skip,
        solver.ddpm,
        guessed,
    ),
    Mistake(
        "noise in the last step",
        "sqrt(beta_1) z is added on the way to x_0, where DDPM's z is 0.",
        "DDPM (arXiv:2006.11239), Algorithm 2, line 3; TeaPearce/Conditional_Diffusion_MNIST#10",
        last_step("ddpm"),
        solver.ddpm,
        noisy_to_the_last,
    ),
    Mistake(
        "the posterior variance of a neighbour in a skip",
        "beta_hat of t -> t - 1 in a step from t to an s far below it.",
        "huggingface/diffusers#2076",
        mistake.keeps_the_marginals_of_a_skip,
        solver.ddpm,
        neighbours_variance,
    ),
    Mistake(
        "the table's beta in a skip",
        "betas[t] as the variance of x_t given x_s, which is 1 - abar_t / abar_s.",
        "huggingface/diffusers#3006",
        mistake.is_the_variance_of_a_skip,
        variance.large_variance,
        lambda schedule, t, s: schedule.betas[t - 1],
    ),
    Mistake(
        "variance for deviation",
        "mu + beta_hat z in the place of mu + sqrt(beta_hat) z: the root is forgotten.",
        "DDPM (arXiv:2006.11239), Algorithm 2, line 4",
        existing(test_one_step.test_ddpm_is_algorithm_2, "ddpm", measured=within, t=20),
        solver.ddpm,
        variance_for_deviation,
    ),
    Mistake(
        "eta's deviation of the current time",
        "c = eta sigma_t, more than sigma_s: what is under the next root is clamped to 0.",
        "jsboige/CoursIA#16158; right: DDIM (arXiv:2010.02502), Eq. 16",
        one_step(test_one_step.test_ddim_with_eta_one_is_ddpm, "ddim"),
        solver.ddim,
        eta_of_the_current_time,
    ),
    Mistake(
        "ending a step short of clean data",
        "The last step goes to the table's first entry, so that its noise stays in the picture.",
        "huggingface/diffusers#5689",
        last_step("ddim"),
        solver.ddim,
        never_clean,
    ),
    Mistake(
        "the table read one entry early",
        "alphas_cumprod_prev where abar_t belongs.",
        "lucidrains/denoising-diffusion-pytorch#81",
        EQUATION_12,
        solver.ddim,
        one_entry_early,
    ),
    Mistake(
        "x0 taken for eps",
        "A network that predicts x_0 is not turned into eps before the step uses it as eps.",
        "huggingface/diffusers#2094",
        EQUATION_12,
        solver.ddim,
        prediction_for_noise,
    ),
    Mistake(
        "second order into sigma = 0",
        "The last step extrapolates over an infinite h, which gives NaN and a black picture.",
        "huggingface/diffusers#9007",
        one_step(test_one_step.test_dpmpp_2m_starts_and_ends_with_order_one, "dpmpp_2m"),
        exponential.dpmpp_2m,
        second_order(right_factor),
    ),
    Mistake(
        "log-SNR for lambda",
        "exp(-h) of a difference in log(alpha^2 / sigma^2), twice DPM-Solver's lambda.",
        "DPM-Solver (arXiv:2206.00927), section 3.1, beside VDM (arXiv:2107.00630), Eq. 3",
        ALGORITHM_2M,
        exponential.dpmpp_2m,
        second_order(right_factor, lambda h: 2 * h),
    ),
    Mistake(
        "the sign of h",
        "exp(h) - 1 for exp(-h) - 1, as if lambda fell towards the data.",
        "DPM-Solver++ (arXiv:2211.01095), Eq. 8",
        ALGORITHM_2M,
        exponential.dpmpp_2m,
        second_order(right_factor, lambda h: -h),
    ),
    Mistake(
        "a history of equal steps",
        "Adams and Bashforth's 3/2 and -1/2 on a grid whose steps in lambda differ.",
        "DPM-Solver++ (arXiv:2211.01095), Algorithm 2: r = h_before / h",
        ALGORITHM_2M,
        exponential.dpmpp_2m,
        second_order(lambda h, h_before: 0.5),
    ),
    Mistake(
        "the ratio of steps upside down",
        "h_before / (2 h): of the same order in a fitted slope, another step.",
        "DPM-Solver++ (arXiv:2211.01095), Algorithm 2: D has 1 / (2 r), r = h_before / h",
        existing(test_one_step.test_dpmpp_2m_does_not_invert_its_ratio, "dpmpp_2m"),
        exponential.dpmpp_2m,
        second_order(lambda h, h_before: h_before / (2 * h)),
    ),
    Mistake(
        "a history left over from the last sample",
        "Predictions kept in the scheduler are read in the next sample's first step.",
        "huggingface/diffusers#6631, #8711",
        mistake.walks_alike_twice,
        exponential.dpmpp_2m,
        remembering,
    ),
]
