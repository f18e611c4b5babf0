"""Mistakes in grids, starts, guidance and networks."""

from types import SimpleNamespace
from typing import Any

import torch

from diffusion_math import grid, guidance
from diffusion_math.denoiser import from_eps, from_score
from diffusion_math.gaussian import Gaussian, marginal
from diffusion_math.schedule import Schedule
from tests.diffusion_math import test_denoiser, test_guidance
from tests.diffusion_math.mistakes import mistake, named
from tests.diffusion_math.mistakes.mistake import Mistake, existing, within


def last_node_twice(schedule: Schedule, steps: int) -> torch.Tensor:
    nodes = grid.karras(schedule, steps)
    return torch.cat([nodes[:-1], nodes[-2:-1]])


def halves_swapped(pair: Any, scale: float) -> Any:
    return guidance.cfg_batched(lambda x, t: pair(x, t)[::-1], scale)


def fed_t(network: Any, schedule: Schedule) -> Any:
    return from_eps(lambda x, time: network(x, time + 1), schedule)


def deviation_for_variance(network: Any, schedule: Schedule) -> Any:
    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha_t, sigma_t = schedule(t)
        return (x + sigma_t * network(x, t)) / alpha_t

    return denoise


def unit_noise(schedule: Schedule, x0: torch.Tensor, t: Any) -> Gaussian:
    sigma_t = schedule(t)[1].clamp(max=1)  # right wherever variance is preserved
    return Gaussian(schedule(t)[0] * x0, sigma_t.square())


STARTS = [
    Mistake(
        "pure noise at a time that is not T",
        "A leading grid starts below T, where x_t still holds a share of x_0, from N(0, I).",
        "Lin et al. (arXiv:2305.08891), section 3.3; huggingface/diffusers#2585",
        mistake.begins_at_pure_noise,
        grid.trailing,
        grid.leading,
    ),
    Mistake(
        "the last node twice",
        "Karras's noise levels end on their last one repeated: a step of no length.",
        "huggingface/diffusers#6477",
        mistake.falls_to_the_end,
        grid.karras,
        last_node_twice,
    ),
    named.of_the_catalogue(
        "an image noised without being scaled",
        "x0 is not scaled by alpha: x0 + sigma noise",
        "DDPM (arXiv:2006.11239), Eq. 4; of the same kind: huggingface/diffusers#3544",
        mistake.starts_with_the_law_of_x_t,
        marginal,
        named.marginal,
    ),
    named.of_the_catalogue(
        "an image noised to another level",
        "every coefficient is its right value of index t - 1",
        "Stability-AI/stablediffusion#96",
        mistake.starts_with_the_law_of_x_t,
        marginal,
        named.marginal,
    ),
    Mistake(
        "unit noise where variance explodes",
        "A walk under VE starts from N(0, I), not from N(0, sigma_max^2 I).",
        "huggingface/diffusers#891, #719: init_noise_sigma",
        mistake.starts_with_the_law_of_x_t,
        marginal,
        unit_noise,
    ),
    named.of_the_catalogue(
        "1 + w for w",
        "1 + w is in the place of w",
        "Classifier-free guidance (arXiv:2207.12598), Eq. 6",
        existing(
            test_guidance.test_guidance_is_one_line_in_eps_and_in_the_score,
            "cfg",
            measured=within,
            where=test_guidance.TIMES[0],
            w=3.0,
        ),
        guidance.cfg,
        named.guided,
    ),
    Mistake(
        "the halves of the batch swapped",
        "Prompt and negative prompt are joined in one order and taken apart in the other.",
        "Nerogar/OneTrainer#775, huggingface/diffusers#8947",
        existing(
            test_guidance.test_one_pass_or_two_give_the_same,
            "cfg_batched",
            where=test_guidance.TIMES[0],
            w=3.0,
        ),
        guidance.cfg_batched,
        halves_swapped,
    ),
    Mistake(
        "a network fed t",
        "A network trained on indices 0..T - 1 gets the time 1..T.",
        "the two counts of time, beside each other: huggingface/diffusers#5921",
        existing(
            test_denoiser.test_a_discrete_network_is_fed_t_minus_one,
            "denoiser",
            lambda candidate: SimpleNamespace(from_eps=candidate),
        ),
        from_eps,
        fed_t,
    ),
    Mistake(
        "sigma for sigma^2",
        "Tweedie's formula with sigma_t score in the place of sigma_t^2 score.",
        "asked in pals-ttic/sjc#6; right: EDM (arXiv:2206.00364), Eq. 3",
        existing(
            test_denoiser.test_tweedie_is_told_from_its_wrong_versions,
            "denoiser",
            lambda candidate: SimpleNamespace(from_score=candidate),
            name="right",
            formula=lambda x, score, alpha, sigma: (x + sigma**2 * score) / alpha,
        ),
        from_score,
        deviation_for_variance,
    ),
]
