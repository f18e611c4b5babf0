"""Wrong versions of the reverse process and the bound: C08 to C20, E3, E4 and E5."""

from dataclasses import replace
from typing import Any

import torch

from diffusion_math import gaussian
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.elbo import Bound
from diffusion_math.elbo import bound as right_bound
from diffusion_math.elbo import lambda_t as right_lambda
from diffusion_math.elbo import step_term as right_step_term
from diffusion_math.gaussian import Gaussian
from diffusion_math.gaussian import kl as right_kl
from diffusion_math.gaussian import posterior as right_posterior
from tests import test_claims_bound as claims
from tests.claims.wrong import wrong
from tests.diffusion_math import test_elbo as elbo
from tests.diffusion_math import test_elbo_bins as bins
from tests.diffusion_math import test_elbo_identity as identity
from tests.diffusion_math import test_gaussian as forward
from tests.diffusion_math import test_gaussian_distances as distances
from tests.diffusion_math.densities import test_mixture_reverse as oracle
from tests.support import linear_chain

bayes = oracle.test_the_reverse_kernel_is_bayes_rule
reverse = GaussianMixture.reverse


@wrong("C08", bayes, "diffusion_math.densities.mixture:GaussianMixture.reverse")
def prior_weights(self: Any, schedule: Any, x: Any, t: Any, s: Any = 0) -> GaussianMixture:
    """The components keep the weights that they had before x_t was seen."""
    return replace(reverse(self, schedule, x, t, s), log_weights=self.log_weights)


@wrong("C08", bayes, "diffusion_math.densities.mixture:GaussianMixture.reverse")
def one_gaussian(self: Any, schedule: Any, x: Any, t: Any, s: Any = 0) -> GaussianMixture:
    """One Gaussian with the kernel's mean and mean variance: what a network's Gaussian can say."""
    mean, covariance = reverse(self, schedule, x, t, s).moments()
    each = covariance.diagonal().mean().reshape(1)
    return GaussianMixture(torch.zeros(1), mean.reshape(1, *x.shape), each)


quadrature = distances.test_kl_entropy_and_density_by_quadrature


@wrong("C10", quadrature, "kl")
def arguments_exchanged(q: Any, p: Any) -> Any:
    """KL(p, q) stands in the place of KL(q, p)."""
    return right_kl(p, q)


@wrong("C10", quadrature, "kl")
def without_logarithms(q: Any, p: Any) -> Any:
    """The difference of the logarithms of the variances is left out."""
    d = (q.variance - p.variance) / p.variance
    return right_kl(q, p) + torch.log1p(d).sum() / 2


@wrong("C10", quadrature, "kl")
def half_of_the_distance_forgotten(q: Any, p: Any) -> Any:
    """The squared distance of the means is not halved."""
    return right_kl(q, p) + (q.mean - p.mean).square().sum() / p.variance.sum() / 2


rule, ddpm_form = forward.test_posterior_is_bayes, forward.test_posterior_is_ddpms


@wrong("C11", rule, "posterior")
@wrong("C16", ddpm_form, "posterior")
def variance_of_the_step(schedule: Any, x_t: Any, x0: Any, t: Any, s: Any) -> Gaussian:
    """The variance is that of the forward step, beta_t, and not beta_hat."""
    q = right_posterior(schedule, x_t, x0, t, s)
    link = gaussian.transition(schedule, torch.ones_like(x_t), s, t)
    return replace(q, variance=link.variance.expand_as(q.variance))


@wrong("C11", rule, "posterior")
@wrong("C16", ddpm_form, "posterior")
def x0_weighs_too_little(schedule: Any, x_t: Any, x0: Any, t: Any, s: Any) -> Gaussian:
    """The coefficient of x_0 has alpha_t in the place of alpha_s."""
    q = right_posterior(schedule, x_t, x0, t, s)
    (alpha_s, _), (alpha_t, _) = schedule(s), schedule(t)
    of_x0 = q.mean - right_posterior(schedule, x_t, torch.zeros_like(x0), t, s).mean
    return replace(q, mean=q.mean + (alpha_t / alpha_s - 1) * of_x0)


@wrong("C16", ddpm_form, "posterior")
def printed_variances(schedule: Any, x_t: Any, x0: Any, t: Any, s: Any) -> Gaussian:
    """beta_hat has 1 - alpha_t in the place of 1 - abar_t, as printed (E4)."""
    q = right_posterior(schedule, x_t, x0, t, s)
    shape = q.variance * schedule(t)[1].square() / schedule.betas[int(t) - 1]
    return replace(q, variance=shape)


any_model = identity.test_c12_for_any_wrong_model
below = claims.test_c13_the_bound_is_below_the_log_likelihood
terms = claims.test_c14_the_terms_add_up_to_the_bound
BOUND = "tests.support.linear_chain:bound"


def with_terms(change: Any) -> Any:
    """`bound` with its terms changed."""

    def altered(*arguments: Any) -> Bound:
        found = right_bound(*arguments)
        return replace(found, **change(found))

    return altered


@wrong("C12", any_model, BOUND, with_terms)
@wrong("C13", below, BOUND, with_terms)
@wrong("C14", terms, BOUND, with_terms)
def without_the_prior(found: Bound) -> dict[str, Any]:
    """The prior term L_T is left out."""
    return {"prior": torch.zeros_like(found.prior)}


@wrong("C12", any_model, BOUND, with_terms)
@wrong("C14", terms, BOUND, with_terms)
def steps_averaged(found: Bound) -> dict[str, Any]:
    """The step terms are averaged and not summed."""
    return {"steps": found.steps / max(len(found.steps), 1)}


@wrong("C13", below, BOUND, with_terms)
def sign_of_the_reconstruction(found: Bound) -> dict[str, Any]:
    """L_0 is E log P_theta(x_0 given x_1), without its minus sign."""
    return {"reconstruction": -found.reconstruction}


nats = Bound.nats.fget


@wrong("C14", terms, "diffusion_math.elbo:Bound.nats", property)
def prior_counted_twice(self: Any) -> Any:
    """The sum has L_T twice."""
    return nats(self) + self.prior


@wrong("C14", terms, "diffusion_math.elbo:Bound.nats", property)
def first_step_left_out(self: Any) -> Any:
    """The sum begins at the second of the step terms."""
    return nats(self) - self.steps[:1].sum(0)


e3 = identity.test_e3_the_product_is_the_joint_and_not_the_marginal


@wrong("E3", e3, "tests.support.linear_chain:Chain.log_marginal")
def product_at_one_path(self: Any, x0: float) -> float:
    """The product at the path (x_0, 0, ..., 0) stands for P_theta(x_0), as printed."""
    mean, covariance = self.joint()
    path = 0 * mean
    path[0] = x0
    return float(linear_chain.log_normal(path, mean, covariance))


@wrong("E3", e3, BOUND, with_terms)
def bound_of_another_likelihood(found: Bound) -> dict[str, Any]:
    """The bound is off by a tenth of a nat, so that ELBO + KL is not log P_theta(x_0)."""
    return {"reconstruction": found.reconstruction + 0.1}


levels = bins.test_against_sixty_digits


@wrong("C15", levels, "quantized_log_probability")
def density_for_probability(p: Gaussian, x0: Any) -> Any:
    """The density at the level times the width of a bin stands for the bin's probability."""
    return p.log_density(x0) + torch.log(torch.tensor(2 / 255, dtype=torch.float64)) * x0[0].numel()


@wrong("C15", levels, "quantized_log_probability")
def bins_half_as_wide(p: Gaussian, x0: Any) -> Any:
    """Bins reach 1/510 to either side of a level and not 1/255."""
    edges = ((x0 + side / 510 - p.mean) / p.variance.sqrt() for side in (-1, 1))
    low, high = (torch.special.ndtr(edge) for edge in edges)
    return (high - low).clamp(min=1e-300).log().flatten(1).sum(1)


@wrong("C15", levels, "quantized_log_probability")
def difference_that_cancels(p: Gaussian, x0: Any) -> Any:
    """Phi at the two edges is subtracted as it is: far out nothing is left of the difference."""
    low, high = (
        torch.special.ndtr((x0 + side / 255 - p.mean) / p.variance.sqrt()) for side in (-1, 1)
    )
    high = torch.where(x0 > 1 - 1e-6, 1.0, high)
    low = torch.where(x0 < -1 + 1e-6, 0.0, low)
    return (high - low).log().flatten(1).sum(1).clamp(min=-1e30)


shared = elbo.test_c17_at_a_shared_variance_only_the_means_count
weighted = elbo.test_c18_the_step_term_is_a_weighted_error_in_eps


@wrong("C17", shared, "step_term")
@wrong("C18", weighted, "step_term")
def twice_the_term(*arguments: Any) -> Any:
    """KL without its factor 1/2."""
    return 2 * right_step_term(*arguments)


@wrong("C17", shared, "step_term")
def distance_not_squared(schedule: Any, denoise: Any, x0: Any, x_t: Any, *rest: Any) -> Any:
    """The distance of the means is not squared."""
    exact = right_step_term(schedule, lambda x, t: x0, x0, x_t, *rest)
    more = right_step_term(schedule, denoise, x0, x_t, *rest) - exact
    return exact + more.clamp(min=0).sqrt()


@wrong("C17", shared, "step_term")
def directions_exchanged(schedule: Any, denoise: Any, x0: Any, x_t: Any, *rest: Any) -> Any:
    """The model is judged at the data's prediction plus one: the means are a constant apart."""
    return right_step_term(schedule, lambda x, t: denoise(x, t) + 1, x0, x_t, *rest)


@wrong("C18", weighted, "lambda_t")
def beta_not_squared(schedule: Any, t: Any, variance: Any) -> Any:
    """lambda_t has beta_t in the place of beta_t^2."""
    return right_lambda(schedule, t, variance) / schedule.betas[int(t) - 1]


@wrong("C18", weighted, "lambda_t")
def alpha_forgotten(schedule: Any, t: Any, variance: Any) -> Any:
    """lambda_t lacks its factor 1 / (1 - beta_t)."""
    return right_lambda(schedule, t, variance) * (1 - schedule.betas[int(t) - 1])
