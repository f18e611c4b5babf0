"""Adams-Bashforth solvers LMS and PLMS: eps extrapolated in r = sigma / alpha or in time.

The probability flow is dy/dr = eps with y = x / alpha. Each step adds to y_t a quadrature of eps
from r_t to r_s through earlier predictions. In terms of x it is the map

    x_s = (alpha_s / alpha_t) x_t + (sigma_s - alpha_s sigma_t / alpha_t) eps'

at a weighted mean eps'. Steps out of or into pure noise (r infinite) and into s = 0 are Euler
steps, alpha_s x0 + sigma_s eps. Derivation: (adams.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math._batching import combined
from diffusion_math._kept import kept
from diffusion_math.checks import checked, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, Time
from diffusion_math.solvers.exponential import Level, stages
from diffusion_math.solvers.one_step import euler
from diffusion_math.solvers.step import State, Step

PLMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Adams-Bashforth on equal steps, the latest prediction first: (adams.3)."""
SIMPSON = (1 / 6, 2 / 6, 2 / 6, 1 / 6)
"""Of the slopes at the start, twice the middle, and the end: (adams.4)."""


@checked
def lms(schedule: Schedule, order: int = 4) -> Step:
    """LMS: Adams-Bashforth in r = sigma / alpha on uneven nodes, as in k-diffusion.

        y_s = y_t + sum_j eps_j integral from r_t to r_s of L_j(r) dr

    with L_j the Lagrange polynomials of the last `order` nodes. One function evaluation per
    step. First steps with too few earlier nodes for order - 1 use `exponential.stages` of that
    order; lower-order first steps would limit the whole to order 2.

    Raises ValueError for an order outside 1..4.
    Derivation: (adams.2).
    Source: Crowson, k-diffusion (`sample_lms`); Adams-Bashforth: Hairer, Norsett & Wanner 1993,
    "Solving Ordinary Differential Equations I", section III.5 (variable steps).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.uniform_log_snr(schedule, steps=20)
    >>> dm.final(dm.solvers.lms(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.5286, 1.2298]])
    """
    whole("order", order, 1, 4)

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        across = _map(schedule, t, s)
        if across is None:
            return euler(schedule)(denoise, state, t, s, noise)
        x0 = denoise(state.x, t)
        past = (*state.history, (t, prediction.eps_from_x0(schedule, state.x, x0, t)))[-order:]
        if len(past) < order - 1:
            target = Level.at(schedule, s)
            x_s = stages(schedule, order - 1, "eps", denoise, state.x, t, target, x0)
            return State(x_s, s, past)
        shares = _shares(schedule, s, *(time for time, _ in past))
        return State(_moved(across, state.x, shares, [eps for _, eps in past]), s, past)

    return step


@kept
def _shares(schedule: Schedule, s: Time, *times: Time) -> tuple[float, ...]:
    """The shares of the eps at `times`, the last of which is t, in the mean slope from t to s."""
    *r, there = (float(torch.exp(-schedule.log_snr(time) / 2)) for time in (*times, s))
    xi = torch.tensor(
        [(one - r[-1]) / (there - r[-1]) for one in r], dtype=torch.float64, device="cpu"
    )
    powers = torch.arange(len(r), dtype=torch.float64, device="cpu")
    solved: list[float] = torch.linalg.solve(xi ** powers[:, None], 1 / (powers + 1)).tolist()
    return tuple(solved)


@checked
def plms(schedule: Schedule, runge_kutta: bool = False) -> Step:
    """PLMS: the map above at the Adams-Bashforth mean of equal steps in t.

        eps' = (55 eps_t - 59 eps_{t+1} + 37 eps_{t+2} - 9 eps_{t+3}) / 24

    The order is 2, lower than the coefficients' own, as the steps are not equal in r. One function
    evaluation per step. The start is one Heun step (two evaluations) or, with `runge_kutta`, three
    pseudo Runge-Kutta steps (four evaluations each), by Simpson's rule on the map.

    Derivation: (adams.3), (adams.4).
    Source: PNDM (arXiv:2202.09778), eqs. 12-13 and algorithm 2 (`runge_kutta`); its start without:
    Rombach et al. (arXiv:2112.10752) as released.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.Discrete.scaled_linear(), dm.DENSITIES["ring"]()
    >>> x, grid = torch.tensor([[1.0, 0.5]]), dm.leading(schedule, steps=50)
    >>> dm.final(dm.solvers.plms(schedule), data.denoiser(schedule), x, grid)
    tensor([[1.5168, 1.2665]])
    """

    def step(denoise: Denoiser, state: State, t: Tensor, s: Tensor, noise: Noise) -> State:
        across = _map(schedule, t, s)
        if across is None:
            return euler(schedule)(denoise, state, t, s, noise)
        first = _eps(schedule, denoise, state.x, t)
        past = (*state.history, (t, first))[-4:]

        def at(time: Tensor, eps: Tensor) -> Tensor:
            moved = _moved(_map(schedule, t, time), state.x, (1.0,), [eps])
            return _eps(schedule, denoise, moved, time)

        shares: tuple[float, ...] = PLMS[len(past) - 1][::-1]
        slopes = [eps for _, eps in past]
        if runge_kutta and len(past) < 4:
            middle = (t + s) / 2
            second = at(middle, first)
            third = at(middle, second)
            shares, slopes = SIMPSON, [first, second, third, at(s, third)]
        elif len(past) == 1:
            shares, slopes = (1 / 2, 1 / 2), [first, at(s, first)]
        return State(_moved(across, state.x, shares, slopes), s, past)

    return step


def _eps(schedule: Schedule, denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    return prediction.eps_from_x0(schedule, x, denoise(x, t), t)


def _moved(
    across: tuple[float, float] | None, x: Tensor, shares: Sequence[float], slopes: Sequence[Tensor]
) -> Tensor:
    """The module's map at eps' = sum_j share_j eps_j."""
    assert across is not None  # for the type checker: between the ends of a step it is as at them
    of_x, of_eps = across
    weights = [of_eps * share for share in shares]
    return combined((of_x, x), *zip(weights, slopes, strict=True))


@kept
def _map(schedule: Schedule, t: Time, s: Time) -> tuple[float, float] | None:
    """The coefficients of x_t and eps' in the module's map, or None where it does not exist."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    if alpha_t == 0 or alpha_s == 0 or sigma_s == 0:
        return None
    return float(alpha_s / alpha_t), float(sigma_s - alpha_s * sigma_t / alpha_t)
