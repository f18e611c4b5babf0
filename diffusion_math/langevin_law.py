"""Exact distributions of Langevin chains on Gaussians: after k moves, and stationary.

For q = N(m, c) the score is (m - x) / c and every move is affine in x, v and z, so the chain's
distribution stays Gaussian. These are references for a run of a chain (C23, E7).
Derivation: (langevin_law.1).
"""

import math

import torch

from diffusion_math.checks import Number, checked, require, same_shape, whole
from diffusion_math.gaussian import Gaussian
from diffusion_math.langevin import step_size


@checked
def ula_distribution(target: Gaussian, delta: Number, start: Gaussian, moves: int) -> Gaussian:
    """The exact distribution of x after `moves` moves of ULA on N(m, c), from N(m_0, v_0).

        mean     = m + a^k (m_0 - m)                             a = 1 - delta / c
        variance = a^{2k} v_0 + 2 delta (1 - a^{2k}) / (1 - a^2)

    for every delta > 0, stable or not (2 delta k at a^2 = 1); each entry is independent. v_0 = 0
    starts at one point. Raises ValueError for another shape, delta <= 0, or moves < 0.
    Derivation: (langevin_law.2), (langevin_law.3).

    >>> import torch
    >>> import diffusion_math as dm
    >>> target = dm.gaussian.Gaussian(torch.zeros(1), torch.tensor(1.0))
    >>> start = dm.gaussian.Gaussian(torch.ones(1), torch.tensor(0.0))
    >>> output = dm.langevin_law.ula_distribution(target, delta=0.1, start=start, moves=10)
    >>> output.mean, output.variance
    (tensor([0.3487]), tensor(0.9247))
    """
    same_shape("start.mean", start.mean, target.mean)
    step_size("delta", delta)
    whole("moves", moves, 0)
    rate = delta / target.variance
    lost = rate * (2 - rate)  # 1 - a^2, without its cancellation
    decay = (1 - rate).pow(2 * moves)
    # Where a^2 is near 1, 1 - a^2k cancels: -expm1(k log1p(-lost)) does not.
    sums = -torch.expm1(moves * torch.log1p(-lost)) / lost
    sums = torch.where(lost == 0, moves, torch.where(lost == 1, min(moves, 1), sums))
    mean = target.mean + (1 - rate).pow(moves) * (start.mean - target.mean)
    return Gaussian(mean, decay * start.variance + 2 * delta * sums)


@checked
def ula_stationary(target: Gaussian, delta: Number) -> Gaussian:
    """The stationary distribution of ULA on N(m, c): N(m, c / (1 - delta / (2 c))) (E7).

    Raises ValueError unless 0 < delta < 2 c for the smallest c: beyond it there is none.
    Derivation: (langevin_law.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> target = dm.gaussian.Gaussian(torch.zeros(1), torch.tensor(1.0))
    >>> dm.langevin_law.ula_stationary(target, delta=0.1).variance
    tensor(1.0526)
    """
    limit = 2 * target.variance.min().item()
    require(0 < delta < limit, "delta", f"0 < delta < 2 min variance = {limit:g}", delta)
    return Gaussian(target.mean, target.variance / (1 - delta / (2 * target.variance)))


@checked
def baoab_stationary(target: Gaussian, h: Number) -> tuple[Gaussian, Gaussian]:
    """The stationary distributions of BAOAB's position and velocity on N(m, c), friction > 0.

        x ~ N(m, c),  exactly        v ~ N(0, 1 - h^2 / (4 c)),  independent of x

    Raises ValueError unless 0 < h < 2 sqrt(c) for the smallest c: beyond it there is none.
    Derivation: (langevin_law.7).
    Source: Leimkuhler and Matthews (2013), Applied Mathematics Research eXpress 2013(1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> target = dm.gaussian.Gaussian(torch.zeros(1), torch.tensor(1.0))
    >>> position, velocity = dm.langevin_law.baoab_stationary(target, h=1.0)
    >>> position.variance, velocity.variance
    (tensor(1.), tensor(0.7500))
    """
    limit = 2 * math.sqrt(target.variance.min().item())
    require(0 < h < limit, "h", f"0 < h < 2 min standard deviation = {limit:g}", h)
    velocity = Gaussian(torch.zeros_like(target.mean), 1 - h * h / (4 * target.variance))
    return target, velocity
