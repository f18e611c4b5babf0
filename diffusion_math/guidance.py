"""Classifier-free guidance and its variants: functions from denoisers to a denoiser."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from diffusion_math import checks
from diffusion_math._batching import inner, length, wide
from diffusion_math.checks import Number, checked, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule, shape_like

Pair: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(x_t, t) -> (x0_unconditional, x0_conditional)`, both predictions from one pass."""

Weight: TypeAlias = Callable[[Tensor], Tensor]
"""`r -> w(r)`, of any shape, at the noise level r = sigma_t / alpha_t in [0, inf]."""


@checked
def cfg(conditional: Denoiser, unconditional: Denoiser, scale: float | int) -> Denoiser:
    """Classifier-free guidance: extrapolation from the unconditional to the conditional x0.

        x0_hat = x0_u + w (x0_c - x0_u)

    eps, v and score are affine in x0 at a given x_t, so the same formula holds for each of them.
    The paper's w' is w - 1. At w = 1 and w = 0 only one of the two denoisers is evaluated. With a
    weaker model of the same condition as `unconditional` the formula is
    autoguidance (Karras et al., arXiv:2406.02507, Eq. 4).

    Args:
        conditional: E[x_0 | x_t, c].
        unconditional: E[x_0 | x_t].
        scale: w >= 0; 0 is unconditional, 1 conditional, 7.5 Stable Diffusion's default.

    Raises:
        ValueError: `scale` is negative, NaN or infinite.

    Derivation: (guidance.1), (guidance.2).
    Source: Classifier-free guidance (arXiv:2207.12598), Eq. 6.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> guided = dm.cfg(ring.among([0]).denoiser(schedule), ring.denoiser(schedule), scale=2.0)
    >>> guided(torch.zeros(1, 2), torch.tensor(0.9)).round(decimals=3).abs()
    tensor([[4., 0.]])
    """
    _check_scale(scale)
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return _towards(unconditional(x_t, t), conditional(x_t, t), scale)

    return denoise


@checked
def cfg_batched(pair: Pair, scale: float | int) -> Denoiser:
    """Classifier-free guidance with both predictions from one batched network pass.

        (x0_u, x0_c) = pair(x_t, t),    x0_hat = x0_u + w (x0_c - x0_u)

    Args:
        pair: `(x_t, t) -> (x0_u, x0_c)`, each like `x_t`; evaluated once per step at every scale.
        scale: w >= 0, as in `cfg`.

    Raises:
        ValueError: `scale` is negative, NaN or infinite.

    Derivation: (guidance.1).
    Source: Classifier-free guidance (arXiv:2207.12598), Eq. 6.

    >>> import torch
    >>> import diffusion_math as dm
    >>> pair = lambda x_t, t: (torch.zeros_like(x_t), torch.ones_like(x_t))  # two prompts
    >>> dm.cfg_batched(pair, scale=7.5)(torch.zeros(1, 2), torch.tensor(0.5))
    tensor([[7.5000, 7.5000]])
    """
    _check_scale(scale)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return _towards(*pair(x_t, t), scale)

    return denoise


@checked
def limited(
    guided: Denoiser, conditional: Denoiser, schedule: Schedule, interval: Sequence[Number]
) -> Denoiser:
    """Guidance interval: guided inside an interval of noise levels, conditional outside.

        x0_hat = x0_u + w(r_t) (x0_c - x0_u),    r_t = sigma_t / alpha_t
        w(r)   = w where low <= r <= high, 1 elsewhere

    With one time for the batch only one of the two denoisers is evaluated. Where rows have their
    own times on both sides of an end, both are evaluated on all rows.

    The noise level r is EDM's sigma, so an interval means the same on every schedule and the
    paper's values apply. Both ends belong to the interval (in the paper only the upper one).
    The flow is discontinuous at the ends: a solver whose step crosses one has order 1.

    Args:
        guided: of `cfg` or `cfg_batched`.
        conditional: E[x_0 | x_t, c], which is guidance at w = 1.
        schedule: gives alpha and sigma at t.
        interval: (low, high) with 0 <= low < high; (0, inf) guides everywhere.

    Raises:
        ValueError: the interval is not two such numbers.

    Derivation: (guidance.7), (guidance.8), (guidance.9).
    Source: Kynkaanniemi et al. (arXiv:2404.07724), Eqs. 5 and 6.

    >>> import torch
    >>> import diffusion_math as dm
    >>> u, c = lambda x_t, t: 0 * x_t, lambda x_t, t: 0 * x_t + 1
    >>> denoise = dm.limited(dm.cfg(c, u, 3.0), c, dm.VE(), interval=(0.2, 2.0))
    >>> denoise(torch.zeros(3, 1), torch.tensor([0.1, 1.0, 10.0]))
    tensor([[1.],
            [3.],
            [1.]])
    """
    checks.interval("interval", interval)
    low, high = interval

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_t, sigma_t = schedule(t)
        level = sigma_t / alpha_t
        inside = (low <= level) & (level <= high)
        if bool(inside.all()):
            return guided(x_t, t)
        if not bool(inside.any()):
            return conditional(x_t, t)
        rows = inside.reshape(-1, *(1,) * (x_t.ndim - 1)).to(x_t.device)
        return torch.where(rows, guided(x_t, t), conditional(x_t, t))

    return denoise


@checked
def together(conditional: Denoiser, unconditional: Denoiser) -> Pair:
    """The two denoisers as a pair, in the pair's order: (unconditional, conditional).

    Both are evaluated at every step.

    >>> import torch
    >>> import diffusion_math as dm
    >>> u, c = lambda x_t, t: 0 * x_t, lambda x_t, t: 0 * x_t + 1
    >>> dm.guidance.together(c, u)(torch.zeros(1, 2), torch.tensor(0.5))
    (tensor([[0., 0.]]), tensor([[1., 1.]]))
    """
    return lambda x_t, t: (unconditional(x_t, t), conditional(x_t, t))


@checked
def weighted(pair: Pair, schedule: Schedule, weight: Weight) -> Denoiser:
    """Guidance whose scale depends on the noise level.

        x0_hat = x0_u + w(r_t) (x0_c - x0_u),    r_t = sigma_t / alpha_t

    `cfg_batched` has a constant w, `limited` a piecewise constant one. CFG++ (arXiv:2406.08070) is
    no denoiser: its step combines the guided x0 with the unconditional eps. For a DDIM step from
    r_t to r_s it equals this formula with the weight lambda / (1 - r_s / r_t).

    Args:
        pair: `(x_t, t) -> (x0_u, x0_c)`.
        schedule: gives alpha and sigma at t.
        weight: r, `()` or `(batch,)`, float64 in [0, inf], to w(r) >= 0 of the same shape.

    Raises:
        ValueError: at an evaluation, for a weight that is negative, NaN or infinite.

    Derivation: (guidance.10), (guidance.12).
    Source: Wang et al. (arXiv:2404.13040), section 3.

    >>> import torch
    >>> import diffusion_math as dm
    >>> pair = lambda x_t, t: (torch.zeros_like(x_t), torch.ones_like(x_t))
    >>> denoise = dm.guidance.weighted(pair, dm.VE(), weight=lambda r: 1 + r)
    >>> denoise(torch.zeros(2, 1), torch.tensor([1.0, 6.5]))
    tensor([[2.0000],
            [7.5000]])
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_t, sigma_t = schedule(t)
        scale = weight(sigma_t / alpha_t)
        checks.all_between("weight", scale, 0, torch.finfo(torch.float64).max)
        x0_u, x0_c = pair(x_t, t)
        return x0_u + shape_like(scale, x_t) * (x0_c - x0_u)

    return denoise


@checked
def cosine(scale: Number) -> Weight:
    """A weight that rises from 1 in noise to 2 w - 1 at clean data and is w on average over tau.

        w(r) = 1 + (w - 1) (1 + cos(pi tau)),    tau = r / (1 + r) = sigma / (alpha + sigma)

    The paper's w' (1 + cos(pi t / T)) has its discrete time t / T in the place of tau.

    Args:
        scale: w >= 1.

    Raises:
        ValueError: `scale` is below 1, NaN or infinite.

    Derivation: (guidance.11).
    Source: Wang et al. (arXiv:2404.13040), section 3, the cosine schedule.

    >>> import torch
    >>> import diffusion_math as dm
    >>> weight = dm.guidance.cosine(scale=7.5)
    >>> weight(torch.tensor([0.0, 1.0, torch.inf]))
    tensor([14.0000,  7.5000,  1.0000])
    """
    require(math.isfinite(scale) and scale >= 1, "scale", "a finite number of at least 1", scale)

    def weight(r: Tensor) -> Tensor:
        tau = 1 - 1 / (1 + r)  # at r = inf too
        return 1 + (scale - 1) * (1 + torch.cos(math.pi * tau))

    return weight


@checked
def rescaled(pair: Pair, scale: Number, share: Number = 0.7) -> Denoiser:
    """Rescaled CFG: moves the guided x0 towards the conditional x0's standard deviation.

        x0_g = x0_u + w (x0_c - x0_u),    x0_hat = phi (std x0_c / std x0_g) x0_g + (1 - phi) x0_g

    std is over the entries of an event, about their mean. The paper rescales its network's
    prediction, v. This function rescales x0, whose std the paper's argument concerns; the results
    differ. A guided prediction of zero std stays unchanged.

    Args:
        pair: `(x_t, t) -> (x0_u, x0_c)`, events of at least two entries.
        scale: w >= 0, as in `cfg`.
        share: phi in [0, 1]; 0 is `cfg_batched`.

    Raises:
        ValueError: `scale` or `share` is not as above; at an evaluation, for events of one entry.

    Derivation: (guidance.13).
    Source: Lin et al. (arXiv:2305.08891), section 3.4, Eqs. 15 and 16.

    >>> import torch
    >>> import diffusion_math as dm
    >>> pair = lambda x_t, t: (torch.zeros_like(x_t), torch.tensor([[-1.0, 1.0]]))
    >>> dm.guidance.rescaled(pair, scale=7.5, share=1.0)(torch.zeros(1, 2), torch.tensor(0.5))
    tensor([[-1.0000,  1.0000]])
    """
    _check_scale(scale)
    checks.between("share", share, 0, 1)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        require(x_t[:1].numel() != 1, "x_t", "events of at least two entries", tuple(x_t.shape))
        x0_u, x0_c = (wide(x0) for x0 in pair(x_t, t))
        x0_g = _towards(x0_u, x0_c, scale)
        wanted, found = _spread(x0_c), _spread(x0_g)
        there = found > 0
        ratio = torch.where(there, wanted / torch.where(there, found, 1), 1)
        return (shape_like(share * ratio + (1 - share), x0_g) * x0_g).to(x_t)

    return denoise


@checked
def projected(
    pair: Pair, scale: Number, parallel: Number = 0.0, longest: Number = math.inf
) -> Denoiser:
    """Adaptive projected guidance (APG): limits the update and its part along the prediction.

        d = (x0_c - x0_u) min(1, L / norm(x0_c - x0_u)),    d_p = x0_c <d, x0_c> / <x0_c, x0_c>
        x0_hat = x0_c + (w - 1) (d - (1 - eta) d_p)

    Products and norms are over an event. At eta = 1 and L = inf this is `cfg_batched`. The paper's
    momentum, a running sum of earlier updates, is left out: the prediction would then depend on
    earlier steps, and no flow would be defined.

    Args:
        pair: `(x_t, t) -> (x0_u, x0_c)`.
        scale: w >= 0, as in `cfg`.
        parallel: eta in [0, 1], the factor of the parallel part; the paper advises 0.
        longest: L > 0, in units of x0; inf for no limit.

    Raises:
        ValueError: `scale`, `parallel` or `longest` is not as above.

    Derivation: (guidance.14).
    Source: Sadat et al. (arXiv:2410.02416), section 4.

    >>> import torch
    >>> import diffusion_math as dm
    >>> pair = lambda x_t, t: (torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]]))
    >>> dm.guidance.projected(pair, scale=3.0)(torch.zeros(1, 2), torch.tensor(0.5))
    tensor([[1.6000, 1.8000]])
    >>> dm.guidance.projected(pair, scale=3.0, parallel=1.0)(torch.zeros(1, 2), torch.tensor(0.5))
    tensor([[4., 3.]])
    """
    _check_scale(scale)
    checks.between("parallel", parallel, 0, 1)
    require(longest > 0, "longest", "a number > 0", longest)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        x0_u, x0_c = (wide(x0) for x0 in pair(x_t, t))
        d = x0_c - x0_u
        if longest < math.inf:
            found = length(d)
            shorter = found > longest
            d = shape_like(torch.where(shorter, longest / torch.where(shorter, found, 1), 1), d) * d
        size = length(x0_c)
        unit = x0_c / shape_like(torch.where(size > 0, size, 1), x0_c)
        across = d - (1 - parallel) * shape_like(inner(d, unit), d) * unit
        return (x0_c + (scale - 1) * across).to(x_t)

    return denoise


def _spread(x0: Tensor) -> Tensor:
    """The root of the sum of squares about an event's mean, `(batch,)`."""
    flattened = x0.flatten(1)
    return length(flattened - flattened.mean(1, keepdim=True))


def _towards(x0_unconditional: Tensor, x0_conditional: Tensor, scale: float | int) -> Tensor:
    return x0_unconditional + scale * (x0_conditional - x0_unconditional)


def _check_scale(scale: float | int) -> None:
    require(math.isfinite(scale) and scale >= 0, "scale", "a finite number of at least 0", scale)
