"""The variance of an ancestral step of `ddpm`: fixed, learned, or optimal for the data.

"small" is the variance of q(x_s | x_t, x_0), exact for data of one point. "large" is the variance
of q(x_t | x_s), exact for data N(m, I) where alpha^2 + sigma^2 = 1. Other data lie between them.
Derivation: (elbo.9), (elbo.10), (elbo.11), (variance.1), (variance.2).
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math._batching import wide
from diffusion_math._kept import kept
from diffusion_math.checks import Number, all_between, checked, require
from diffusion_math.gaussian import Gaussian
from diffusion_math.schedule import Schedule, Time, shape_like

Variance: TypeAlias = Callable[[Schedule, Time, Time], Tensor]
"""`(schedule, t, s) -> v`, the variance of the model's step from t to s: () or (batch,)."""

StepVariance: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(x_t, t, s) -> v`, of noise like x_t: `()`, or a shape that broadcasts to it, in any dtype."""


@checked
@kept
def large_variance(schedule: Schedule, t: Time, s: Time) -> Float64[Tensor, "*shape"]:
    """v = sigma_{t|s}^2, that of q(x_t | x_s): beta_t on neighbours. Derivation: (elbo.11).

    Exact for data N(m, I) where alpha^2 + sigma^2 = 1. Source: DDPM (arXiv:2006.11239) section 3.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule = dm.Discrete.linear()
    >>> dm.variance.large_variance(schedule, 1000, 999), schedule.betas[-1]
    (tensor(0.0200, dtype=torch.float64), tensor(0.0200, dtype=torch.float64))
    """
    return _link(schedule, t, s).variance


@checked
def small_variance(schedule: Schedule, t: Time, s: Time) -> Float64[Tensor, "*shape"]:
    """v = sigma_s^2 sigma_{t|s}^2 / sigma_t^2, that of q(x_s | x_t, x_0): beta_hat on neighbours.

    Exact for data of one point; 0 at s = 0. Derivation: (elbo.10). Source: DDPM (arXiv:2006.11239)
    eq. 7.

    >>> import torch
    >>> import diffusion_math as dm
    >>> t = torch.tensor([1.0, 2.0, 1000.0])
    >>> dm.variance.small_variance(dm.Discrete.linear(), t, t - 1)
    tensor([0.0000e+00, 5.4532e-05, 2.0000e-02], dtype=torch.float64)
    """
    return optimal_variance(0)(schedule, t, s)


@checked
def optimal_variance(data_variance: Number) -> Variance:
    """v = Var(x_s | x_t), the true reverse variance of data N(m, c I).

        v = sigma_{t|s}^2 (alpha_s^2 c + sigma_s^2) / (alpha_t^2 c + sigma_t^2)

    It grows with c: from `small_variance` at c = 0 to, where alpha^2 + sigma^2 = 1,
    `large_variance` at c = 1. Raises ValueError unless 0 <= c is finite. Derivation: (elbo.9).

    >>> import torch
    >>> import diffusion_math as dm
    >>> v = dm.variance.optimal_variance(data_variance=0.25)
    >>> v(dm.RectifiedFlow(), 0.5, 0.25)
    tensor(0.1444, dtype=torch.float64)
    """
    c = data_variance
    require(0 <= c < math.inf, "data_variance", "a finite number of at least 0", c)

    def marginal_variance(schedule: Schedule, t: Time) -> Tensor:
        alpha_t, sigma_t = schedule(t)
        return alpha_t.square() * c + sigma_t.square()

    def variance(schedule: Schedule, t: Time, s: Time) -> Tensor:
        shrink = marginal_variance(schedule, s) / marginal_variance(schedule, t)
        return _link(schedule, t, s).variance * shrink

    return variance


@checked
def constant_variance(value: Number) -> Variance:
    """v = value at every step. Raises ValueError unless it is positive and finite.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.variance.constant_variance(0.01)(dm.VPLinear(), 0.5, 0.25)
    tensor(0.0100, dtype=torch.float64)
    """
    require(0 < value < math.inf, "value", "a positive finite number", value)
    return lambda schedule, t, s: torch.tensor(value, dtype=torch.float64, device="cpu")


@checked
def fixed(schedule: Schedule, variance: Variance = large_variance) -> StepVariance:
    """A variance of (schedule, t, s), bound to its schedule for `ddpm`.

    `variance` is one of `large_variance`, `small_variance`, `optimal_variance(c)`, ...

    Derivation: (elbo.9), (elbo.10), (elbo.11). Source: DDPM (arXiv:2006.11239), section 3.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule = dm.Discrete.linear()
    >>> v = dm.variance.fixed(schedule, dm.variance.large_variance)
    >>> step = dm.ddpm(schedule, v)
    >>> v(torch.zeros(1, 2), torch.tensor(1000.0), torch.tensor(999.0))
    tensor(0.0200)
    """
    return lambda x_t, t, s: shape_like(variance(schedule, t, s), wide(x_t))


@checked
def learned_range(schedule: Schedule, share: Callable[[Tensor, Tensor], Tensor]) -> StepVariance:
    """v = exp(f log large + (1 - f) log small), with a network's f = share(x_t, t).

    Args:
        share: f in [0, 1] like x_t; (v + 1) / 2 of a network whose output v lies in [-1, 1].

    Raises:
        ValueError: a share outside [0, 1], at the step.

    Derivation: (variance.1).
    Source: Nichol & Dhariwal (arXiv:2102.09672), Eq. 15.

    >>> import torch
    >>> import diffusion_math as dm
    >>> network = lambda x_t, t: torch.full_like(x_t, 0.5)  # your network's share
    >>> v = dm.variance.learned_range(dm.Discrete.linear(), network)
    >>> v(torch.zeros(1, 2), torch.tensor(10.0), torch.tensor(9.0))
    tensor([[0.0003, 0.0003]])
    """

    def variance(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        f = wide(share(x_t, t))
        all_between("share", f, 0.0, 1.0)
        large, small = (shape_like(v(schedule, t, s), f) for v in (large_variance, small_variance))
        found: Tensor = large**f * small ** (1 - f)
        return found

    return variance


@checked
def analytic(schedule: Schedule, gamma: Callable[[Tensor], Tensor]) -> StepVariance:
    """The isotropic variance that is optimal for the data, from the mean square of eps.

        v = small + (alpha_s sigma_{t|s}^2 / sigma_t^2)^2 (sigma_t / alpha_t)^2 (1 - gamma_t)

    with gamma_t = E norm(eps_hat(x_t))^2 / D over q(x_t), so that (sigma_t / alpha_t)^2 (1 -
    gamma_t) is the mean of Var[x_0 | x_t] over x_t and coordinates. The step's covariance is
    then right on average; the posterior's alone is too small. Needs alpha_t > 0.

    Args:
        gamma: t -> gamma_t in [0, 1], `()`: an average over samples of x_t, or exact.

    Raises:
        ValueError: a gamma outside [0, 1], at the step.

    Derivation: (variance.2).
    Source: Analytic-DPM (arXiv:2201.06503), theorem 1 and eq. 10.

    >>> import torch
    >>> import diffusion_math as dm
    >>> v = dm.variance.analytic(dm.Discrete.linear(), gamma=lambda t: torch.tensor(0.9))
    >>> v(torch.zeros(1, 2), torch.tensor(10.0), torch.tensor(9.0))
    tensor(0.0002)
    """

    def variance(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        g = gamma(t)
        all_between("gamma", g, 0.0, 1.0)
        (alpha_t, sigma_t), (alpha_s, _) = schedule(t), schedule(s)
        gain = alpha_s * large_variance(schedule, t, s) / (sigma_t * alpha_t)
        return shape_like(small_variance(schedule, t, s) + gain.square() * (1 - g), wide(x_t))

    return variance


def _link(schedule: Schedule, t: Time, s: Time) -> Gaussian:
    """q(x_t | x_s = 1): its mean is alpha_{t|s}, its variance sigma_{t|s}^2."""
    later, earlier = (torch.as_tensor(time, dtype=torch.float64, device="cpu") for time in (t, s))
    return gaussian.transition(schedule, torch.ones_like(later - earlier), earlier, later)
