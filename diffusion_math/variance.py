"""The variance of an ancestral step, for `solver.ddpm`: fixed, learned between two, or optimal.

Between "small", the variance of q(x_s | x_t, x_0) (true of one point), and "large", that of
q(x_t | x_s) (true of N(m, I) where alpha^2 + sigma^2 = 1), lie those of all data between.
Derivation: (elbo.9), (elbo.10), (elbo.11), (variance.1), (variance.2).
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from diffusion_math import elbo
from diffusion_math._batching import wide
from diffusion_math.checks import all_between
from diffusion_math.schedule import Schedule, shape_like

StepVariance: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(x_t, t, s) -> v`, of noise like x_t: `()`, or a shape that broadcasts to it, in any dtype."""


def fixed(schedule: Schedule, variance: elbo.Variance = elbo.large_variance) -> StepVariance:
    """One of `elbo`'s: `large_variance`, `small_variance`, `optimal_variance(c)`, ...

    Derivation: (elbo.9), (elbo.10), (elbo.11). Source: DDPM (arXiv:2006.11239), section 3.2.
    """
    return lambda x_t, t, s: shape_like(variance(schedule, t, s), wide(x_t))


def learned_range(schedule: Schedule, share: Callable[[Tensor, Tensor], Tensor]) -> StepVariance:
    """v = exp(f log large + (1 - f) log small), the share f = share(x_t, t) by a network.

    Args:
        share: f in [0, 1] like x_t; (v + 1) / 2 of a network whose output v lies in [-1, 1].

    Raises:
        ValueError: a share outside [0, 1], at the step.

    Derivation: (variance.1).
    Source: Nichol & Dhariwal (arXiv:2102.09672), Eq. 15.
    """

    def variance(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        f = wide(share(x_t, t))
        all_between("share", f, 0.0, 1.0)
        large, small = (
            shape_like(v(schedule, t, s), f) for v in (elbo.large_variance, elbo.small_variance)
        )
        found: Tensor = large**f * small ** (1 - f)
        return found

    return variance


def analytic(schedule: Schedule, gamma: Callable[[Tensor], Tensor]) -> StepVariance:
    """The isotropic variance that is optimal for the data, from the mean square of eps.

        v = small + (alpha_s sigma_{t|s}^2 / sigma_t^2)^2 (sigma_t / alpha_t)^2 (1 - gamma_t)

    with gamma_t = E norm(eps_hat(x_t))^2 / D over q(x_t), so that (sigma_t / alpha_t)^2 (1 -
    gamma_t) is the mean of Var[x_0 | x_t] over x_t and coordinates. With it the step's covariance
    is right on average, where the posterior's alone is too small. Needs alpha_t > 0.

    Args:
        gamma: t -> gamma_t in [0, 1], `()`: an average over draws of x_t, or exact.

    Raises:
        ValueError: a gamma outside [0, 1], at the step.

    Derivation: (variance.2).
    Source: Analytic-DPM (arXiv:2201.06503), theorem 1 and eq. 10.
    """

    def variance(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        g = gamma(t)
        all_between("gamma", g, 0.0, 1.0)
        (alpha_t, sigma_t), (alpha_s, _) = schedule(t), schedule(s)
        gain = alpha_s * elbo.large_variance(schedule, t, s) / (sigma_t * alpha_t)
        return shape_like(elbo.small_variance(schedule, t, s) + gain.square() * (1 - g), wide(x_t))

    return variance
