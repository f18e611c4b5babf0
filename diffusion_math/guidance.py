"""Guidance: denoisers made of denoisers."""

import math
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.denoiser import Denoiser

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


def _towards(x0_unconditional: Tensor, x0_conditional: Tensor, scale: float | int) -> Tensor:
    return x0_unconditional + scale * (x0_conditional - x0_unconditional)


def _check_scale(scale: float | int) -> None:
    require(math.isfinite(scale) and scale >= 0, "scale", "a finite number of at least 0", scale)
