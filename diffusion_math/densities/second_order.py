"""Second order for mixtures, exactly: the score's Jacobian and Cov[x_0 | x_t].

Both are the mean of the components' matrices plus the covariance of the components' vectors,

    sum_k r_k (M_k + (v_k - v)(v_k - v)^T),    v = sum_k r_k v_k,    r_k = P(k | x_t),

which is symmetric and free of cancellation: no large products are subtracted.
Derivation: (second_order.2), (second_order.3).
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import checked
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Schedule, Time

__all__ = ["posterior_covariance", "score_jacobian"]


@checked
def score_jacobian(
    mixture: GaussianMixture, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
) -> Float64[Tensor, "batch D D"]:
    """The Hessian of log q_t at each x, `(batch, D, D)` over the flattened event.

        J(x) = sum_k r_k ((s_k - s)(s_k - s)^T - S_k^-1),    s_k = -S_k^-1 (x - alpha_t m_k)

    Args:
        x: `(batch, *event)`.
        t: a number or `()`, above 0 where a component has a zero variance.

    Derivation: (second_order.2).

    >>> import torch
    >>> import diffusion_math as dm
    >>> ring, x_t = dm.DENSITIES["ring"](), torch.tensor([[1.0, 0.0]])
    >>> jacobian = dm.densities.second_order.score_jacobian(ring, dm.VPLinear(), x_t, 0.5)
    >>> jacobian.diagonal(dim1=1, dim2=2)
    tensor([[-0.9215, -0.9062]], dtype=torch.float64)
    """
    total = _no_matrices(mixture, x)
    r, score = mixture.responsibilities(schedule, x, t), mixture.score(schedule, x.double(), t)
    for k, r_k in enumerate(r.mT):
        one = mixture.among([k])
        spread = one.marginal(schedule, t).moments()[1]
        difference = (one.score(schedule, x.double(), t) - score).reshape(r.shape[0], -1)
        total = total + r_k[:, None, None] * (_outer(difference) - torch.linalg.inv(spread))
    return total


@checked
def posterior_covariance(
    mixture: GaussianMixture, schedule: Schedule, x: Float[Tensor, "batch *event"], t: Time
) -> Float64[Tensor, "batch D D"]:
    """Cov[x_0 | x_t = x], `(batch, D, D)` over the flattened event; zero at t = 0.

        Cov[x_0 | x_t] = sum_k r_k (C'_k + (m'_k - m')(m'_k - m')^T)
                       = (sigma_t / alpha_t)^2 (I + sigma_t^2 J(x_t))

    with the components' own posteriors N(m'_k, C'_k). The second line, Tweedie's formula of second
    order, is not used: it cancels where sigma_t is small.

    Args:
        x: `(batch, *event)`.
        t: a number or `()`.

    Derivation: (second_order.3), (second_order.5).

    >>> import torch
    >>> import diffusion_math as dm
    >>> ring, x_t = dm.DENSITIES["ring"](), torch.tensor([[1.0, 0.0]])
    >>> covariance = dm.densities.second_order.posterior_covariance(ring, dm.VPLinear(), x_t, 0.5)
    >>> covariance.diagonal(dim1=1, dim2=2)
    tensor([[1.7635, 1.9276]], dtype=torch.float64)
    """
    total = _no_matrices(mixture, x)
    if float(t) == 0:
        return total
    r, mean = (
        mixture.responsibilities(schedule, x, t),
        mixture.posterior_mean(schedule, x.double(), t),
    )
    for k, r_k in enumerate(r.mT):
        one = mixture.among([k])
        own = one.reverse(schedule, mixture.means[0], t).moments()[1]  # the same for every x
        difference = (one.posterior_mean(schedule, x.double(), t) - mean).reshape(r.shape[0], -1)
        total = total + r_k[:, None, None] * (_outer(difference) + own)
    return total


def _no_matrices(mixture: GaussianMixture, x: Tensor) -> Tensor:
    D = mixture.means[0].numel()
    return mixture.means.new_zeros(len(x), D, D)


def _outer(v: Tensor) -> Tensor:
    return v[:, :, None] * v[:, None, :]
