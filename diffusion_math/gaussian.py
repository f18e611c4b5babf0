"""Diagonal Gaussians; DDPM's forward step, marginal q(x_t | x_0), transition and posterior.

Everywhere s < t, alpha_{t|s} = alpha_t / alpha_s and sigma_{t|s}^2 = sigma_t^2 - alpha_{t|s}^2
sigma_s^2. The last is computed as -sigma_t^2 expm1(log_snr(t) - log_snr(s)), which is never
negative; its relative rounding is that of the log-SNR over the step's difference in log-SNR.
Derivation: (gaussian.10), (gaussian.11).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_math._batching import combined, over_event, wide
from diffusion_math._kept import kept, numbers
from diffusion_math.checks import checked, earlier, require, same_shape, whole
from diffusion_math.schedule import Discrete, Schedule, Time, shape_like


@final
@checked
@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, diag(variance)): mean (batch, *event), variance of any shape that broadcasts to it.

    A variance of 0 is a point mass. Raises ValueError where the shapes do not broadcast.
    Samples and scores are in the mean's dtype; sums over an event in float32 or wider.

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.Gaussian(torch.zeros(1, 2), torch.tensor(4.0))
    >>> q.sample(torch.ones(1, 2)), q.score(torch.ones(1, 2)), q.entropy()
    (tensor([[2., 2.]]), tensor([[-0.2500, -0.2500]]), tensor([4.2242]))
    """

    mean: Float[Tensor, "*shape"]
    variance: Float[Tensor, "..."]

    def __post_init__(self) -> None:
        given, wanted = self.variance.shape, self.mean.shape
        fits = len(given) <= len(wanted) and all(
            v in (1, m) for v, m in zip(given[::-1], wanted[::-1], strict=False)
        )
        require(fits, "variance", f"a shape that broadcasts to {tuple(wanted)}", tuple(given))

    def sample(self, z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """mean + sqrt(variance) z: a sample where z, of mean's shape, is standard normal.

        Derivation: (gaussian.1).
        """
        same_shape("z", z, self.mean)
        std = wide(self.variance).sqrt().to(self.mean.device)
        return torch.addcmul(wide(self.mean), wide(z), std).to(self.mean)

    def log_density(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, " batch"]:
        """log N(x; mean, variance), summed over the event; needs variance > 0.

        Derivation: (gaussian.1).
        """
        same_shape("x", x, self.mean)
        v = wide(self.variance)
        squared = (wide(x) - wide(self.mean)).square() / v
        return -over_event(squared + torch.log(2 * math.pi * v)) / 2

    def score(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """grad log N(x; mean, variance) = (mean - x) / variance, like x (claim C21).

        Derivation: (gaussian.2).
        """
        same_shape("x", x, self.mean)
        return ((wide(self.mean) - wide(x)) / wide(self.variance)).to(self.mean)

    def entropy(self) -> Float[Tensor, " batch"]:
        """E[-log N] = sum over the event of (1 + log(2 pi variance)) / 2, in nats.

        Derivation: (gaussian.3).
        """
        each = 1 + torch.log(2 * math.pi * wide(self.variance))
        return over_event(each.expand_as(self.mean)) / 2


@checked
def kl(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """KL(q || p) in nats, summed over the event (claim C10: never negative).

    sum ((m_q - m_p)^2 / v_p + d - log(1 + d)) / 2 with d = v_q / v_p - 1, so equal Gaussians
    give 0 exactly. Raises ValueError where the means' shapes differ. Derivation: (gaussian.5).

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.Gaussian(torch.ones(1, 2), torch.tensor(1.0))
    >>> p = dm.gaussian.Gaussian(torch.zeros(1, 2), torch.tensor(1.0))
    >>> dm.gaussian.kl(q, p), dm.gaussian.kl(q, q)
    (tensor([1.]), tensor([0.]))
    """
    difference, v_q, v_p = _difference(q, p)
    d = (v_q - v_p) / v_p
    return over_event(difference.square() / v_p + (d - torch.log1p(d))) / 2


@checked
def cross_entropy(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """-E_q[log p] = sum ((m_q - m_p)^2 / v_p + v_q / v_p + log(2 pi v_p)) / 2, in nats.

    It is q's entropy plus KL(q || p). Raises ValueError where the means' shapes differ.
    Derivation: (gaussian.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.Gaussian(torch.ones(1, 2), torch.tensor(1.0))
    >>> p = dm.gaussian.Gaussian(torch.zeros(1, 2), torch.tensor(2.0))
    >>> dm.gaussian.cross_entropy(q, p), q.entropy() + dm.gaussian.kl(q, p)
    (tensor([3.5310]), tensor([3.5310]))
    """
    difference, v_q, v_p = _difference(q, p)
    return over_event((difference.square() + v_q) / v_p + torch.log(2 * math.pi * v_p)) / 2


@checked
def fisher_divergence(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """E_q norm(grad log q - grad log p)^2, what explicit score matching measures (claim C24).

    sum ((m_q - m_p) / v_p)^2 + ((v_q - v_p) / v_p)^2 / v_q, so that equal Gaussians give 0 exactly.
    Raises ValueError where the means' shapes differ. Derivation: (gaussian.6).

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.Gaussian(torch.ones(1, 2), torch.tensor(1.0))
    >>> p = dm.gaussian.Gaussian(torch.zeros(1, 2), torch.tensor(2.0))
    >>> dm.gaussian.fisher_divergence(q, p)
    tensor([1.])
    """
    difference, v_q, v_p = _difference(q, p)
    return over_event((difference / v_p).square() + ((v_q - v_p) / v_p).square() / v_q)


@checked
def wasserstein2(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """The 2-Wasserstein distance: sqrt(sum (m_q - m_p)^2 + (sqrt(v_q) - sqrt(v_p))^2).

    Raises ValueError where the means' shapes differ. Derivation: (gaussian.7).

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.Gaussian(torch.full((1, 2), 3.0), torch.tensor(1.0))
    >>> p = dm.gaussian.Gaussian(torch.zeros(1, 2), torch.tensor(1.0))
    >>> dm.gaussian.wasserstein2(q, p)
    tensor([4.2426])
    """
    difference, v_q, v_p = _difference(q, p)
    return over_event(difference.square() + (v_q.sqrt() - v_p.sqrt()).square()).sqrt()


@checked
def forward_step(schedule: Discrete, x: Float[Tensor, "*shape"], t: int) -> Gaussian:
    """q(x_t | x_{t-1} = x) = N(sqrt(1 - beta_t) x, beta_t I), t in 1..T.

    Raises ValueError for any other t. Source: DDPM (arXiv:2006.11239) eq. 2.
    Derivation: (gaussian.8).

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.forward_step(dm.Discrete.linear(), torch.ones(1, 2), t=1000)
    >>> q.mean, q.variance
    (tensor([[0.9899, 0.9899]]), tensor(0.0200))
    """
    whole("t", t, 1, len(schedule.betas))
    beta = schedule.betas[t - 1]
    return Gaussian(combined((torch.sqrt(1 - beta), x)), shape_like(beta, wide(x)))


@checked
def marginal(schedule: Schedule, x0: Float[Tensor, "*shape"], t: Time) -> Gaussian:
    """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I), t in [0, T] of shape () or (batch,).

    Derivation: (gaussian.9).
    Source: DDPM (arXiv:2006.11239) eq. 4; VDM (arXiv:2107.00630) eq. 1.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x0, t = torch.ones(2, 3), torch.tensor([1, 500])
    >>> q = dm.gaussian.marginal(dm.Discrete.linear(), x0, t)
    >>> x_t = q.sample(torch.zeros(2, 3))
    >>> x_t
    tensor([[0.9999, 0.9999, 0.9999],
            [0.2803, 0.2803, 0.2803]])
    """
    alpha_t, sigma_t = schedule(t)
    return Gaussian(combined((alpha_t, x0)), shape_like(sigma_t.square(), wide(x0)))


@checked
def transition(schedule: Schedule, x_s: Float[Tensor, "*shape"], s: Time, t: Time) -> Gaussian:
    """q(x_t | x_s) = N(alpha_{t|s} x_s, sigma_{t|s}^2 I) for any s < t, each () or (batch,).

    Raises ValueError unless 0 <= s < t <= T. Source: VDM (arXiv:2107.00630) appendix A.
    Derivation: (gaussian.10).

    >>> import torch
    >>> import diffusion_math as dm
    >>> q = dm.gaussian.transition(dm.VE(), torch.ones(1, 2), s=3.0, t=5.0)
    >>> q.mean, q.variance
    (tensor([[1., 1.]]), tensor(16.))
    """
    alpha_ratio, _, fresh, (_, sigma_t) = _between(schedule, s, t)
    variance = fresh * sigma_t.square()
    return Gaussian(combined((alpha_ratio, x_s)), shape_like(variance, wide(x_s)))


@checked
def posterior(
    schedule: Schedule,
    x_t: Float[Tensor, "*shape"],
    x0: Float[Tensor, "*shape"],
    t: Time,
    s: Time,
) -> Gaussian:
    """q(x_s | x_t, x_0) for any s < t, each () or (batch,); at s = 0 the point mass at x_0.

    mean     = alpha_{t|s} (sigma_s^2 / sigma_t^2) x_t + alpha_s (sigma_{t|s}^2 / sigma_t^2) x_0
    variance = sigma_s^2 sigma_{t|s}^2 / sigma_t^2

    At s = t - 1 these are DDPM's mu_tilde, beta_tilde. Raises ValueError unless 0 <= s < t <= T.
    Derivation: (gaussian.14), (gaussian.16).
    Source: DDPM (arXiv:2006.11239) eq. 6-7; VDM (arXiv:2107.00630) appendix A.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x_t, x0 = torch.zeros(1, 2), torch.ones(1, 2)
    >>> q = dm.gaussian.posterior(dm.RectifiedFlow(), x_t, x0, t=0.75, s=0.5)
    >>> q.mean, q.variance
    (tensor([[0.4444, 0.4444]]), tensor(0.2222))
    """
    same_shape("x0", x0, x_t)
    of_x_t, of_x0, variance = _posterior(schedule, s, t)
    mean = combined((of_x_t, x_t), (of_x0, x0))
    return Gaussian(
        mean, shape_like(torch.as_tensor(variance, dtype=torch.float64, device="cpu"), wide(x_t))
    )


@kept
def _posterior(schedule: Schedule, s: Time, t: Time) -> tuple[float | Tensor, ...]:
    """The coefficients of x_t and x_0 in `posterior`'s mean, and its variance."""
    alpha_ratio, (alpha_s, sigma_s), fresh, (_, sigma_t) = _between(schedule, s, t)
    of_x_t = alpha_ratio * (sigma_s / sigma_t).square()
    return numbers(of_x_t, alpha_s * fresh, sigma_s.square() * fresh)


def _difference(q: Gaussian, p: Gaussian) -> tuple[Tensor, Tensor, Tensor]:
    """m_q - m_p, v_q and v_p, in float32 or wider."""
    same_shape("p.mean", p.mean, q.mean)
    return wide(q.mean) - wide(p.mean), wide(q.variance), wide(p.variance)


_Pair = tuple[Tensor, Tensor]


def _between(schedule: Schedule, s: Time, t: Time) -> tuple[Tensor, _Pair, Tensor, _Pair]:
    """alpha_{t|s}, (alpha_s, sigma_s), sigma_{t|s}^2 / sigma_t^2, (alpha_t, sigma_t)."""
    earlier(
        torch.as_tensor(s, dtype=torch.float64, device="cpu"),
        torch.as_tensor(t, dtype=torch.float64, device="cpu"),
    )
    at_s, at_t = schedule(s), schedule(t)
    fresh = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
    return at_t[0] / at_s[0], at_s, fresh, at_t
