"""Wrong versions of the forward process (C02 to C07, E1, E2, E4) and of its test of generators."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from diffusion_math.gaussian import Gaussian, kl
from diffusion_math.gaussian import forward_step as right_step
from diffusion_math.gaussian import marginal as right_marginal
from diffusion_math.gaussian import transition as right_transition
from diffusion_math.schedule import Discrete
from experiments.families.generators import FAMILIES, Budget, Trained
from tests import test_claims_families as families
from tests import test_claims_learning as learning
from tests.claims.wrong import wrong
from tests.diffusion_math import test_gaussian as gaussian
from tests.diffusion_math import test_schedule_claims as schedules

EXACT = learning.test_c07_the_end_is_standard_normal_whatever_the_start
GENERATOR = families.test_c01_each_family_maps_noise_to_the_data


class Altered:
    """The families, each of whose trained maps is altered."""

    def __init__(self, alter: Callable[[Trained], Trained]) -> None:
        self.alter = alter

    def __getitem__(self, family: str) -> Callable[[Budget, Any], Trained]:
        return lambda budget, data: self.alter(FAMILIES[family](budget, data))


class Untrained(Altered):
    """The same after a single update."""

    def __getitem__(self, family: str) -> Callable[[Budget, Any], Trained]:
        train = FAMILIES[family]
        return lambda budget, data: self.alter(train(replace(budget, steps=1), data))


@wrong("C01", GENERATOR, "FAMILIES", Untrained, family="diffusion")
def never_trained(trained: Trained) -> Trained:
    """The map was never trained."""
    return trained


@wrong("C01", GENERATOR, "FAMILIES", Altered, family="VAE")
def noise_of_two_deviations(trained: Trained) -> Trained:
    """The map is fed noise of twice the standard deviation that it was trained for."""
    return replace(trained, sample=lambda z, generator: trained.sample(2 * z, generator))


@wrong("C01", GENERATOR, "FAMILIES", Altered, family="GAN")
def one_point(trained: Trained) -> Trained:
    """Every sample is the mean of all samples: the noise has no effect."""

    def sample(z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        found = trained.sample(z, generator)
        return found.mean(0).expand_as(found)

    return replace(trained, sample=sample)


step = gaussian.test_a_forward_step_is_the_transition_between_neighbours


@wrong("C02", step, "forward_step")
def deviation_for_variance(schedule: Discrete, x: Any, t: int) -> Gaussian:
    """The variance is sqrt(beta_t), the standard deviation, and not beta_t."""
    q = right_step(schedule, x, t)
    return replace(q, variance=q.variance.sqrt())


@wrong("C02", step, "forward_step")
def shrinks_by_alpha(schedule: Discrete, x: Any, t: int) -> Gaussian:
    """The mean is (1 - beta_t) x_{t-1}: the root is forgotten."""
    q = right_step(schedule, x, t)
    return replace(q, mean=(1 - schedule.betas[t - 1]) * x)


@wrong("C02", step, "forward_step")
def beta_of_the_step_before(schedule: Discrete, x: Any, t: int) -> Gaussian:
    """beta_{t-1} stands in the place of beta_t: an index off by one."""
    return right_step(schedule, x, max(t - 1, 1))


VP = gaussian.test_variance_is_preserved_where_the_name_says_so
TWO = gaussian.test_transitions_compose


@wrong("C03", VP, "transition")
@wrong("C04", TWO, "transition")
def plain_addition(schedule: Any, x: Any, s: Any, t: Any) -> Gaussian:
    """Noise is added and nothing is shrunk: the mean is x_s."""
    return replace(right_transition(schedule, x, s, t), mean=x)


@wrong("C03", VP, "transition")
@wrong("C04", TWO, "transition")
def from_clean_data(schedule: Any, x: Any, s: Any, t: Any) -> Gaussian:
    """q(x_t given x_0) stands in the place of q(x_t given x_s)."""
    return right_marginal(schedule, x, t)


@wrong("C04", TWO, "transition")
def variances_subtracted(schedule: Any, x: Any, s: Any, t: Any) -> Gaussian:
    """The variance is sigma_t^2 - sigma_s^2: what s has was not shrunk on the way to t."""
    (_, before), (_, after) = schedule(s), schedule(t)
    q = right_transition(schedule, x, s, t)
    return replace(q, variance=(after.square() - before.square()).expand_as(q.variance))


@wrong("C03", VP, "transition")
def a_tenth_more_noise(schedule: Any, x: Any, s: Any, t: Any) -> Gaussian:
    """The variance is a tenth too large."""
    q = right_transition(schedule, x, s, t)
    return replace(q, variance=1.1 * q.variance)


iterated = gaussian.test_a_thousand_forward_steps_are_the_marginal
printed = gaussian.test_the_printed_marginal_variance_is_rejected


@wrong("C05", iterated, "marginal")
@wrong("E4", printed, "marginal")
def deviation_of_the_marginal(schedule: Any, x0: Any, t: Any) -> Gaussian:
    """The variance is sigma_t, a standard deviation, and not its square."""
    q = right_marginal(schedule, x0, t)
    return replace(q, variance=q.variance.sqrt())


@wrong("C05", iterated, "marginal")
def abar_for_its_root(schedule: Any, x0: Any, t: Any) -> Gaussian:
    """The mean is abar_t x_0: the root is forgotten."""
    q = right_marginal(schedule, x0, t)
    return replace(q, mean=schedule(t)[0] * q.mean)


@wrong("C05", iterated, "marginal")
@wrong("E4", printed, "marginal")
def variance_of_the_last_step(schedule: Any, x0: Any, t: Any) -> Gaussian:
    """The variance is 1 - alpha_t = beta_t, that of the last step alone, as printed (E4)."""
    q = right_marginal(schedule, x0, t)
    beta = schedule.betas[torch.as_tensor(t) - 1]
    return replace(q, variance=beta.expand_as(q.variance))


class Changed:
    """A discrete schedule with other coefficients at t."""

    def __init__(self, betas: Any) -> None:
        self.true = Discrete(torch.as_tensor(betas, dtype=torch.float64))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)


half = schedules.test_half_a_thousand_times
diverging = schedules.test_signal_vanishes_where_the_betas_sum_to_infinity
summable = schedules.test_small_betas_leave_half_of_the_signal


@wrong("C06", half, "Discrete")
@wrong("C07", diverging, "Discrete")
@wrong("E1", summable, "Discrete", steps=100)
class RootForgotten(Changed):
    """alpha_t is abar_t, without its root."""

    def __call__(self, t: Any) -> Any:
        alpha, sigma = self.true(t)
        return alpha.square(), sigma


@wrong("C06", half, "Discrete")
@wrong("E2", half, "Discrete")
class PrintedNoise(Changed):
    """sigma_t is sqrt(1 - sqrt(abar_t)), as printed (E2)."""

    def __call__(self, t: Any) -> Any:
        alpha, _ = self.true(t)
        return alpha, (1 - alpha).sqrt()


@wrong("E2", half, "Discrete")
class Unit(Changed):
    """sigma_t is 1 throughout: noise of unit variance is added to a signal that keeps its own."""

    def __call__(self, t: Any) -> Any:
        alpha, _ = self.true(t)
        return alpha, torch.ones_like(alpha)


@wrong("C07", diverging, "Discrete")
@wrong("E1", summable, "Discrete", steps=100)
class Exponential(Changed):
    """abar_t is exp(-sum beta), the bound of the product in the product's place."""

    def __call__(self, t: Any) -> Any:
        abar = (-self.true.betas[: int(t)].sum()).exp()
        return abar.sqrt(), (1 - abar).sqrt()


@wrong("C07", diverging, "Discrete")
@wrong("E1", summable, "Discrete", steps=10)
class OneFactorLess(Changed):
    """The product ends at t - 1."""

    def __call__(self, t: Any) -> Any:
        return self.true(int(t) - 1)


def to_standard_normal(q: Gaussian) -> torch.Tensor:
    return kl(q, Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean)))


@wrong("C07", EXACT, "prior_term")
def root_forgotten_in_the_prior(schedule: Any, x0: Any) -> Any:
    """q(x_T given x_0) has the mean abar_T x_0, without its root."""
    q = right_marginal(schedule, x0, schedule.T)
    return to_standard_normal(replace(q, mean=schedule(schedule.T)[0] * q.mean))


@wrong("C07", EXACT, "prior_term")
def half_forgotten(schedule: Any, x0: Any) -> Any:
    """KL without its factor 1/2."""
    return 2 * to_standard_normal(right_marginal(schedule, x0, schedule.T))
