"""Denoisers E[x_0 | x_t] from networks of any prediction type."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from diffusion_math import checks
from diffusion_math import prediction as predict
from diffusion_math.checks import checked
from diffusion_math.schedule import Discrete, Schedule

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(x_t, t) -> x0_hat`: x_t `(batch, *event)`, t `()` or `(batch,)`, x0_hat like x_t."""

Network: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(x_t, time) -> prediction`: `time` is `(batch,)`, in the network's own time."""

_ToX0: TypeAlias = Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]


@checked
def network_time(schedule: Schedule, x_t: Tensor, t: Tensor) -> Tensor:
    """The time argument of a network trained under `schedule`, at schedule time `t`.

        t - 1 under a `Discrete` schedule (networks count the T betas from 0),  t otherwise

    Args:
        schedule: the schedule the network was trained under.
        x_t: `(batch, *event)`; its dtype is the network's.
        t: `()` or `(batch,)`.

    Returns:
        `(batch,)` on the device of `x_t`, float32 or wider: bfloat16 cannot hold the integer 999.

    Raises:
        ValueError: under a `Discrete` schedule some t < 1: clean data has no network time.

    Derivation: (denoiser.8).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.denoiser.network_time(dm.Discrete.linear(), torch.zeros(2, 3), torch.tensor(1000.0))
    tensor([999., 999.])
    """
    checks.scalar_or_batch("t", t, x_t)
    first = 1 if isinstance(schedule, Discrete) else 0
    if first:
        checks.all_between("t", t, first, schedule.T)
    dtype = torch.promote_types(x_t.dtype, torch.float32)
    if t.ndim == 0 and not t.requires_grad:  # a number is not copied to a device
        return x_t.new_full(x_t.shape[:1], t.item() - first, dtype=dtype)
    return (t - first).to(dtype).to(x_t.device).expand(x_t.shape[0])


@checked
def from_x0(network: Network, schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts the clean data itself.

        x0_hat = f(x_t, time)

    Args:
        network: `(x_t, time) -> x0`, with `time` from `network_time`.
        schedule: the schedule the network was trained under.

    Derivation: (denoiser.3).

    >>> import torch
    >>> import diffusion_math as dm
    >>> denoise = dm.from_x0(lambda x_t, time: torch.zeros_like(x_t), dm.VPLinear())
    >>> denoise(torch.ones(2, 3), torch.tensor(0.5))
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return _predicted(network, schedule, x_t, t)

    return denoise


@checked
def from_eps(network: Network, schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts the noise.

        x0_hat = (x_t - sigma_t eps(x_t, time)) / alpha_t

    Args:
        network: `(x_t, time) -> eps`, with `time` from `network_time`.
        schedule: the schedule the network was trained under.

    Derivation: (denoiser.4).
    Source: DDPM (arXiv:2006.11239), Eq. 15.

    >>> import torch
    >>> import diffusion_math as dm
    >>> network = lambda x_t, time: torch.zeros_like(x_t)  # your trained eps-network
    >>> denoise = dm.from_eps(network, dm.Discrete.scaled_linear())
    >>> denoise(torch.ones(1, 4), torch.tensor(500.0))
    tensor([[1.8977, 1.8977, 1.8977, 1.8977]])
    """
    return _through(predict.x0_from_eps, network, schedule)


@checked
def from_v(network: Network, schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts v = alpha_t eps - sigma_t x_0.

        x0_hat = alpha_t x_t - sigma_t v(x_t, time)        (where alpha_t^2 + sigma_t^2 = 1)

    Args:
        network: `(x_t, time) -> v`, with `time` from `network_time`.
        schedule: the schedule the network was trained under.

    Derivation: (denoiser.5).
    Source: Salimans and Ho (arXiv:2202.00512), Appendix D.

    >>> import torch
    >>> import diffusion_math as dm
    >>> network = lambda x_t, time: torch.zeros_like(x_t)  # your trained v-network
    >>> denoise = dm.from_v(network, dm.Discrete.scaled_linear())
    >>> denoise(torch.ones(1, 4), torch.tensor(500.0))
    tensor([[0.5269, 0.5269, 0.5269, 0.5269]])
    """
    return _through(predict.x0_from_v, network, schedule)


@checked
def from_score(network: Network, schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts the score: Tweedie's formula.

        x0_hat = (x_t + sigma_t^2 score(x_t, time)) / alpha_t

    Args:
        network: `(x_t, time) -> grad log q(x_t)`, with `time` from `network_time`.
        schedule: the schedule the network was trained under.

    Derivation: (denoiser.6).
    Source: Score SDE (arXiv:2011.13456), Appendix G; EDM (arXiv:2206.00364), Eq. 3.

    >>> import torch
    >>> import diffusion_math as dm
    >>> def score(x_t, time):  # of data N(0, I) under VE
    ...     return -x_t / (1 + time[:, None] ** 2)
    ...
    >>> dm.from_score(score, dm.VE())(torch.ones(1, 2), torch.tensor(3.0))
    tensor([[0.1000, 0.1000]])
    """
    return _through(predict.x0_from_score, network, schedule)


@checked
def from_flow(network: Network, schedule: Schedule) -> Denoiser:
    """The denoiser of a network that predicts rectified flow's velocity u = eps - x_0.

        x0_hat = x_t - t u(x_t, time)        (rectified flow: alpha_t = 1 - t, sigma_t = t)

    Args:
        network: `(x_t, time) -> u`, with `time` from `network_time`.
        schedule: the schedule the network was trained under.

    Derivation: (denoiser.7).
    Source: Rectified flow (arXiv:2209.03003), Eq. 1, with time running from data to noise.

    >>> import torch
    >>> import diffusion_math as dm
    >>> network = lambda x_t, time: x_t  # your trained velocity network
    >>> denoise = dm.from_flow(network, dm.RectifiedFlow())
    >>> denoise(torch.ones(1, 4), torch.tensor(0.25))
    tensor([[0.7500, 0.7500, 0.7500, 0.7500]])
    """
    return _through(predict.x0_from_flow, network, schedule)


def _through(to_x0: _ToX0, network: Network, schedule: Schedule) -> Denoiser:
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return to_x0(schedule, x_t, _predicted(network, schedule, x_t, t), t)

    return denoise


def _predicted(network: Network, schedule: Schedule, x_t: Tensor, t: Tensor) -> Tensor:
    prediction = network(x_t, network_time(schedule, x_t, t))
    checks.same_shape("the network's output", prediction, x_t)
    return prediction
