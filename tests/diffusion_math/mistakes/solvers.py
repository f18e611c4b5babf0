"""Mistakes in multistep, single-step and adaptive solvers, inpainting, and the forward process."""

import math
from typing import Any

import torch

from diffusion_math import inpainting, sample
from diffusion_math._batching import combined
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.noise import zeros
from diffusion_math.prediction import eps_from_x0
from diffusion_math.schedule import VE, VPLinear
from diffusion_math.solvers import exponential
from diffusion_math.solvers.adams import PLMS, lms, plms
from diffusion_math.solvers.adaptive import bogacki_shampine
from diffusion_math.solvers.exponential import Level, dpmpp_2m, exponential_step
from diffusion_math.solvers.one_step import ddpm, heun
from diffusion_math.solvers.step import State
from tests.diffusion_math import test_inpainting
from tests.diffusion_math.mistakes.mistake import Mistake, edited, existing
from tests.diffusion_math.mistakes.steps import one_step
from tests.diffusion_math.solvers import (
    test_adams,
    test_exponential_steps,
    test_one_step,
    test_unipc,
)
from tests.support.tensors import f64

PAIR = GaussianMixture(f64(0.5, 0.5).log(), f64([1.0], [-1.0]), f64(0.1, 0.3))


def leaves_each_row_alone(make: Any) -> None:
    """A sample is the same beside another and by itself, to the rounding of a matrix product."""
    schedule, (t, s) = VPLinear(), f64(0.9, 0.02)
    step, x = make(schedule), f64([0.3], [-2.0])
    ends = [step(PAIR.denoiser(schedule), State(rows, t), t, s, zeros).x for rows in (x, x[:1])]
    assert (ends[0][0] - ends[1][0]).abs().max() < 1e-9


def leads_back_with_order_2(inversion: Any) -> None:
    """Up the flow and down again by Heun: twice the steps leave a fourth of the error."""
    schedule, x = VPLinear(), f64([0.3], [-2.0])
    step, denoise = heun(schedule), PAIR.denoiser(schedule)
    errors = []
    for n in (8, 16):
        grid = schedule.time(torch.linspace(-4, 3, n + 1, dtype=torch.float64))
        *_, up = inversion(step, denoise, x, grid)
        back = sample.final(step, denoise, up.x, grid)
        errors.append(float((back - x).norm()))
    assert errors[0] / errors[1] > 3


def half_a_second_difference(schedule: Any, order: int) -> Any:
    """Three predictions: m' and m'' / 2 by divided differences, under phi_2 and phi_3."""
    right = exponential.multistep(schedule, order)

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        end = right(denoise, state, t, s, noise)
        if len(end.history) < 3:
            return end
        lams = [schedule.log_snr(time) / 2 for time, _ in end.history]
        first, second, third = (value for _, value in end.history)
        h = schedule.log_snr(s) / 2 - lams[2]
        slopes = (second - first) / (lams[1] - lams[0]), (third - second) / (lams[2] - lams[1])
        half = h**2 * (slopes[1] - slopes[0]) / (lams[2] - lams[0])
        phi_3 = (torch.expm1(-h) / h + 1) / h - 1 / 2
        return State(end.x + schedule(s)[0] * phi_3 * half, s, end.history)

    return step


def second_call_remembered(schedule: Any) -> Any:
    """PLMS whose history has the start's second prediction, at s, and then that of the state."""
    right = plms(schedule)

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        asked: list[tuple[Any, Any]] = []

        def listening(x: Any, time: Any) -> Any:
            x0 = denoise(x, time)
            asked.append((time, eps_from_x0(schedule, x, x0, time)))
            return x0

        end = right(listening, state, t, s, noise)
        return State(end.x, s, (*end.history, *asked[1:])[-4:])

    return step


def equal_steps(schedule: Any, order: int) -> Any:
    """LMS with Adams and Bashforth's numbers; its start is the right one."""
    right = lms(schedule, order)

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        end = right(denoise, state, t, s, noise)
        shares = PLMS[len(end.history) - 1] if end.history else ()
        if len(shares) < order - 1:
            return end
        mean = sum(b * eps for b, (_, eps) in zip(shares, end.history[::-1], strict=True))
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
        y = state.x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * mean
        return State(alpha_s * y, s, end.history)

    return step


def zeros_before(schedule: Any) -> Any:
    """A buffer of predictions that begins as zeros and counts as one."""
    right = dpmpp_2m(schedule)

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        before = t + (t - s)
        history = state.history or ((before, torch.zeros_like(state.x)),)
        return right(denoise, State(state.x, t, history), t, s, noise)

    return step


def corrected_over(ratio: Any) -> Any:
    """UniPC, its correction multiplied by `ratio(h of the step before, h of the next)`."""

    def make(schedule: Any, order: int) -> Any:
        predictor = exponential.multistep(schedule, order)

        def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
            x0, x = denoise(state.x, t), state.x
            if state.history:
                good = combined(*exponential._corrected(schedule, order, state, t, x0))
                before = schedule.log_snr(t) - schedule.log_snr(state.history[-1][0])
                x = x + ratio(before, schedule.log_snr(s) - schedule.log_snr(t)) * (good - x)
            known = State(x, t, state.history)
            return predictor(lambda y, u: x0 if u == t else denoise(y, u), known, t, s, zeros)

        return step

    return make


def arithmetic_midpoint(schedule: Any, order: int, kind: Any) -> Any:
    """DPM2 with its middle at the mean of both sigmas."""

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        here, there = Level.at(schedule, t), Level.at(schedule, s)
        time = schedule.time(-2 * math.log((math.exp(-here.lam) + math.exp(-there.lam)) / 2))
        eps = eps_from_x0(schedule, state.x, denoise(state.x, t), t)
        x = exponential_step(kind, state.x, here, Level.at(schedule, time), [(here.lam, eps)])
        middle = eps_from_x0(schedule, x, denoise(x, time), time)
        return State(exponential_step(kind, state.x, here, there, [(here.lam, middle)]), s)

    return step


def one_size_for_all(schedule: Any) -> Any:
    """The adaptive solver with one error for the batch: all rows are one event."""

    def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
        shape = state.x.shape

        def flat(x: Any, time: Any) -> Any:
            return denoise(x.reshape(shape), time.expand(shape[0])).reshape(1, -1)

        end = bogacki_shampine(schedule)(flat, State(state.x.reshape(1, -1), t), t, s, noise)
        return State(end.x.reshape(shape), s)

    return step


def a_step_behind(step: Any, denoise: Any, x: Any, grid: Any) -> Any:
    """Up the grid, each step made with the coefficients of the one before it."""
    behind = torch.cat([grid[1:], grid[-1:] ** 2 / grid[-2]])
    for state, t in zip(sample.inversion(step, denoise, x, behind), grid.flip(0), strict=True):
        yield State(state.x, t, state.history)


SOLVERS = [
    Mistake(
        "half a second difference",
        "The divided difference m'' / 2 goes with 2 phi_3; with phi_3 the order falls to 2.",
        "DPM-Solver++'s single-step code has the 2 (LuChengTHU/dpm-solver#43), its multistep code "
        "and k-diffusion's sample_dpmpp_3m_sde have not",
        existing(test_exponential_steps.test_dpmpp_3m, "multistep", schedule=VPLinear()),
        exponential.multistep,
        half_a_second_difference,
    ),
    Mistake(
        "the start's second call remembered",
        "PLMS asks twice for its first step; the second answer enters the history as a node.",
        "the repeated time is asked about in huggingface/diffusers#9090, #1106",
        existing(test_adams.test_plms_is_stable_diffusion_s, "plms"),
        plms,
        second_call_remembered,
    ),
    Mistake(
        "LMS with the numbers of equal steps",
        "(23, -16, 5) / 12 on nodes of sigma whose distances differ.",
        "right: k-diffusion, sample_lms, by quadrature; Hairer, Norsett & Wanner 1993, III.5",
        existing(test_adams.test_lms_integrates_the_lagrange_polynomials, "lms", order=3),
        lms,
        equal_steps,
    ),
    Mistake(
        "a history that begins with zeros",
        "The first step extrapolates from a prediction of 0 that was never made.",
        "DPM-Solver++ (arXiv:2211.01095), Algorithm 2, whose first step is of first order",
        one_step(test_one_step.test_dpmpp_2m_starts_and_ends_with_order_one, "dpmpp_2m"),
        dpmpp_2m,
        zeros_before,
    ),
    Mistake(
        "the corrector over the next step",
        "UniPC's correction of x_t with the h of the step to come, not of the one that led to t.",
        "UniPC (arXiv:2302.04867), Algorithm 1; its corrector's formula is asked about in "
        "wl-zhao/UniPC#10",
        existing(test_unipc.test_unipc_is_the_paper_s_system, "unipc", order=2, schedule=VE(10.0)),
        exponential.unipc,
        corrected_over(lambda before, after: after / before),
    ),
    Mistake(
        "the middle of both sigmas",
        "DPM2 asks halfway in sigma, not in log sigma: their geometric mean.",
        "DPM-Solver (arXiv:2206.00927), Algorithm 1: lambda's midpoint",
        existing(
            test_exponential_steps.test_single_steps_are_the_papers,
            "singlestep",
            order=2,
            kind="eps",
            schedule=VE(10.0),
        ),
        exponential.singlestep,
        arithmetic_midpoint,
    ),
    Mistake(
        "one step size for the batch",
        "The adaptive solver takes one error of all rows, so that a sample depends on the others.",
        "AUTOMATIC1111/stable-diffusion-webui#5210, of DPM adaptive",
        leaves_each_row_alone,
        bogacki_shampine,
        one_size_for_all,
    ),
    Mistake(
        "an inversion one step behind",
        "Up the grid, t - 1 for t + 1: each step has the coefficients of the one before it.",
        "huggingface/diffusers#10695",
        leads_back_with_order_2,
        sample.inversion,
        a_step_behind,
    ),
    Mistake(
        "known values at the level of before",
        "After a step from t to s, the known entries are joined in with the noise of t.",
        "RePaint (arXiv:2201.09865), Eq. 8a as printed; huggingface/diffusers#1581",
        existing(
            test_inpainting.test_replacement_is_the_step_and_then_joined, "replacement", make=ddpm
        ),
        inpainting.replacement,
        edited(
            inpainting.replacement, "joined(schedule, after.x, s,", "joined(schedule, after.x, t,"
        ),
    ),
    Mistake(
        "known values with the variance for the deviation",
        "sigma_t^2 z for sigma_t z in the known entries.",
        "RePaint (arXiv:2201.09865), Algorithm 1 as printed; huggingface/diffusers#10644",
        existing(test_inpainting.test_joined_is_the_marginal_in_the_mask, "joined"),
        inpainting.joined,
        edited(inpainting.joined, ".sample(z)", ".sample(schedule(t)[1] * z)"),
    ),
    Mistake(
        "a first particle that is always kept",
        "Systematic resampling with points in order: the first row gets the first particle.",
        "Douc, Cappe and Moulines (arXiv:cs/0507025), who state the marginal that it must have",
        existing(test_inpainting.test_systematic_resampling_counts, "_systematic"),
        inpainting._systematic,
        edited(
            inpainting._systematic,
            "((places + n * uniform[:, None]) % n) / n",
            "(places + uniform[:, None]) / n",
        ),
    ),
]
