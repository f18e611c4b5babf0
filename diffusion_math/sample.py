"""The one loop over time that every sampler in this project runs."""

from collections.abc import Iterator
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from diffusion_math import checks
from diffusion_math._made_on import require_one_schedule
from diffusion_math.checks import checked
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise, required
from diffusion_math.solvers.step import State, Step


@checked
def trajectory(
    step: Step,
    denoise: Denoiser,
    x: Float[Tensor, "batch *event"],
    grid: Float[Tensor, " nodes"],
    noise: Noise = required,
) -> Iterator[State]:
    """Sample from `x` along the grid, one solver step between neighbouring nodes.

        x_{t_{i+1}} = step(denoise, x_{t_i}, t_i, t_{i+1}, noise)        i = 0 .. nodes - 2

    The iterator is lazy: each state is computed when it is requested. `final` returns the last x
    alone. A solver sees the two ends of its step and its own `State.history`, not the grid.

    Args:
        step: a solver bound to its schedule, such as `ddim(schedule)`.
        denoise: `(x_t, t) -> E[x_0 | x_t]`.
        x: `(batch, *event)`, a sample of x_t at `grid[0]`; the batch may be empty.
        grid: `(nodes,)` strictly decreasing times; sampling ends at the last.
        noise: the source of the steps' normals; a deterministic solver needs none.

    Returns:
        An iterator of `nodes` states: the start itself, then the state after each step.

    Raises:
        ValueError: immediately, when `grid` is no strictly decreasing 1-D tensor, or `step` and
            `denoise` were made on schedules whose noise levels on it differ (what is not made by
            this package is not checked); at the first step of a stochastic solver, without `noise`.

    Derivation: (sample.1).
    Source: DDPM (arXiv:2006.11239), Algorithm 2, with the step left open.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x = dm.start_noise(seeds=range(8), shape=(2,), dtype=torch.float64)
    >>> grid = dm.uniform_log_snr(schedule, steps=10)
    >>> states = list(dm.trajectory(dm.dpmpp_2m(schedule), data.denoiser(schedule), x, grid))
    >>> len(states), states[-1].x.norm(dim=1)
    (11, tensor([2.1305, 2.0653, 2.2175, 2.0523, 2.0540, 2.3287, 2.0793, 2.1353],
           dtype=torch.float64))
    """
    checks.strictly_decreasing("grid", grid)
    require_one_schedule(step, denoise, grid)
    return _states(step, denoise, x, grid, noise)


@checked
def final(
    step: Step,
    denoise: Denoiser,
    x: Float[Tensor, "batch *event"],
    grid: Float[Tensor, " nodes"],
    noise: Noise = required,
) -> Float[Tensor, "batch *event"]:
    """The final x of a `trajectory`, at `grid[-1]`; earlier states are not stored.

    Arguments and errors are those of `trajectory`.

    Derivation: (sample.1).
    Source: DDPM (arXiv:2006.11239), Algorithm 2, with the step left open.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, data = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> x, noise = dm.start_noise(range(4), (2,), torch.float64), dm.from_seeds(range(4))
    >>> grid = dm.trailing(schedule, steps=50)
    >>> x0 = dm.final(dm.ddpm(schedule), data.denoiser(schedule), x, grid, noise)
    >>> x0.norm(dim=1)
    tensor([1.7486, 2.1324, 1.9368, 2.2664], dtype=torch.float64)
    """
    for state in trajectory(step, denoise, x, grid, noise):
        x = state.x
    return x


@checked
def inversion(
    step: Step,
    denoise: Denoiser,
    x: Float[Tensor, "batch *event"],
    grid: Float[Tensor, " nodes"],
) -> Iterator[State]:
    """Integrate the flow from data to noise: along the grid from its last node to its first.

    Deterministic solvers run in both directions; with `ddim` this is DDIM inversion. `trajectory`
    on the same grid leads back, up to both discretisation errors.

    Args:
        step: a deterministic solver's step.
        denoise: `(x_t, t) -> E[x_0 | x_t]`.
        x: `(batch, *event)` at `grid[-1]`.
        grid: `(nodes,)` strictly decreasing times as for `trajectory`, the last above 0: the slope
            of the flow is not defined on clean data.

    Returns:
        An iterator of `nodes` states: the start itself, then the state after each step.

    Raises:
        ValueError: immediately, when `grid` is no strictly decreasing 1-D tensor that ends above 0,
            and for two schedules as `trajectory`; at the first step, for a stochastic solver.

    Derivation: (sample.4).
    Source: DDIM (arXiv:2010.02502), section 4.3.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule = dm.VPLinear()
    >>> denoise = dm.DENSITIES["ring"]().denoiser(schedule)
    >>> grid = dm.karras(schedule, steps=40, end=1e-3)
    >>> *_, noisy = dm.inversion(dm.heun(schedule), denoise, torch.tensor([[2.0, 0.1]]), grid)
    >>> dm.final(dm.heun(schedule), denoise, noisy.x, grid)
    tensor([[2.0012, 0.0996]])
    """
    checks.strictly_decreasing("grid", grid)
    checks.require(bool(grid[-1] > 0), "grid", "a last node above 0", float(grid[-1]))
    require_one_schedule(step, denoise, grid)
    return _states(step, denoise, x, grid.flip(0), required)


def _states(
    step: Step, denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise
) -> Iterator[State]:
    state = State(x, grid[0])
    yield state
    for t, s in pairwise(grid):
        state = step(denoise, state, t, s, noise)
        yield state
