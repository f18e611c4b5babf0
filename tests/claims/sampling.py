"""Wrong versions of training and sampling: C09, C19, C20 and E5."""

from typing import Any

import torch

from diffusion_math import gaussian
from diffusion_math.gaussian import posterior as right_posterior
from diffusion_math.loss import training_loss as right_loss
from diffusion_math.loss import uniform_times as right_times
from diffusion_math.sample import final as right_final
from diffusion_math.solvers.one_step import ddpm as right_ddpm
from diffusion_math.solvers.step import State
from experiments.digits.loss_weights import compare
from tests import test_claims_practice as practice
from tests.claims.wrong import wrong
from tests.diffusion_math import test_loss as loss
from tests.diffusion_math import test_loss_weights as weights
from tests.diffusion_math import test_sample as sample
from tests.diffusion_math.solvers import test_one_step as solver
from tests.support.mixtures import SCHEDULES


def stepping(end: Any) -> Any:
    """A solver whose step to s > 0 ends at `end(schedule, x, x0, t, s, z)`."""

    def make(schedule: Any) -> Any:
        def step(denoise: Any, state: State, t: Any, s: Any, noise: Any) -> State:
            if schedule(s)[1] == 0:
                return right_ddpm(schedule)(denoise, state, t, s, noise)
            x0 = denoise(state.x, t)
            return State(end(schedule, state.x, x0, t, s, noise(state.x, t, s)), s)

        return step

    return make


algorithm = solver.test_ddpm_is_algorithm_2
chain = sample.test_c20_the_chain_is_the_product_of_its_kernels


@wrong("C09", algorithm, "ddpm", stepping, t=20)
@wrong("C20", chain, "ddpm", stepping)
def a_tenth_more_variance(schedule: Any, x: Any, x0: Any, t: Any, s: Any, z: Any) -> Any:
    """The step's variance is a tenth too large."""
    q = right_posterior(schedule, x, x0, t, s)
    return q.mean + (1.1 * q.variance).sqrt() * z


@wrong("C09", algorithm, "ddpm", stepping, t=20)
@wrong("C20", chain, "ddpm", stepping)
def variance_for_deviation(schedule: Any, x: Any, x0: Any, t: Any, s: Any, z: Any) -> Any:
    """The noise is multiplied by the variance and not by its root."""
    q = right_posterior(schedule, x, x0, t, s)
    return q.mean + q.variance * z


@wrong("C09", algorithm, "ddpm", stepping, t=2)
def root_of_alpha_forgotten(schedule: Any, x: Any, x0: Any, t: Any, s: Any, z: Any) -> Any:
    """mu_theta is divided by 1 - beta_t and not by its root."""
    q = right_posterior(schedule, x, x0, t, s)
    return q.mean / (1 - schedule.betas[int(t) - 1]).sqrt() + q.variance.sqrt() * z


@wrong("C20", chain, "ddpm", stepping)
def mean_of_the_prediction(schedule: Any, x: Any, x0: Any, t: Any, s: Any, z: Any) -> Any:
    """x_s is drawn around alpha_s x0_hat: what x_t says beside the prediction is dropped."""
    q = right_posterior(schedule, x, x0, t, s)
    return schedule(s)[0] * x0 + q.variance.sqrt() * z


@wrong("C20", sample.test_c20_ancestral_sampling_draws_the_data, "final")
def without_noise(step: Any, denoise: Any, x: Any, grid: Any, source: Any) -> Any:
    """The steps add no noise."""
    return right_final(step, denoise, x, grid, lambda x, t, s: torch.zeros_like(x))


minimiser = loss.test_the_posterior_mean_is_the_minimiser
CASE = {"kind": "eps", "schedule": SCHEDULES[1]}


@wrong("C19", minimiser, "training_loss", **CASE)
def absolute_error(*arguments: Any) -> Any:
    """The absolute error stands for the squared one: the median is learned, not the mean."""
    return right_loss(*arguments).sqrt()


@wrong("C19", minimiser, "training_loss", **CASE)
def target_is_x_t(schedule: Any, network: Any, kind: Any, x0: Any, eps: Any, t: Any) -> Any:
    """The network is compared with x_t and not with eps."""
    x_t = gaussian.marginal(schedule, x0, t).sample(eps)
    return (network(x_t, t) - x_t).square()


@wrong("C19", minimiser, "training_loss", **CASE)
def target_is_x0(schedule: Any, network: Any, kind: Any, x0: Any, eps: Any, t: Any) -> Any:
    """A network that predicts eps is compared with x_0."""
    x_t = gaussian.marginal(schedule, x0, t).sample(eps)
    return (network(x_t, t) - x0).square()


@wrong("C19", practice.test_c19_weight_one_draws_better_than_lambda_t, "compare")
def weights_exchanged(*arguments: Any) -> Any:
    """The networks trained with lambda_t are taken for those trained with weight 1."""
    found = compare(*arguments)
    return {practice.SIMPLE: found[practice.BOUND], practice.BOUND: found[practice.SIMPLE]}


drawn_times = weights.test_discrete_times_are_uniform_on_1_to_T


@wrong("E5", drawn_times, "uniform_times")
def from_zero(schedule: Any, generator: Any, n: int) -> Any:
    """Times are 0 to T - 1: the network's own clock."""
    return right_times(schedule, generator, n) - 1


@wrong("E5", drawn_times, "uniform_times")
def on_the_unit_interval(schedule: Any, generator: Any, n: int) -> Any:
    """Times are uniform on (0, 1), as printed."""
    return torch.rand(n, generator=generator, dtype=torch.float64)


@wrong("E5", drawn_times, "uniform_times")
def late_times_oftener(schedule: Any, generator: Any, n: int) -> Any:
    """The larger of two draws: late times come oftener."""
    pairs = right_times(schedule, generator, 2 * n)
    return torch.maximum(*pairs.reshape(2, n))
