"""Guidance: denoisers made of denoisers."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from diffusion_math import checks
from diffusion_math.checks import Number, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule

Pair: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(x_t, t) -> (x0_unconditional, x0_conditional)`, both predictions from one pass."""


def cfg(conditional: Denoiser, unconditional: Denoiser, scale: float | int) -> Denoiser:
    """Classifier-free guidance: from the unconditional prediction, `scale` times towards the other.

        x0_hat = x0_u + w (x0_c - x0_u)

    eps, v and score are affine in x0 at a given x_t, so the same line holds for each of them. The
    scale is w = 1 + w' in terms of the paper's w'. At w = 1 and w = 0 only the one denoiser that
    counts is called.

    Args:
        conditional: E[x_0 | x_t, c].
        unconditional: E[x_0 | x_t].
        scale: w >= 0; 0 is unconditional, 1 conditional, 7.5 Stable Diffusion's habit.

    Raises:
        ValueError: `scale` is negative, NaN or infinite.

    Derivation: (guidance.1), (guidance.2).
    Source: Classifier-free guidance (arXiv:2207.12598), Eq. 6.
    """
    _check_scale(scale)
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return _towards(unconditional(x_t, t), conditional(x_t, t), scale)

    return denoise


def cfg_batched(pair: Pair, scale: float | int) -> Denoiser:
    """Classifier-free guidance where one pass gives both predictions.

        (x0_u, x0_c) = pair(x_t, t),    x0_hat = x0_u + w (x0_c - x0_u)

    Args:
        pair: `(x_t, t) -> (x0_u, x0_c)`, each like `x_t`; called once a step at every scale.
        scale: w >= 0, as in `cfg`.

    Raises:
        ValueError: `scale` is negative, NaN or infinite.

    Derivation: (guidance.1).
    Source: Classifier-free guidance (arXiv:2207.12598), Eq. 6.
    """
    _check_scale(scale)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return _towards(*pair(x_t, t), scale)

    return denoise


def limited(
    guided: Denoiser, conditional: Denoiser, schedule: Schedule, interval: Sequence[Number]
) -> Denoiser:
    """Guidance where it matters: the guided prediction inside an interval of noise levels only.

        x0_hat = x0_u + w(r_t) (x0_c - x0_u),    r_t = sigma_t / alpha_t
        w(r)   = w where low <= r <= high, 1 elsewhere

    With one time for the batch only the denoiser that counts is called. Where rows have times of
    their own and these lie on both sides, both are called on all rows.

    The noise level r is EDM's sigma, so an interval means the same on every schedule and the
    paper's values hold as printed; to it the ends belong, both (in the paper only the upper one).
    The field jumps at them: a solver whose step goes over a jump is of order 1.

    Args:
        guided: of `cfg` or `cfg_batched`.
        conditional: E[x_0 | x_t, c], which is guidance at w = 1.
        schedule: gives alpha and sigma at t.
        interval: (low, high) with 0 <= low < high; (0, inf) is everywhere.

    Raises:
        ValueError: the interval is not two such numbers.

    Derivation: (guidance.7), (guidance.8), (guidance.9).
    Source: Kynkaanniemi et al. (arXiv:2404.07724), Eqs. 5 and 6.
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


def _towards(x0_unconditional: Tensor, x0_conditional: Tensor, scale: float | int) -> Tensor:
    return x0_unconditional + scale * (x0_conditional - x0_unconditional)


def _check_scale(scale: float | int) -> None:
    require(math.isfinite(scale) and scale >= 0, "scale", "a finite number of at least 0", scale)
