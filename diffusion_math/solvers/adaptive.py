"""Adaptive step sizes: an embedded Runge-Kutta pair with error control for each sample.

The flow is solved in the coordinates of rectified flow, as in `likelihood`: u = x / (alpha + sigma)
against tau = sigma / (alpha + sigma), where du/dtau = eps - x0 is finite from pure noise (tau = 1)
to clean data. The equation is the same for every schedule. Derivation: (adaptive.1).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math._batching import inner, wide
from diffusion_math.checks import Number, between, checked, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, shape_like
from diffusion_math.solvers.step import State, Step

Slope = Callable[[Tensor, Tensor], Tensor]


@checked
def bogacki_shampine(
    schedule: Schedule, rtol: Number = 1e-3, atol: Number = 1e-3, most: int = 10_000
) -> Step:
    """From t to s with Bogacki and Shampine's 3(2) pair, with as many steps as needed.

        error = sqrt(mean(((u_3 - u_2) / (atol + rtol max(|u|, |u_3|)))^2)) <= 1
        next size = size clamp(0.9 error^{-1/3}, 0.2, 5),    the first (s - t) / 16

    Each sample has its own step sizes, so it does not depend on its batch. The denoiser is
    evaluated three times per step, with one time for each row. A step into s = 0 returns x0: with
    the grid [T, t_min, 0] the flow is solved to t_min.

    Args:
        rtol, atol: relative and absolute tolerance of one step on u, in [1e-12, 1].
        most: the largest number of steps, rejected ones included; RuntimeError beyond it.

    Raises:
        ValueError: an argument is not as above.

    Derivation: (adaptive.1), (adaptive.2), (adaptive.4).
    Source: Bogacki & Shampine 1989, "A 3(2) pair of Runge-Kutta formulas", Appl. Math. Lett. 2;
    the size: Hairer, Norsett & Wanner 1993, section II.4.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> step = dm.solvers.bogacki_shampine(schedule, rtol=1e-4, atol=1e-4)
    >>> grid = torch.tensor([1.0, 1e-3, 0.0], dtype=torch.float64)
    >>> dm.final(step, data.denoiser(schedule), torch.tensor([[1.0, 0.5]]), grid)
    tensor([[1.5281, 1.2513]])
    """
    between("rtol", rtol, 1e-12, 1)
    between("atol", atol, 1e-12, 1)
    whole("most", most, 1)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        if schedule(s)[1] == 0:
            return State(denoise(state.x, t), s)
        slope = _slope(schedule, denoise, state.x, t, s)
        u = wide(state.x) / shape_like(_sum(schedule, t), wide(state.x))
        u = _solve(slope, u, _place(schedule, t), _place(schedule, s), rtol, atol, most)
        return State((u * shape_like(_sum(schedule, s), u)).to(state.x), s)

    return step


def _solve(
    slope: Slope, u: Tensor, start: Tensor, stop: Tensor, rtol: Number, atol: Number, most: int
) -> Tensor:
    """u at `stop` of du/dtau = slope(u, tau) from u at `start`, each row with its own steps."""
    place = start.expand(len(u)).clone()
    size = (stop - start).expand(len(u)).clone() / 16
    first = slope(u, place)
    entries = math.prod(u.shape[1:])
    for _ in range(most):
        left = stop - place
        ends = size.abs() >= left.abs()
        size = torch.where(ends, left, size)
        h = shape_like(size, u)
        second = slope(u + h / 2 * first, place + size / 2)
        third = slope(u + 3 * h / 4 * second, place + 3 * size / 4)
        there = torch.where(ends, stop, place + size)
        u_3 = u + h * (2 * first + 3 * second + 4 * third) / 9
        fourth = slope(u_3, there)
        off = h * (-5 * first / 72 + second / 12 + third / 9 - fourth / 8)
        scaled = (off / (atol + rtol * torch.maximum(u.abs(), u_3.abs()))).detach()
        error = (inner(scaled, scaled) / entries).sqrt().to("cpu", torch.float64)
        good = (error <= 1) & (left != 0)
        taken = good.reshape(-1, *(1,) * (u.ndim - 1)).to(u.device)
        u, first = torch.where(taken, u_3, u), torch.where(taken, fourth, first)
        place = torch.where(good, there, place)
        size = size * (0.9 * error.clamp(min=1e-12) ** (-1 / 3)).clamp(0.2, 5)
        if bool((place == stop).all()):
            return u
    raise RuntimeError(f"most: the tolerances need more than {most} steps")


def _slope(schedule: Schedule, denoise: Denoiser, like: Tensor, t: Tensor, s: Tensor) -> Slope:
    """(u, tau of each row) -> eps - x0, between t and s; the denoiser gets like's dtype."""
    low, high = torch.stack([schedule.log_snr(t), schedule.log_snr(s)]).aminmax()

    def slope(u: Tensor, place: Tensor) -> Tensor:
        time = schedule.time((2 * (torch.log1p(-place) - place.log())).clamp(low, high))
        x = u * shape_like(_sum(schedule, time), u)
        return prediction.flow_from_x0(schedule, x, denoise(x.to(like), time).to(x), time)

    return slope


def _sum(schedule: Schedule, t: Tensor) -> Tensor:
    alpha_t, sigma_t = schedule(t)
    return alpha_t + sigma_t


def _place(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule(t)[1] / _sum(schedule, t)
