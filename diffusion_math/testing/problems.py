"""Data of which everything is known: a point, a Gaussian, a mixture with its exact flow."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import RectifiedFlow, Schedule, shape_like

__all__ = ["GAUSSIAN", "MIXTURE", "POINT", "flow", "flow_at", "point_denoiser", "starts"]

FIRST, LAST = 1.0, 1e-4
"""The straight chart's tau where the exact flow begins and ends: pure noise, nearly data."""


def _f64(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


POINT = _f64(0.7, -0.4)
"""Data without spread: x_0 is always this."""

GAUSSIAN = GaussianMixture(_f64(0.0), _f64([0.7, -0.4, 0.2]), _f64([0.1, 0.5, 1.4]))
"""Three independent normals: on it every sampler is affine."""

MIXTURE = GaussianMixture(
    _f64(0.2, 0.5, 0.3).log(), _f64([-1, 0.5], [1, 1], [0.3, -1.2]), _f64(0.3, 0.2, 0.4)
)
"""Three round components of the plane, near enough for the flow to be smooth."""


def point_denoiser(x: Tensor, t: Tensor) -> Tensor:
    """E[x_0 | x_t] of `POINT`, whatever x_t, in the dtype of x_t."""
    return POINT.to(x).expand_as(x).clone()


def starts(count: int = 16) -> Tensor:
    """Standard normals of the plane, the same at every call."""
    samples = np.random.Generator(np.random.Philox(key=5)).standard_normal((count, 2))
    return torch.from_numpy(samples)


@cache
def _solution(count: int) -> object:
    """u(tau) of the mixture's flow from pure noise; rtol 1e-11, 7th-order between its steps."""
    from scipy.integrate import solve_ivp

    straight = RectifiedFlow()

    def slope(tau: float, packed: np.ndarray) -> np.ndarray:
        u, t = torch.from_numpy(packed).reshape(count, 2), _f64(tau)[0]
        x0 = MIXTURE.posterior_mean(straight, u, t)
        return prediction.flow_from_x0(straight, u, x0, t).flatten().numpy()

    first = starts(count).flatten().numpy()
    found = solve_ivp(
        slope,
        (FIRST, LAST),
        first,
        method="DOP853",
        rtol=1e-11,
        atol=1e-12,
        max_step=0.05,
        dense_output=True,
    )
    return found.sol


def flow(schedule: Schedule, times: Tensor, count: int = 16) -> Tensor:
    """Where the exact flow of `MIXTURE` from `starts` is at the times: `(times, count, 2)`.

    In the straight chart u = x / (alpha + sigma), tau = sigma / (alpha + sigma) there is one flow
    for every schedule, solved once by an eighth-order method to about 1e-10.
    Raises ValueError for times whose tau is below 1e-4.
    """
    return flow_at(*schedule(times), count)


def flow_at(alpha: Tensor, sigma: Tensor, count: int = 16) -> Tensor:
    """The same at levels `(times,)`; ValueError as for `flow`."""
    scale = alpha + sigma
    tau = sigma / scale
    if bool((tau < LAST).any()):
        raise ValueError(f"times: wanted tau of at least {LAST:g}, got {float(tau.min()):g}")
    solution = _solution(count)
    u = torch.from_numpy(solution(tau.numpy()).T).reshape(-1, count, 2)  # type: ignore[operator]
    return shape_like(scale, u) * u
