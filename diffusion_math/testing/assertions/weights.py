"""Weights of training losses, from the levels of a time and of the time before it."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

from diffusion_math.testing.assertions.network import KINDS
from diffusion_math.testing.mistakes.levels import Step

__all__ = ["WEIGHTS", "Step", "Weight", "edm", "min_snr", "p2", "x0_weight"]

Weight: TypeAlias = Callable[[Step], Tensor]
"""The weight on the squared error in x0, `(rows,)`: the same for every prediction type."""


def snr(step: Step) -> Tensor:
    """alpha_t^2 / sigma_t^2."""
    return (step.alpha_t / step.sigma_t) ** 2


def x0_weight(predicts: str) -> Weight:
    """What a weight of 1 on a prediction's squared error is on that in x0; see `dm.loss`.

    >>> import torch
    >>> from diffusion_math.testing import weights
    >>> step = weights.Step(*torch.tensor([[0.6], [0.8], [0.8], [0.6]]))
    >>> weights.x0_weight("eps")(step)
    tensor([0.5625])
    """

    def weight(step: Step) -> Tensor:
        a, b = KINDS[predicts](step.alpha_t, step.sigma_t)
        return ((step.alpha_t * b - step.sigma_t * a) / step.sigma_t) ** 2

    return weight


def min_snr(gamma: float = 5.0) -> Weight:
    """min(SNR, gamma). Source: arXiv:2303.09556, eq. 8.

    >>> import torch
    >>> from diffusion_math.testing import weights
    >>> step = weights.Step(*torch.tensor([[0.6], [0.8], [0.8], [0.6]]))
    >>> weights.min_snr(0.5)(step)
    tensor([0.5000])
    """
    return lambda step: snr(step).clamp(max=gamma)


def p2(k: float = 1.0, gamma: float = 1.0) -> Weight:
    """SNR / (k + SNR)^gamma. Source: arXiv:2204.00227, eq. 8, on the simple loss.

    >>> import torch
    >>> from diffusion_math.testing import weights
    >>> step = weights.Step(*torch.tensor([[0.6], [0.8], [0.8], [0.6]]))
    >>> weights.p2()(step)
    tensor([0.3600])
    """
    return lambda step: snr(step) / (k + snr(step)) ** gamma


def edm(spread: float = 0.5) -> Weight:
    """(r^2 + spread^2) / (r spread)^2 with r = sigma_t / alpha_t. Source: arXiv:2206.00364.

    >>> import torch
    >>> from diffusion_math.testing import weights
    >>> step = weights.Step(*torch.tensor([[0.6], [0.8], [0.8], [0.6]]))
    >>> weights.edm(0.5)(step)
    tensor([4.5625])
    """
    return lambda step: 1 / spread**2 + snr(step)


def elbo(step: Step) -> Tensor:
    """DDPM's bound at the variance beta_t, but for a constant (arXiv:2006.11239, eq. 12)."""
    ratio = (step.alpha_t / step.alpha_s) ** 2
    beta = step.sigma_t**2 - ratio * step.sigma_s**2
    return beta / (2 * ratio * step.sigma_t**2) * snr(step)


WEIGHTS: Mapping[str, Weight] = {
    "simple": x0_weight("eps"),
    "x0": x0_weight("x0"),
    "v": x0_weight("v"),
    "truncated SNR": lambda step: snr(step).clamp(min=1),
    "min-SNR": min_snr(),
    "P2": p2(),
    "EDM": edm(),
    "ELBO": elbo,
}
"""Each by name: `simple` is 1 on the error in eps, `x0` and `v` are 1 on theirs."""
