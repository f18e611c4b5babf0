"""Mistakes in the forward process, losses, the bound and Langevin chains."""

import math
from functools import partial
from typing import Any

import torch

from diffusion_math import elbo, langevin, loss, score_matching
from diffusion_math.gaussian import Gaussian, marginal
from diffusion_math.langevin import Particles
from diffusion_math.schedule import Discrete, Schedule, VPLinear
from tests.diffusion_math import (
    test_elbo_bins,
    test_gaussian,
    test_langevin,
    test_langevin_law,
    test_loss_weights,
    test_score_matching_claims,
)
from tests.diffusion_math.mistakes import mistake, named
from tests.diffusion_math.mistakes.mistake import Check, Mistake, existing, within


def index_as_time(schedule: Discrete, generator: torch.Generator, batch: int) -> torch.Tensor:
    return torch.randint(0, len(schedule.betas), (batch,), generator=generator).double()


def regressed_on(target: Any) -> Any:
    """Denoising score matching with another target than -eps / sigma."""

    def denoising(model: Any, x: torch.Tensor, eps: torch.Tensor, sigma: float) -> torch.Tensor:
        return (model(x + sigma * eps) - target(eps, sigma)).square()

    return denoising


def abar_squared(schedule: Schedule, t: Any) -> torch.Tensor:
    alpha_t, sigma_t = schedule(t)
    return alpha_t.pow(4) / sigma_t.square()


def closed_at_the_edges(p: Gaussian, x0: torch.Tensor) -> torch.Tensor:
    low, high = ((x0 + side / 255 - p.mean) / p.variance.sqrt() for side in (-1, 1))
    return (torch.special.ndtr(high) - torch.special.ndtr(low)).log().flatten(1).sum(1)


def ula_with(scale: Any) -> Any:
    """x + delta S(x) + scale(delta) z."""

    def ula(score: Any, delta: float) -> Any:
        def move(here: Particles, noise: Any) -> Particles:
            clock = [torch.tensor(-float(here.moves + k)).double() for k in (0, 1)]
            x = here.x + delta * score(here.x) + scale(delta) * noise(here.x, *clock)
            return Particles(x, here.moves + 1)

        return move

    return ula


def uncorrected(here: Any, there: Any, delta: float) -> torch.Tensor:
    return there[1] - here[1]


def uniform_probes(generator: torch.Generator, x: torch.Tensor, count: int) -> torch.Tensor:
    return 2 * torch.rand((count, *x.shape), generator=generator, dtype=x.dtype) - 1


def law_after_three_moves() -> Check:
    return existing(
        test_langevin_law.test_e7_the_law_after_k_moves,
        "ula",
        c=(0.8, 1.2),
        delta=0.3,
        moves=3,
        std=1.0,
    )


def weights_in_words(replaced: str) -> Check:
    test = test_loss_weights.test_the_weights_by_their_definitions
    return existing(test, replaced, schedule=VPLinear())


DENOISING = existing(
    test_score_matching_claims.test_denoising_and_explicit_differ_by_a_constant,
    "denoising",
    measured=within,
    sigma=0.3,
)

TRAINING = [
    named.of_the_catalogue(
        "alpha_t where abar_t belongs",
        "the coefficient of noise is sqrt(beta)",
        "the lecture (erratum E4); asked of code in yang-song/score_sde_pytorch#73",
        existing(
            test_gaussian.test_the_printed_marginal_variance_is_rejected,
            "marginal",
            measured=within,
        ),
        marginal,
        named.marginal,
    ),
    named.of_the_catalogue(
        "a forgotten root",
        "the coefficient of noise is sigma^2, the variance",
        "ermongroup/CSDI#9",
        existing(
            test_gaussian.test_a_thousand_forward_steps_are_the_marginal,
            "marginal",
            measured=within,
        ),
        marginal,
        named.marginal,
    ),
    Mistake(
        "t uniform on 0..T - 1",
        "A table's index drawn as the time: clean data is trained on, t = T is not (E5).",
        "a reading of the lecture's C19; right: DDPM (arXiv:2006.11239), Algorithm 1",
        mistake.draws_every_time_of_the_table,
        loss.uniform_times,
        index_as_time,
    ),
    named.of_the_catalogue(
        "the sign of eps",
        "the score is eps / sigma_t, of the other sign",
        "the lecture (erratum E8); right: Vincent (2011), Neural Computation 23(7)",
        DENOISING,
        score_matching.denoising,
        lambda entry: regressed_on(named.score(entry)),
    ),
    named.of_the_catalogue(
        "eps over sigma^2",
        "the score is -eps / sigma_t^2",
        "asked and answered in yang-song/score_sde_pytorch#26",
        DENOISING,
        score_matching.denoising,
        lambda entry: regressed_on(named.score(entry)),
    ),
    named.of_the_catalogue(
        "gamma on the wrong side",
        "max is in the place of min: max(SNR, 5)",
        "Hang et al. (arXiv:2303.09556), section 3.4",
        weights_in_words("min_snr"),
        loss.min_snr,
        partial(named.snr_weight, "x0"),
    ),
    named.of_the_catalogue(
        "gamma against SNR + 1",
        "1 is added to the SNR in the numerator too: min(SNR + 1, 5) / (SNR + 1)",
        "huggingface/diffusers#5654, mended in #6307",
        weights_in_words("min_snr"),
        loss.min_snr,
        partial(named.snr_weight, "v"),
    ),
    Mistake(
        "SNR out of a squared abar",
        "abar^2 / (1 - abar), where abar is alpha_t's square already.",
        "kohya-ss/sd-scripts#308, a comment's code",
        weights_in_words("snr"),
        loss.snr,
        abar_squared,
    ),
    Mistake(
        "closed bins at the edges",
        "L_0 with bins of one width for all 256 levels: the tails of the Gaussian are lost.",
        "right: DDPM (arXiv:2006.11239), Eq. 13, where the outer bins are open",
        existing(
            test_elbo_bins.test_all_levels_sum_to_one,
            "quantized_log_probability",
            mean=0.9,
            std=0.3,
        ),
        elbo.quantized_log_probability,
        closed_at_the_edges,
    ),
    Mistake(
        "sqrt(delta) for sqrt(2 delta)",
        "Langevin noise of half the variance beside a drift of delta S: half the temperature.",
        "Roberts and Tweedie (1996), whose drift is delta S / 2 with noise sqrt(delta)",
        law_after_three_moves(),
        langevin.ula,
        ula_with(math.sqrt),
    ),
    Mistake(
        "Langevin noise without a root",
        "x + step (S / 2 + z), whose noise has the variance step^2; theirs is twice our delta.",
        "google-research/ibc#6",
        law_after_three_moves(),
        langevin.ula,
        ula_with(lambda delta: 2 * delta),
    ),
    Mistake(
        "Metropolis without the proposal",
        "min(1, q(y) / q(x)) for a move that drifts: its two directions are not equally likely.",
        "Hastings (1970), Biometrika 57(1); Roberts and Tweedie (1996), Bernoulli 2(4)",
        existing(
            test_langevin.test_c23_mala_keeps_the_density_exactly,
            "log_acceptance",
            measured=within,
            delta=0.3,
        ),
        langevin.log_acceptance,
        uncorrected,
    ),
    Mistake(
        "probes without unit variance",
        "Hutchinson's trace with v uniform on [-1, 1]: a third of the trace.",
        "right: Hutchinson (1989), E[v v^T] = I; FFJORD (arXiv:1810.01367), section 3.1",
        mistake.estimates_a_trace,
        score_matching.rademacher,
        uniform_probes,
    ),
]
