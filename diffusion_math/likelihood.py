"""Exact log-likelihood of a diffusion model, by its probability flow ODE.

Every schedule is rectified flow after a change of scale and of time:

    u = x_t / (alpha_t + sigma_t) = (1 - tau) x_0 + tau eps,    tau = sigma_t / (alpha_t + sigma_t)

The probability flow is then du/dtau = eps - x0_hat: finite from clean data (tau = 0) to pure
noise (tau = 1, alpha_t = 0), the same equation for every schedule. The density changes as

    d log p(u) / dtau = -div(eps - x0_hat),    log p(x_t) = log p(u) - D log(alpha_t + sigma_t)

Derivation: (likelihood.1), (likelihood.3), (likelihood.4).
Sources: Song et al. (arXiv:2011.13456) section 4.3 and appendix D.2; u and tau, rectified flow
(arXiv:2209.03003) eq. 1 with time running from data to noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.checks import Number, between, checked, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule
from diffusion_math.score_matching import Score, divergence


@final
@checked
@dataclass(frozen=True, eq=False)
class FlowDensity:
    """log_density: (batch,) log p(x_s) in nats. end: (batch, *event), the flow's x_t from x_s.
    evaluations: the number of function evaluations (NFE).

    >>> import torch
    >>> import diffusion_math as dm
    >>> log_density = torch.tensor([-1.2], dtype=torch.float64)
    >>> found = dm.likelihood.FlowDensity(log_density, torch.zeros(1, 2), evaluations=60)
    >>> found.log_density, found.evaluations
    (tensor([-1.2000], dtype=torch.float64), 60)
    """

    log_density: Float64[Tensor, " batch"]
    end: Float[Tensor, "batch *event"]
    evaluations: int


@checked
def flow_log_density(
    schedule: Schedule,
    denoise: Denoiser,
    x_s: Float[Tensor, "batch *event"],
    log_prior: Callable[[Tensor], Tensor],
    s: Number | None = None,
    t: Number | None = None,
    probes: Float[Tensor, "probes batch *event"] | None = None,
    rtol: Number = 1e-8,
    atol: Number = 1e-8,
) -> FlowDensity:
    """log p(x_s) of the model whose x_t has the density `log_prior` and flows back to s.

        log p(x_s) = log_prior(x_t) + integral of div(eps - x0_hat) dtau
                     + D log((alpha_t + sigma_t) / (alpha_s + sigma_s))

    Integrated by scipy's DOP853 in float64; the denoiser is evaluated in x_s's dtype and device.

    Args:
        x_s: `(batch, *event)`, data with the noise of time s.
        log_prior: `(batch, *event) -> (batch,)`, the log-density of x_t at time t, in float64.
        s: a time > 0, by default `schedule.t_min`; t: s < t <= T, by default T.
        probes: for Hutchinson's estimate of the divergence, the same at all times; the integral
            is unbiased too. The default is the exact divergence, by D backward passes. See
            `score_matching.divergence`.
        rtol, atol: DOP853's, in [1e-13, 1], on u and on the integral, as a root mean square over
            the batch, whose rows share the step sizes.

    Raises:
        ValueError: the times or tolerances are not as above, or the denoiser returns NaN or inf.
        RuntimeError: the integrator failed.

    Derivation: (likelihood.5).
    Source: Song et al. (arXiv:2011.13456) appendix D.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, x = dm.RectifiedFlow(), torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    >>> data = dm.GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.tensor([0.25]))
    >>> prior, denoise = lambda z: data.log_density(schedule, z, 1.0), data.denoiser(schedule)
    >>> found = dm.likelihood.flow_log_density(schedule, denoise, x, prior, rtol=1e-6, atol=1e-6)
    >>> found.log_density, data.log_density(schedule, x, schedule.t_min)
    (tensor([-1.0307], dtype=torch.float64), tensor([-1.0307], dtype=torch.float64))
    """
    from scipy.integrate import solve_ivp  # costs more to import than all of this package

    s = schedule.t_min if s is None else float(s)
    t = schedule.T if t is None else float(t)
    require(0 < s < t <= schedule.T, "s, t", f"0 < s < t <= T = {schedule.T:g}", (s, t))
    between("rtol", rtol, 1e-13, 1)
    between("atol", atol, 1e-13, 1)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(s), schedule(t)
    scale_s, scale_t = alpha_s + sigma_s, alpha_t + sigma_t
    shape, size = x_s.shape, x_s.numel()
    probes = None if probes is None else probes.to("cpu", torch.float64)

    def slope(tau: float, packed: NDArray[np.float64]) -> NDArray[np.float64]:
        u = torch.from_numpy(packed[:size]).reshape(shape)
        field = _straight_flow(schedule, denoise, tau, s, t, x_s)
        with torch.no_grad():
            both = torch.cat([field(u).flatten(), divergence(field, u, probes)])
        wanted = f"finite values and slopes at tau = {tau:g}"
        require(bool(both.isfinite().all()), "denoise", wanted, "NaN or inf")
        return both.numpy()

    u_s = x_s.detach().to("cpu", torch.float64) / scale_s
    start = torch.cat([u_s.flatten(), u_s.new_zeros(len(x_s))]).numpy()
    span = (float(sigma_s / scale_s), float(sigma_t / scale_t))
    if len(x_s) == 0:  # scipy has no root mean square of nothing
        return FlowDensity(u_s.new_zeros(0), x_s, 0)
    found = solve_ivp(slope, span, start, method="DOP853", rtol=rtol, atol=atol, t_eval=span[1:])
    if not found.success:
        raise RuntimeError(f"solve_ivp: {found.message}")
    last = torch.from_numpy(found.y[:, -1].copy())
    end = scale_t * last[:size].reshape(shape)
    stretch = math.prod(shape[1:]) * torch.log(scale_t / scale_s)
    prior = log_prior(end.to(x_s.device)).detach().to("cpu", torch.float64)
    return FlowDensity(prior + last[size:] + stretch, end.to(x_s), int(found.nfev))


def _straight_flow(
    schedule: Schedule, denoise: Denoiser, tau: float, s: float, t: float, x: Tensor
) -> Score:
    """u -> eps - x0_hat at tau, float64 on the CPU around a denoiser of x's dtype and device."""
    place = torch.tensor(tau, dtype=torch.float64, device="cpu")
    log_snr = 2 * (torch.log1p(-place) - place.log())
    # Rounding may carry tau past the ends, where the schedule has no time.
    time = schedule.time(log_snr.clamp(schedule.log_snr(t), schedule.log_snr(s)))
    alpha, sigma = schedule(time)

    def field(u: Tensor) -> Tensor:
        x_t = (alpha + sigma) * u
        x0_hat = denoise(x_t.to(x.device, x.dtype), time).to(u)
        return prediction.flow_from_x0(schedule, x_t, x0_hat, time)

    return field
