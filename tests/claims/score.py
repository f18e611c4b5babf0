"""Wrong versions of the score view: C21 to C26, E6, E7 and E8."""

from dataclasses import replace
from typing import Any

import torch

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.langevin import Particles
from diffusion_math.langevin import ascent as right_ascent
from diffusion_math.langevin import log_acceptance as right_acceptance
from diffusion_math.langevin import proposal as right_proposal
from diffusion_math.langevin_law import ula_distribution as right_law
from diffusion_math.langevin_law import ula_stationary as right_stationary
from diffusion_math.prediction import eps_from_score as right_eps
from diffusion_math.score_matching import denoising as right_denoising
from diffusion_math.score_matching import divergence
from diffusion_math.score_matching import implicit as right_implicit
from tests import test_claims_conditions as conditions
from tests import test_claims_learning as learning
from tests.claims.wrong import wrong
from tests.diffusion_math import test_langevin as langevin
from tests.diffusion_math import test_langevin_law as law
from tests.diffusion_math import test_langevin_limit as limit
from tests.diffusion_math import test_score_matching as matching
from tests.diffusion_math import test_score_matching_claims as claims
from tests.support.mixtures import SCHEDULES
from tests.support.scores import LINE

gradient = conditions.test_c21_the_score_is_the_gradient_of_the_log_density
SCORE = "diffusion_math.densities.mixture:GaussianMixture.score"
score = GaussianMixture.score


@wrong("C21", gradient, SCORE)
def sign_of_the_score(self: Any, schedule: Any, x: Any, t: Any) -> Any:
    """The score points away from the data."""
    return -score(self, schedule, x, t)


@wrong("C21", gradient, SCORE)
def score_of_the_noise_alone(self: Any, schedule: Any, x: Any, t: Any) -> Any:
    """The variance of the noise alone divides, without that of the data."""
    return -x / schedule(t)[1].square().clamp(min=1e-9)


@wrong("C21", gradient, SCORE)
def eps_for_score(self: Any, schedule: Any, x: Any, t: Any) -> Any:
    """sigma_t S, minus the predicted noise, stands for the score."""
    return schedule(t)[1] * score(self, schedule, x, t)


gather = langevin.test_c22_points_gather_at_the_modes_and_do_not_follow_the_distribution
short = langevin.test_e6_a_step_along_the_score_raises_the_likelihood_only_if_short


@wrong("C22", gather, "ascent")
@wrong("E6", short, "ascent")
def half_a_step(S: Any, delta: float) -> Any:
    """A move goes half of the way, delta / 2 along the score."""
    return right_ascent(S, delta / 2)


@wrong("C22", gather, "ascent")
@wrong("E6", short, "ascent")
def downhill(S: Any, delta: float) -> Any:
    """A move goes against the score."""
    return right_ascent(lambda x: -S(x), delta)


@wrong("C22", gather, "ascent")
def with_noise(S: Any, delta: float) -> Any:
    """A move has noise beside the score: the chain is Langevin's."""
    generator = torch.Generator().manual_seed(0)

    def move(here: Particles, noise: Any) -> Particles:
        z = torch.randn(here.x.shape, generator=generator, dtype=here.x.dtype)
        return Particles(right_proposal(here.x, S(here.x), delta).sample(z), here.moves + 1)

    return move


@wrong("E6", short, "ascent")
def always_uphill(S: Any, delta: float) -> Any:
    """A move that would lower the density is shortened, so that every delta raises it."""
    return right_ascent(S, min(delta, 1.0))


keeps = langevin.test_c23_mala_keeps_the_density_exactly
follows = limit.test_c23_ula_follows_any_distribution_as_delta_falls
gaussian_ula = law.test_e7_the_stationary_law_is_kept_and_reached


@wrong("C23", keeps, "log_acceptance", delta=0.3)
def proposals_not_corrected(here: Any, there: Any, delta: float) -> Any:
    """The ratio has the densities alone, without the proposals there and back."""
    return there[1] - here[1]


@wrong("C23", keeps, "log_acceptance", delta=0.3)
def ratio_upside_down(here: Any, there: Any, delta: float) -> Any:
    """The ratio of the proposals is upside down."""
    return 2 * (there[1] - here[1]) - right_acceptance(here, there, delta)


@wrong("C23", follows, "diffusion_math.langevin:proposal")
def noise_of_one_delta(x: Any, S: Any, delta: float) -> Gaussian:
    """The noise's variance is delta and not 2 delta."""
    return Gaussian(x + delta * S, torch.tensor(delta, dtype=torch.float64))


@wrong("C23", follows, "diffusion_math.langevin:proposal")
def half_of_the_score(x: Any, S: Any, delta: float) -> Gaussian:
    """The drift is delta S / 2 beside noise of variance 2 delta."""
    return Gaussian(x + delta * S / 2, torch.tensor(2 * delta, dtype=torch.float64))


@wrong("C23", gaussian_ula, "ula_distribution")
def variance_not_shrunk(target: Any, delta: float, start: Any, moves: int) -> Gaussian:
    """The start's variance is not shrunk by the moves."""
    q = right_law(target, delta, start, moves)
    return replace(q, variance=q.variance + 0.01 * start.variance)


stationary = law.test_e7_the_standard_normal


@wrong("E7", stationary, "ula_stationary")
def printed_limit(target: Any, delta: float) -> Gaussian:
    """The limit is q itself, as printed."""
    return target


@wrong("E7", stationary, "ula_stationary")
def excess_of_twice_the_step(target: Any, delta: float) -> Gaussian:
    """The variance is 1 / (1 - delta), of a step twice as long."""
    return right_stationary(target, 2 * delta)


equal = claims.test_explicit_and_implicit_differ_by_a_constant
cost = learning.test_c24_the_trace_costs_a_backward_pass_a_dimension


@wrong("C24", equal, "implicit", data=LINE)
def sign_of_the_trace(model: Any, x: Any) -> Any:
    """The trace is subtracted."""
    return right_implicit(model, x) - 2 * divergence(model, x)


@wrong("C24", equal, "implicit", data=LINE)
def square_not_halved(model: Any, x: Any) -> Any:
    """The square of the score is not halved."""
    return 2 * right_implicit(model, x) - divergence(model, x)


@wrong("C24", cost, "implicit", size=7)
def one_probe_for_the_trace(model: Any, x: Any, probes: Any = None) -> Any:
    """One random probe stands for the exact trace."""
    return right_implicit(model, x, torch.ones_like(x)[None])


constant = claims.test_denoising_and_explicit_differ_by_a_constant
truth = claims.test_the_printed_target_is_wrong_at_the_truth
same = matching.test_denoising_is_the_ddpm_loss
CASE = {"schedule": SCHEDULES[1], "t_is": "batch"}


def towards(target: Any) -> Any:
    """Denoising score matching with another target of eps and sigma."""

    def objective(model: Any, x: Any, eps: Any, sigma: Any) -> Any:
        level = torch.as_tensor(sigma, dtype=torch.float64)
        level = level.reshape(-1, *[1] * (x.ndim - 1)) if level.ndim else level
        return (model(x + level * eps) - target(eps, level)).square().flatten(1).sum(1)

    def flat(model: Any, x: Any, eps: Any, sigma: Any) -> Any:
        if x.ndim > 1:
            return objective(model, x, eps, sigma)
        return (model(x + sigma * eps) - target(eps, sigma)).square()

    return flat


@wrong("C25", constant, "denoising", towards, sigma=2.0)
@wrong("C26", same, "denoising", towards, **CASE)
@wrong("E8", truth, "denoising", towards, sigma=2.0)
def printed_target(eps: Any, sigma: Any) -> Any:
    """The target is eps / sigma^2: x - x_hat is taken for the noise, as printed (E8)."""
    return eps / sigma**2


@wrong("C25", constant, "denoising", towards, sigma=2.0)
@wrong("C26", same, "denoising", towards, **CASE)
@wrong("E8", truth, "denoising", towards, sigma=2.0)
def variance_for_the_deviation(eps: Any, sigma: Any) -> Any:
    """The target is -eps / sigma^2, divided by the variance."""
    return -eps / sigma**2


@wrong("C25", constant, "denoising", sigma=0.3)
def data_without_noise(model: Any, x: Any, eps: Any, sigma: float) -> Any:
    """The model is evaluated at the clean data."""
    return (model(x) + eps / sigma).square()


@wrong("C26", same, "denoising", **CASE)
def halved(*arguments: Any) -> Any:
    """The squared error is halved, as in Vincent's form."""
    return right_denoising(*arguments) / 2


@wrong("E8", same, "diffusion_math.prediction:eps_from_score", **CASE)
def sign_of_eps(schedule: Any, x_t: Any, S: Any, t: Any) -> Any:
    """eps_theta = sigma S_theta, without the minus sign."""
    return -right_eps(schedule, x_t, S, t)
