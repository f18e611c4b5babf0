"""The variational bound of DDPM, term by term, per example and in nats.

The model is a Markov chain that starts at N(0, I) on a grid T = t_n > ... > t_1 > 0:

    p(x_{0:T}) = N(x_T; 0, I) prod N(x_s; mu(x_t), v I),    s the node after t

where mu(x_t) is the mean of q(x_s | x_t, x_0) with the denoiser's x0_hat in place of x_0, and v is
a `Variance`. The product is a density of paths. The density of x_0 is its integral over the other
states (erratum E3); the bound replaces it by terms that can be computed (claims C12 to C14):

    -log p(x_0) <= L_T + sum L_s + L_0 = -log p(x_0) + KL(q(x_{1:T} | x_0), p(x_{1:T} | x_0))

Terms are in the dtype of x0, float32 at least. A term that is an average over x_t is evaluated at
one sample of x_t.
Derivation: (elbo.1), (elbo.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.special import erfcx, log_ndtr

from diffusion_math import checks, gaussian
from diffusion_math._batching import inner, over_event, wide
from diffusion_math.checks import checked, require, same_shape
from diffusion_math.denoiser import Denoiser
from diffusion_math.gaussian import Gaussian
from diffusion_math.noise import Noise
from diffusion_math.schedule import Discrete, Schedule, Time, shape_like
from diffusion_math.variance import Variance, large_variance

LogLikelihood: TypeAlias = Callable[[Gaussian, Tensor], Tensor]
"""`(p, x0) -> log P(x0)`, (batch,): `quantized_log_probability` or `Gaussian.log_density`."""


@checked
def reverse_step(
    schedule: Schedule,
    denoise: Denoiser,
    x_t: Float[Tensor, "batch *event"],
    t: Time,
    s: Time,
    variance: Variance = large_variance,
) -> Gaussian:
    """The model's step p(x_s | x_t) = N(mu(x_t), v I), s < t (claim C09); mu = x0_hat at s = 0.

    mu is the mean of `gaussian.posterior` at x_0 = x0_hat. Raises ValueError unless v > 0 and
    0 <= s < t <= T. Derivation: (elbo.8). Source: DDPM (arXiv:2006.11239) eq. 1, mean of eq. 7.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.Discrete.linear(), dm.DENSITIES["ring"]()
    >>> p = dm.elbo.reverse_step(schedule, data.denoiser(schedule), torch.ones(1, 2), t=100, s=99)
    >>> p.mean, p.variance
    (tensor([[1.0067, 1.0067]]), tensor(0.0021))
    """
    x0_hat = denoise(x_t, torch.as_tensor(t, dtype=torch.float64, device="cpu"))
    v = _positive(variance, schedule, t, s)
    mean = gaussian.posterior(schedule, x_t, x0_hat, t, s).mean
    return Gaussian(mean, shape_like(v, wide(x_t)))


@checked
def prior_term(schedule: Schedule, x0: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
    """L_T = KL(q(x_T | x_0), N(0, I)), exactly; it does not depend on the model (claim C14).

    Source: DDPM (arXiv:2006.11239) eq. 5, first term. Derivation: (elbo.7).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.elbo.prior_term(dm.Discrete.linear(steps=1000), torch.ones(1, 2)) < 1e-4
    tensor([True])
    >>> dm.elbo.prior_term(dm.Discrete.linear(steps=100), torch.ones(1, 2))
    tensor([0.4519])
    """
    q = gaussian.marginal(schedule, x0, schedule.T)
    return gaussian.kl(q, Gaussian(torch.zeros_like(x0), wide(x0.new_ones(()))))


@checked
def step_term(
    schedule: Schedule,
    denoise: Denoiser,
    x0: Float[Tensor, "batch *event"],
    x_t: Float[Tensor, "batch *event"],
    t: Time,
    s: Time,
    variance: Variance = large_variance,
) -> Float[Tensor, " batch"]:
    """L_s = KL(q(x_s | x_t, x_0), p(x_s | x_t)) for one sample of x_t, 0 < s < t (claim C14).

    With v = `small_variance`, (snr(s) - snr(t)) norm(x0 - x0_hat)^2 / 2. ValueError unless v > 0,
    0 < s < t <= T. Derivation: (elbo.13). Source: DDPM (arXiv:2006.11239) eq. 5, term 2, and eq. 8.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.Discrete.linear(), dm.DENSITIES["ring"]()
    >>> x0, x_t = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.8, 0.3]])
    >>> dm.elbo.step_term(schedule, data.denoiser(schedule), x0, x_t, t=100, s=99)
    tensor([0.0005])
    """
    _, sigma_s = schedule(s)
    require(bool((sigma_s > 0).all()), "s", "a time > 0: s = 0 is the reconstruction", s)
    q = gaussian.posterior(schedule, x_t, x0, t, s)
    return gaussian.kl(q, reverse_step(schedule, denoise, x_t, t, s, variance))


@checked
def quantized_log_probability(
    p: Gaussian, x0: Float[Tensor, "batch *event"]
) -> Float[Tensor, " batch"]:
    """log P(x0) of 8-bit pixel values under a Gaussian, summed over the event (claim C15).

        P(x) = Phi((x + 1/255 - mean) / std) - Phi((x - 1/255 - mean) / std)

    The levels are 2 k / 255 - 1, k = 0..255; the bins of the first and the last are open, so that
    all 256 sum to 1. The difference of two numbers near 1 is that of their complements, and the
    logarithm is taken as log Phi(near) + log(1 - Phi(far) / Phi(near)): finite as long as the
    square of (x - mean) / std is, and so is its slope in the mean.
    Raises ValueError for an x0 that is no such level, or a variance of 0.
    Derivation: (elbo.15), (elbo.16). Source: DDPM (arXiv:2006.11239) eq. 13.

    >>> import torch
    >>> import diffusion_math as dm
    >>> levels = 2 * torch.arange(256, dtype=torch.float64)[:, None] / 255 - 1
    >>> p = dm.gaussian.Gaussian(torch.zeros_like(levels), torch.tensor(0.1))
    >>> dm.elbo.quantized_log_probability(p, levels).exp().sum()
    tensor(1., dtype=torch.float64)
    """
    same_shape("x0", x0, p.mean)
    require(bool((p.variance > 0).all()), "p.variance", "above 0", p.variance)
    place = 127.5 * (wide(x0) + 1)
    level = place.round()
    checks.all_between("x0 in levels from 0", level, 0, 255)
    checks.all_between("x0's distance from a level", place - level, -1e-3, 1e-3)
    std = wide(p.variance).sqrt()
    low, high = (((2 * level + side) / 255 - 1 - wide(p.mean)) / std for side in (-1, 1))
    first, last = level == 0, level == 255
    mirrored = last | ((low + high > 0) & ~first)
    log_near = _log_phi(torch.where(mirrored, -low, high))
    drop = log_near - _log_phi(torch.where(mirrored, -high, low))
    # Open bins lose nothing; a drop of 1 in its place keeps the slope of that branch finite.
    drop = torch.where(first | last, 1.0, drop)
    lost = torch.where(first | last, 0.0, torch.log(-torch.expm1(-drop)))
    return over_event(log_near + lost)


@checked
def reconstruction_term(
    schedule: Schedule,
    denoise: Denoiser,
    x0: Float[Tensor, "batch *event"],
    x_t: Float[Tensor, "batch *event"],
    t: Time = 1,
    variance: Variance = large_variance,
    log_likelihood: LogLikelihood = quantized_log_probability,
) -> Float[Tensor, " batch"]:
    """L_0 = -log p(x_0 | x_t) at the grid's last positive time, for one sample of x_t (claim C14).

    log_likelihood: `quantized_log_probability` for 8-bit images, `Gaussian.log_density` for
    continuous data. Raises ValueError unless v > 0 (so not for `small_variance`) and 0 < t <= T.
    Source: DDPM (arXiv:2006.11239) eq. 5, third term, and eq. 13. Derivation: (elbo.17).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, x0 = dm.Discrete.linear(), torch.tensor([[1.0, -1.0]])  # levels 255 and 0
    >>> dm.elbo.reconstruction_term(schedule, lambda x_t, t: x_t, x0, x_t=x0)
    tensor([0.8538])
    """
    return -log_likelihood(reverse_step(schedule, denoise, x_t, t, 0, variance), x0)


@final
@checked
@dataclass(frozen=True, eq=False)
class Bound:
    """-ELBO in its terms, in nats.

    prior: (batch,) L_T. steps: (steps, batch) the L_s in the grid's order. reconstruction: (batch,)
    L_0. dimensions: D, the entries of an example.

    >>> import torch
    >>> import diffusion_math as dm
    >>> steps = torch.tensor([[1.0], [2.0]])  # two steps, a batch of one
    >>> terms = dm.elbo.Bound(torch.tensor([0.1]), steps, torch.tensor([3.0]), dimensions=4)
    >>> terms.nats, terms.bits_per_dimension
    (tensor([6.1000]), tensor([2.2001]))
    """

    prior: Float[Tensor, " batch"]
    steps: Float[Tensor, "steps batch"]
    reconstruction: Float[Tensor, " batch"]
    dimensions: int

    @property
    def nats(self) -> Float[Tensor, " batch"]:
        """L_T + sum L_s + L_0: in expectation over x_t at least -log p(x_0)."""
        return self.prior + self.steps.sum(0) + self.reconstruction

    @property
    def bits_per_dimension(self) -> Float[Tensor, " batch"]:
        """nats / (D log 2); of a density on [-1, 1] add log2(127.5). Derivation: (elbo.18)."""
        return self.nats / (self.dimensions * math.log(2))


@checked
def bound(
    schedule: Schedule,
    denoise: Denoiser,
    x0: Float[Tensor, "batch *event"],
    grid: Float[Tensor, " nodes"],
    noise: Noise,
    variance: Variance = large_variance,
    last_variance: Variance = large_variance,
    log_likelihood: LogLikelihood = quantized_log_probability,
) -> Bound:
    """Every term of -ELBO(x_0) for the chain on a grid: unbiased, one sample per term.

    Each x_t = alpha_t x_0 + sigma_t noise(x_0, t, 0) is sampled by itself: the mean of a sum needs
    no joint path. DDPM's own bound has the grid T, T - 1, ..., 0: `trailing(schedule, T)`.

    grid: `(nodes,)` strictly decreasing from T to 0; variance: of the steps to s > 0;
    last_variance: of the step to 0, where `small_variance` has none to give. Raises ValueError for
    other grids, and as `step_term` and `reconstruction_term` do. Source: DDPM (arXiv:2006.11239)
    eq. 5. Derivation: (elbo.5), (elbo.6).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, x0 = dm.Discrete.linear(steps=100, last=0.2), torch.tensor([[1.0, -1.0]])
    >>> data = dm.GaussianMixture(torch.zeros(1), x0, torch.tensor([0.01]))
    >>> grid, denoise = dm.trailing(schedule, 100), data.denoiser(schedule)
    >>> terms = dm.elbo.bound(schedule, denoise, x0, grid, dm.from_seeds([0]))
    >>> terms.steps.shape, terms.bits_per_dimension.round(decimals=1)
    (torch.Size([99, 1]), tensor([3.1000]))
    """
    checks.strictly_decreasing("grid", grid)
    ends = (float(grid[0]), float(grid[-1]))
    require(ends == (schedule.T, 0.0), "grid", f"nodes from T = {schedule.T:g} to 0", ends)

    def sample(t: Tensor) -> Tensor:
        z = noise(x0, t, torch.zeros_like(t))
        return gaussian.marginal(schedule, x0, t).sample(z)

    steps = [
        step_term(schedule, denoise, x0, sample(t), t, s, variance) for t, s in pairwise(grid[:-1])
    ]
    return Bound(
        prior=prior_term(schedule, x0),
        steps=torch.stack(steps) if steps else wide(x0.new_zeros(0, len(x0))),
        reconstruction=reconstruction_term(
            schedule, denoise, x0, sample(grid[-2]), grid[-2], last_variance, log_likelihood
        ),
        dimensions=math.prod(x0.shape[1:]),
    )


@checked
def lambda_t(
    schedule: Discrete, t: Time, variance: Variance = large_variance
) -> Float64[Tensor, "*shape"]:
    """The weight of norm(eps - eps_theta)^2 in the step term from t to t - 1 (claim C18).

        lambda_t = beta_t^2 / (2 v (1 - beta_t) (1 - abar_t)),    1 - abar_t = sigma_t^2
        step_term = lambda_t norm(eps - eps_theta)^2 + D (r - 1 - log r) / 2,    r = beta_hat_t / v

    t: whole times in 1..T, () or (batch,). Raises ValueError for others, and unless v > 0.
    Source: DDPM (arXiv:2006.11239) eq. 12. Derivation: (elbo.14).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.elbo.lambda_t(dm.Discrete.linear(), torch.tensor([1, 10, 1000]))
    tensor([0.5001, 0.0737, 0.0102], dtype=torch.float64)
    """
    time = torch.as_tensor(t, dtype=torch.float64, device="cpu")
    checks.all_between("t", time, 1, schedule.T)
    require(bool((time.frac() == 0).all()), "t", "whole times", t)
    beta = schedule.betas[time.long() - 1]
    v = _positive(variance, schedule, time, time - 1)
    _, sigma_t = schedule(time)
    return beta.square() / (2 * v * (1 - beta) * sigma_t.square())


@checked
def continuous_integrand(
    schedule: Schedule,
    denoise: Denoiser,
    x0: Float[Tensor, "batch *event"],
    z: Float[Tensor, "batch *event"],
    log_snr: Time,
) -> Float[Tensor, " batch"]:
    """The integrand over log-SNR l of the sum of step terms, in the limit of short steps.

        sum L_s -> E integral of (1/2) e^l norm(x0 - x0_hat(x_t))^2 dl,   x_t = alpha x0 + sigma z

    over l from log_snr(T) to log_snr of the last positive time, z standard normal: the
    integral depends on the schedule by those two ends only. log_snr is () or (batch,); raises
    ValueError where the schedule has no such time. Derivation: (elbo.19).
    Source: VDM (arXiv:2107.00630), loss over SNR: dSNR = e^l dl.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x0, z = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, -0.5]])
    >>> dm.elbo.continuous_integrand(schedule, data.denoiser(schedule), x0, z, log_snr=1.0)
    tensor([0.0209])
    """
    t = schedule.time(log_snr)
    x0_hat = denoise(gaussian.marginal(schedule, x0, t).sample(z), t)
    same_shape("denoise's result", x0_hat, x0)
    error = wide(x0) - wide(x0_hat)
    squared = inner(error, error)
    snr = torch.as_tensor(log_snr, dtype=torch.float64, device="cpu").exp()
    return shape_like(snr / 2, squared) * squared


def _log_phi(z: Tensor) -> Tensor:
    """log Phi(z), with a slope that holds far out: torch's own takes exp of a difference of z^2."""
    tail = z.clamp(max=-1)
    below = torch.log(erfcx(-math.sqrt(0.5) * tail) / 2) - tail.square() / 2
    return torch.where(z < -1, below, log_ndtr(z.clamp(min=-1)))


def _positive(variance: Variance, schedule: Schedule, t: Time, s: Time) -> Tensor:
    v = variance(schedule, t, s)
    require(bool((v > 0).all()), "variance", f"v > 0 from t = {t} to s = {s}", v)
    return v
