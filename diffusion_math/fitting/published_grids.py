"""Published time grids: Align Your Steps and error-weighted grids, functions of the schedule.

Both end at 0, after a last noise level above it.
"""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math.checks import Number, between, checked, require, whole
from diffusion_math.fitting.grids import grid_of_logits, logits_of_grid
from diffusion_math.grid import uniform_log_snr
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.exponential import weights

__all__ = ["ALIGNED", "align_your_steps", "error_weighted", "weighted_error"]

ALIGNED: dict[str, tuple[float, ...]] = {
    "sd15": (
        14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
        0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582,
    ),
    "sdxl": (
        14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
        0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
    ),
}  # fmt: skip
"""Align Your Steps' noise levels sigma / alpha for ten steps of Stable Diffusion 1.5 and XL, as
released with arXiv:2404.14507."""


@checked
def align_your_steps(
    schedule: Schedule, steps: int, model: str = "sd15"
) -> Float64[Tensor, " nodes"]:
    """Align Your Steps: the published noise levels, interpolated log-linearly to `steps` steps.

        r_i = exp(the piecewise linear function through (k / 10, log r_k) at i / steps),  i < steps

    and then 0, which replaces the last level, as in the authors' instructions.

    Args:
        schedule: sampling starts at the noise level r_0 = 14.6, or at t_max if the schedule has
        less
            noise. At r_0 below t_max, start from an x_t of that level.
        steps: 1 or more; 10 gives the published levels.
        model: "sd15" or "sdxl".

    Raises:
        ValueError: another model, or fewer steps; a schedule whose t_max has less noise than the
            inner published levels.

    Derivation: (published_grids.1).
    Source: Sabour et al. (arXiv:2404.14507): the released schedules and their interpolation.

    >>> import diffusion_math as dm
    >>> dm.fitting.align_your_steps(dm.Discrete.scaled_linear(), steps=10).round()
    tensor([1000.,  851.,  737.,  646.,  546.,  456.,  344.,  234.,  125.,   25.,
               0.], dtype=torch.float64)
    """
    require(model in ALIGNED, "model", f"one of {', '.join(ALIGNED)}", repr(model))
    whole("steps", steps, 1)
    logs = torch.tensor(ALIGNED[model], dtype=torch.float64, device="cpu").log()
    place = torch.arange(steps, dtype=torch.float64, device="cpu") * (len(logs) - 1) / steps
    node = place.floor().long()
    levels = logs[node] + (place - node) * (logs[node + 1] - logs[node])
    inner = schedule.time(-2 * levels[1:])
    # Released with 12 digits: Stable Diffusion's own table begins with the first level.
    first, noisiest = -2 * levels[:1], schedule.log_snr(schedule.t_max)
    start = schedule.time(first) if first > noisiest + 1e-9 else inner.new_tensor([schedule.t_max])
    return torch.cat([start, inner, inner.new_zeros(1)])


@checked
def error_weighted(
    schedule: Schedule, steps: int, order: int = 3, power: Number = 2
) -> Float64[Tensor, " nodes"]:
    """The grid that minimises the network errors that reach the sample, by `weighted_error`.

    The minimisation starts at `uniform_log_snr` and moves the nodes between T and t_min; 0 follows.
    The objective has absolute values and many local minima; the result is one of them.

    Args:
        steps: 1 or more; with fewer than three nodes in [t_min, t_max] the grid is unchanged.
        order, power: as in `weighted_error`.

    Derivation: (published_grids.2).
    Source: Xue et al. (arXiv:2402.17376), section 4, by another method of minimisation.

    >>> import diffusion_math as dm
    >>> dm.fitting.error_weighted(dm.Discrete.scaled_linear(), steps=3).round()
    tensor([1000.,  244.,    1.,    0.], dtype=torch.float64)
    """
    from scipy.optimize import minimize

    nodes = uniform_log_snr(schedule, steps)
    finite = (nodes >= schedule.t_min) & (nodes <= schedule.t_max)
    grid = nodes[finite]
    if len(grid) < 3:
        return nodes

    def moved(theta: Any) -> Tensor:
        return grid_of_logits(
            schedule, grid, torch.as_tensor(theta, dtype=torch.float64, device="cpu")
        )

    found = minimize(
        lambda theta: weighted_error(schedule, moved(theta), order, power),
        logits_of_grid(schedule, grid).numpy(),
        method="L-BFGS-B",
    )
    nodes[finite] = moved(found.x)
    return nodes


@checked
def weighted_error(
    schedule: Schedule, grid: Float64[Tensor, " nodes"], order: int = 3, power: Number = 2
) -> float:
    """The effect of errors of x0 of size sigma^p / alpha at the last node of a grid above 0.

        sum_i |c_i| sigma_i^p / alpha_i,    x_N / sigma_N = x_0 / sigma_0 + sum_i c_i x0_i

    The c_i are those of exponential Adams-Bashforth in x0, its order rising from 1 at the first
    step and falling to 1 at the last: min(order, n + 1, N - n) at step n.

    Args:
        grid: strictly decreasing, with finite log-SNR.
        order: the largest number of predictions that a step interpolates, 1 or more.
        power: p, 2 for latents and 1 for pixels by the source.

    Derivation: (published_grids.2), (published_grids.3).
    Source: Xue et al. (arXiv:2402.17376), section 4.
    """
    whole("order", order, 1, 4)
    between("power", power, 0, 4)
    lam = schedule.log_snr(grid) / 2
    alphas, sigmas = schedule(grid)
    steps = len(grid) - 1
    total = torch.zeros(steps, dtype=torch.float64, device="cpu")
    for n in range(steps):
        some = range(n + 1 - min(order, n + 1, steps - n), n + 1)
        here = weights([lam[i] for i in some], lam[n], lam[n + 1], 1.0)
        total[some.start : some.stop] += lam[n + 1].exp() * here
    errors = sigmas[:-1] ** power / alphas[:-1]
    return float((total.abs() * errors).sum())
