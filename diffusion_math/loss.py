"""Training losses of a network that predicts x0, eps, v, flow or score, and their weights.

A network is given x_t = alpha_t x_0 + sigma_t eps. An error e in x_0 is then an error
-(alpha_t / sigma_t) e in eps, and in y = a x_0 + b eps (the table of `prediction`) it is

    (a - b alpha_t / sigma_t) e,    of square    ((alpha_t b - sigma_t a) / sigma_t)^2 norm(e)^2

    x0: 1    eps: SNR    v: ((alpha^2 + sigma^2) / sigma)^2 (SNR + 1 where variance is preserved)
    flow: ((alpha + sigma) / sigma)^2    score: alpha^2 / sigma^4    with SNR = alpha^2 / sigma^2

So the losses of all targets are equal up to a weight (claims C17-C19). A weighting of the times is
given in one form for all of them: w(t) on norm(x_0 - x0_hat)^2. Derivation: (loss.1), (loss.2).
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math import elbo, gaussian
from diffusion_math import prediction as predict
from diffusion_math._batching import inner, wide
from diffusion_math.checks import Number, checked, require, same_shape, whole
from diffusion_math.denoiser import Network, network_time
from diffusion_math.schedule import (
    VE,
    Discrete,
    RectifiedFlow,
    Schedule,
    Time,
    VPCosine,
    VPLinear,
    shape_like,
)

Weight: TypeAlias = Callable[[Schedule, Time], Tensor]
"""`(schedule, t) -> w(t)`, float64 in t's shape: the weight on norm(x_0 - x0_hat)^2."""

_Weights = Float64[Tensor, "*time"]


@checked
def training_loss(
    schedule: Schedule,
    network: Network,
    prediction: str,
    x0: Float[Tensor, "batch *event"],
    eps: Float[Tensor, "batch *event"],
    t: Tensor,
    weight: Weight | None = None,
) -> Float[Tensor, " batch"]:
    """The training loss per example: the network's squared error, summed over the event.

        norm(y - y_theta(alpha_t x_0 + sigma_t eps, t))^2 w(t) / x0_weight(t),    y = a x_0 + b eps

    Args:
        network: `(x_t, time) -> y_theta`, with `time` from `network_time`: t - 1 if discrete.
        prediction: the network's prediction type: "x0", "eps", "v", "flow" or "score".
        x0: `(batch, *event)` clean data.
        eps: `(batch, *event)` standard normals.
        t: `()` or `(batch,)` times, as from `uniform_times`.
        weight: w(t), the weight on the squared error in x_0; default: `x0_weight`, that is 1 on the
            squared error in y. With "eps", the default is DDPM's simple loss.

    Raises:
        ValueError: shapes disagree; the prediction is unknown; the score at sigma_t = 0; t = 0 on a
            discrete schedule; with a weight, sigma_t = 0 or an x0_weight of 0.

    Derivation: (loss.3).
    Source: DDPM (arXiv:2006.11239), Algorithm 1 and Eq. 14.

    >>> import torch
    >>> import diffusion_math as dm
    >>> x0, eps, t = torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([10.0, 900.0])
    >>> layer, schedule = torch.nn.Linear(3, 3), dm.Discrete.linear()
    >>> losses = dm.training_loss(schedule, lambda x_t, time: layer(x_t), "eps", x0, eps, t)
    >>> losses.mean().backward()
    >>> losses.shape, layer.weight.grad.shape
    (torch.Size([2]), torch.Size([3, 3]))
    """
    same_shape("eps", eps, x0)
    x_t = gaussian.marginal(schedule, x0, t).sample(eps)
    predicted = network(x_t, network_time(schedule, x_t, t))
    same_shape("the network's output", predicted, x0)
    error = wide(predicted) - wide(predict.target(schedule, prediction, x0, eps, t))
    squared = inner(error, error)
    if weight is None:
        return squared
    factor = x0_weight(schedule, prediction, t)
    wanted = f"alpha_t > 0: x_t does not turn an error in {prediction} into one in x0"
    require(bool((factor > 0).all()), "t", wanted, t)
    return squared * shape_like(weight(schedule, t) / factor, squared)


@checked
def x0_weight(schedule: Schedule, prediction: str, t: Time) -> _Weights:
    """norm(y - y_hat)^2 / norm(x_0 - x0_hat)^2 at a given x_t: ((alpha b - sigma a) / sigma)^2.

    prediction: y = a x_0 + b eps, by its name: see `prediction.coefficients`. In t's shape.
    Raises ValueError where sigma_t = 0 (x_t then is x_0) and for an unknown prediction.
    Derivation: (loss.1).
    Source: Salimans & Ho (arXiv:2202.00512), section 4, for x0, eps and v.

    >>> import diffusion_math as dm
    >>> [dm.loss.x0_weight(dm.RectifiedFlow(), kind, 0.2).item() for kind in ("x0", "eps", "v")]
    [1.0, 16.0, 11.560000000000006]
    """
    alpha_t, sigma_t = schedule(t)
    require(bool((sigma_t > 0).all()), "t", "sigma_t > 0", t)
    a, b = predict.coefficients(schedule, prediction, t)
    return ((alpha_t * b - sigma_t * a) / sigma_t).square()


@checked
def uniform(schedule: Schedule, t: Time) -> _Weights:
    """w = 1: the squared error in x_0 itself. Derivation: (loss.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.loss.uniform(dm.VE(), torch.tensor([0.5, 1.0, 2.0]))
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    return torch.ones_like(schedule(t)[0])


@checked
def snr(schedule: Schedule, t: Time) -> _Weights:
    """w = SNR = alpha_t^2 / sigma_t^2: weight 1 on the error in eps, DDPM's simple loss (C19).

    Derivation: (loss.5).
    Source: DDPM (arXiv:2006.11239) eq. 14; Salimans & Ho (arXiv:2202.00512), section 4, "SNR".

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.loss.snr(dm.VE(), torch.tensor([0.5, 1.0, 2.0]))
    tensor([4.0000, 1.0000, 0.2500], dtype=torch.float64)
    """
    return schedule.log_snr(t).exp()


@checked
def truncated_snr(schedule: Schedule, t: Time) -> _Weights:
    """w = max(SNR, 1): the greater of the errors in eps and in x_0.

    Derivation: (loss.6).
    Source: Salimans & Ho (arXiv:2202.00512), section 4, "truncated SNR".

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.loss.truncated_snr(dm.VE(), torch.tensor([0.5, 1.0, 2.0]))
    tensor([4., 1., 1.], dtype=torch.float64)
    """
    return snr(schedule, t).clamp(min=1)


@checked
def snr_plus_one(schedule: Schedule, t: Time) -> _Weights:
    """w = SNR + 1: weight 1 on the error in v where alpha_t^2 + sigma_t^2 = 1.

    Derivation: (loss.7).
    Source: Salimans & Ho (arXiv:2202.00512), section 4, "SNR+1".

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.loss.snr_plus_one(dm.VE(), torch.tensor([0.5, 1.0, 2.0]))
    tensor([5.0000, 2.0000, 1.2500], dtype=torch.float64)
    """
    return snr(schedule, t) + 1


@checked
def min_snr(gamma: Number = 5.0) -> Weight:
    """w = min(SNR, gamma): gamma limits the weight near clean data.

    Raises ValueError unless 0 < gamma < inf. Source: Hang et al. (arXiv:2303.09556).
    Derivation: (loss.8).

    >>> import torch
    >>> import diffusion_math as dm
    >>> weight = dm.loss.min_snr(gamma=3.0)
    >>> weight(dm.VE(), torch.tensor([0.5, 1.0, 2.0]))
    tensor([3.0000, 1.0000, 0.2500], dtype=torch.float64)
    """
    require(0 < gamma < math.inf, "gamma", "a positive finite number", gamma)

    def weight(schedule: Schedule, t: Time) -> Tensor:
        return snr(schedule, t).clamp(max=gamma)

    return weight


@checked
def variational(schedule: Schedule, t: Time) -> _Weights:
    """The variational bound's w(t), in nats.

        discrete:      lambda_t SNR, with `elbo.lambda_t` at its default variance, beta_t (C18)
        continuous:    -dSNR/dt / 2 = alpha_t (alpha_t sigma_t' - sigma_t alpha_t') / sigma_t^3

    The discrete loss summed over t = 1..T is the bound up to a constant, and the continuous one
    integrated over t is its limit of short steps. Raises ValueError where sigma_t = 0, at
    fractional times of a discrete schedule, and for other schedule classes than this package's.
    Derivation: (loss.9), (loss.10).
    Source: DDPM (arXiv:2006.11239) eq. 12; VDM (arXiv:2107.00630), the continuous-time loss.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.loss.variational(dm.VE(), torch.tensor([0.5, 1.0, 2.0]))
    tensor([8.0000, 1.0000, 0.1250], dtype=torch.float64)
    """
    alpha_t, sigma_t = schedule(t)
    require(bool((sigma_t > 0).all()), "t", "sigma_t > 0", t)
    if isinstance(schedule, Discrete):
        return elbo.lambda_t(schedule, t) * snr(schedule, t)
    return alpha_t * _area_rate(schedule, t) / sigma_t.pow(3)


WEIGHTS: dict[str, Weight] = {
    "uniform": uniform,
    "snr": snr,
    "truncated_snr": truncated_snr,
    "snr_plus_one": snr_plus_one,
    "min_snr": min_snr(),
    "variational": variational,
}
"""Every weight by name, at its default settings."""


@checked
def uniform_times(
    schedule: Schedule, generator: torch.Generator, batch: int
) -> Float64[Tensor, " batch"]:
    """Independent times: uniform on {1, ..., T} if discrete (C19, E5), else on [t_min, t_max].

    On the CPU, from a CPU generator. Raises ValueError unless batch >= 0.
    Derivation: (loss.12).
    Source: DDPM (arXiv:2006.11239), Algorithm 1.

    >>> import torch
    >>> import diffusion_math as dm
    >>> t = dm.loss.uniform_times(dm.Discrete.linear(), torch.Generator().manual_seed(0), 10_000)
    >>> t.min(), t.max()
    (tensor(1., dtype=torch.float64), tensor(1000., dtype=torch.float64))
    """
    whole("batch", batch, 0)
    if isinstance(schedule, Discrete):
        samples = torch.randint(
            1, len(schedule.betas) + 1, (batch,), generator=generator, device="cpu"
        )
        return samples.double()
    return _spread(
        schedule, torch.rand(batch, generator=generator, dtype=torch.float64, device="cpu")
    )


@checked
def stratified_times(
    schedule: Schedule, generator: torch.Generator, batch: int
) -> Float64[Tensor, " batch"]:
    """Low-discrepancy times: each uniform as in `uniform_times`, the batch evenly spaced.

        u_i = (u + i / batch) mod 1    on [0, 1), then on {1, ..., T} or [t_min, t_max]

    On the CPU, from a CPU generator. Raises ValueError unless batch >= 1.
    Derivation: (loss.13).
    Source: VDM (arXiv:2107.00630), appendix, "low-discrepancy sampler".

    >>> import torch
    >>> import diffusion_math as dm
    >>> t = dm.loss.stratified_times(dm.VPLinear(), torch.Generator().manual_seed(0), 4)
    >>> (4 * t).floor().sort().values
    tensor([0., 1., 2., 3.], dtype=torch.float64)
    """
    whole("batch", batch, 1)
    u = torch.rand((), generator=generator, dtype=torch.float64, device="cpu")
    return _spread(
        schedule, (u + torch.arange(batch, dtype=torch.float64, device="cpu") / batch) % 1
    )


def _spread(schedule: Schedule, u: Tensor) -> Tensor:
    """Uniforms on [0, 1) as times."""
    if isinstance(schedule, Discrete):
        return 1 + (u * len(schedule.betas)).floor()
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64, device="cpu")
    return torch.lerp(ends[0], ends[1], u)


def _area_rate(schedule: Schedule, t: Time) -> Tensor:
    """alpha sigma' - sigma alpha', twice the area that (alpha_t, sigma_t) sweeps in unit time.

    Derivation: (loss.11).
    """
    alpha_t, sigma_t = schedule(t)
    match schedule:
        case VPLinear(
            beta_min=low, beta_max=high
        ):  # alpha' = -beta alpha / 2, alpha^2 + sigma^2 = 1
            beta = low + torch.as_tensor(t, dtype=torch.float64, device="cpu") * (high - low)
            return beta * alpha_t / (2 * sigma_t)
        case VPCosine():
            return torch.full_like(alpha_t, math.pi / 2)
        case VE() | RectifiedFlow():
            return torch.ones_like(alpha_t)
        case _:
            kinds = "Discrete, VPLinear, VPCosine, VE or RectifiedFlow"
            raise ValueError(f"schedule: wanted {kinds}, got {schedule}")
