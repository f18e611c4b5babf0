"""Samplers of other conventions as what `Sampler` takes."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.checks import described, real, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import Discrete, RectifiedFlow, Schedule
from diffusion_math.testing.draws import Draws
from diffusion_math.testing.sampler import SampleFunction, Sampler, UnsupportedError

__all__ = ["of_edm", "of_scheduler", "of_velocity"]


def of_edm(sampler: Callable[..., Any], schedule: Schedule | None = None) -> SampleFunction:
    """`sampler(D, x, sigmas) -> x` with D(x, sigma) = E[x0 | x], as `Sampler` takes it.

    k-diffusion's and EDM's convention: x is x0 + sigma eps. Normals that it draws by torch or
    numpy are those of the step. Each state is what D is given last at its sigma; but the last state
    alone is shown where that is no state, as of a predictor whose correction D never sees.

    Args:
        sampler: takes D, whose sigma is a number or `(batch,)`; x; and sigmas that fall to 0.
        schedule: of the grid's times; without, they are the sigmas.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import Sampler, adaptors, assert_order
    >>> def euler(D, x, sigmas):
    ...     for sigma, after in zip(sigmas[:-1], sigmas[1:]):
    ...         x = D(x, sigma) + after / sigma * (x - D(x, sigma))
    ...     return x
    >>> grid = lambda n: dm.karras(dm.VE(), n)
    >>> assert_order(Sampler("euler", dm.VE(), adaptors.of_edm(euler), grid), 1)
    """

    def run(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> _Run:
        alpha, sigma = (grid.new_ones(len(grid)), grid) if schedule is None else schedule(grid)
        now = _Run(x, grid, noise)

        def network(u: Tensor, level: Any, **_: Any) -> Tensor:
            level = torch.as_tensor(level, dtype=torch.float64, device="cpu").flatten()[0]
            t = _nearest(sigma / alpha, grid, level)
            if t is None:  # between two nodes
                t = level if schedule is None else schedule.time(-2 * level.log())
            scale = 1.0 if schedule is None else float(schedule(t)[0])
            now.at(t, scale * u)
            return denoise(scale * u, t)

        with now.draws.everywhere():
            end = sampler(network, x / alpha[0].to(x), sigma / alpha)
        return now.ended(alpha[-1].to(x) * end)

    return _showing(run)


def of_velocity(sampler: Callable[..., Any], data_at: int = 1) -> SampleFunction:
    """`sampler(v, x, times) -> x` of dx/dt = v(x, t), on `RectifiedFlow`'s times.

    v = x0 - eps at x = t x0 + (1 - t) eps where the data is at 1, as in flow matching; eps - x0 at
    x = (1 - t) x0 + t eps where it is at 0. Noise and states are as in `of_edm`.

    Args:
        sampler: takes v(x, t), whose t is a number or `(batch,)`; x; and times from noise to data.
        data_at: 0 or 1.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import Sampler, adaptors, assert_order
    >>> def euler(v, x, times):
    ...     for t, s in zip(times[:-1], times[1:]):
    ...         x = x + (s - t) * v(x, t)
    ...     return x
    >>> flow = dm.RectifiedFlow()
    >>> mine = Sampler("euler", flow, adaptors.of_velocity(euler), lambda n: dm.trailing(flow, n))
    >>> assert_order(mine, 1)
    """
    require(data_at in (0, 1), "data_at", "0 or 1", data_at)
    flow, sign = RectifiedFlow(), 1 - 2 * data_at

    def run(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> _Run:
        now, times = _Run(x, grid, noise), data_at + sign * grid

        def velocity(x: Tensor, tau: Any, **_: Any) -> Tensor:
            tau = torch.as_tensor(tau, dtype=torch.float64, device="cpu").flatten()[0]
            t = _nearest(times, grid, tau)
            t = data_at + sign * tau if t is None else t
            now.at(t, x)
            return sign * prediction.flow_from_x0(flow, x, denoise(x, t), t)

        with now.draws.everywhere():
            return now.ended(sampler(velocity, x.clone(), times))

    return _showing(run)


def _showing(run: Callable[[Denoiser, Tensor, Tensor, Noise], "_Run"]) -> SampleFunction:
    """The sampler of a run, with the states that the network saw where they are its states.

    Whether they are is seen in its first step: a run that ends there gives back the state that a
    run of two steps shows at that node.
    """

    def curved(x: Tensor, t: Tensor) -> Tensor:
        return x.cos()

    def constant(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)

    def sees_states(x: Tensor, grid: Tensor) -> bool:
        try:
            one, two = (run(curved, x, grid[: k + 1], constant) for k in (1, 2))
            off = (two.seen[float(grid[1])] - one.end).abs().max()
        except Exception:  # code that is audited may raise anything
            return False
        return bool(off <= 16 * torch.finfo(torch.float32).eps * one.end.abs().max())

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor | list[Tensor]:
        now = run(denoise, x, grid, noise)
        return now.states() if len(grid) > 2 and sees_states(x, grid) else now.end

    return sample


def of_scheduler(
    name: str,
    make: Callable[[], Any],
    *,
    predicts: str | None = None,
    order: int = 1,
    noisy: bool = False,
    **step: Any,
) -> Sampler:
    """A scheduler like those of diffusers and MONAI, run on its own times, as a `Sampler`.

    It has `set_timesteps(n)`, `timesteps`, and `step(prediction, t, x)`, which gives x, a tuple
    with x first, or an object with `prev_sample`. Noise levels are read off one of two tables.

    `alphas_cumprod` `(T,)`, whose last may be 0 (zero terminal SNR): index t is time t + 1, and the
    last step ends at 0, or at 1 by a `final_alpha_cumprod` below 1. With `sigmas` too, one more
    than calls, the levels are those:
    sigma / alpha, of x / alpha where `init_noise_sigma` is not 1.

    `sigmas` alone: those of a rectified flow.

    Args:
        make: gives a new scheduler.
        predicts: what it takes as a prediction: "eps", "v", "x0" or "flow"; by default "eps", and
            "flow" of a rectified flow.
        order, noisy: what it claims, as in `Sampler`.
        step: further arguments of its `step`.

    Raises ValueError for an object without these, and for one with several calls a level.

    >>> import torch
    >>> from diffusion_math.testing import adaptors, assert_order
    >>> class DDIM:
    ...     alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000).double()).cumprod(0)
    ...     def set_timesteps(self, n):
    ...         self.timesteps = (torch.arange(1000, 0, -1000 / n)).round().long() - 1
    ...         self.after = dict(zip(self.timesteps.tolist(), self.timesteps[1:].tolist()))
    ...     def step(self, eps, t, x):
    ...         a, after = self.alphas_cumprod[t], self.after.get(int(t))
    ...         b = a.new_ones(()) if after is None else self.alphas_cumprod[after]
    ...         return b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
    >>> assert_order(adaptors.of_scheduler("DDIM", DDIM), 1)
    """
    first = make()
    for part in ("set_timesteps", "step"):
        require(hasattr(first, part), "make", f"a scheduler with {part}", type(first).__name__)
    first.set_timesteps(10)
    schedule = _schedule_of(first)
    straight = isinstance(schedule, RectifiedFlow)
    predicts = predicts or ("flow" if straight else "eps")
    known = ("eps", "v", "x0", "flow")
    require(predicts in known, "predicts", f"one of {', '.join(known)}", repr(predicts))
    calls = torch.as_tensor(first.timesteps, device="cpu").tolist()
    levels = len(getattr(first, "sigmas", [])) or len(calls) + 1
    once = len(set(calls)) == len(calls) == levels - 1
    require(once, "make", "a scheduler of one call a level", f"times {calls}")
    divided = float(getattr(first, "init_noise_sigma", 1.0)) != 1.0
    last = 0.0 if float(getattr(first, "final_alpha_cumprod", 1.0)) == 1.0 else 1.0
    of_length: dict[int, int] = {}

    def timed(n: int) -> tuple[Any, Tensor]:
        scheduler = make()
        try:
            scheduler.set_timesteps(n)
        except ValueError as error:
            raise UnsupportedError(f"{n} steps: {error}") from error
        if hasattr(scheduler, "sigmas"):
            sigmas = real("sigmas", scheduler.sigmas)
            return scheduler, sigmas if straight else _times_of(schedule, sigmas)
        nodes = real("timesteps", scheduler.timesteps) + 1
        return scheduler, torch.cat([nodes, nodes.new_tensor([last])])

    def grid(n: int) -> Tensor:
        times = timed(n)[1]
        of_length[len(times)] = n
        return times

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        for n in reversed(of_length.values()):  # image-to-image runs the end of a grid
            scheduler, times = timed(n)
            if torch.equal(times[-len(grid) :], grid):
                break
        else:
            raise UnsupportedError("it runs on its own times alone")
        run, states = _Run(x, grid, noise), []
        scale = schedule(grid)[0].to(x) if divided else torch.ones_like(grid).to(x)
        indices = torch.as_tensor(scheduler.timesteps, device="cpu")[-(len(grid) - 1) :]
        with run.draws.everywhere():
            for k, (index, t) in enumerate(zip(indices, grid[:-1], strict=True)):
                run.at(t, x)
                given = denoise(x, t)
                if predicts != "x0":
                    given = getattr(prediction, f"{predicts}_from_x0")(schedule, x, given, t)
                theirs = x / scale[k]
                if hasattr(scheduler, "scale_model_input"):
                    scheduler.scale_model_input(theirs, index)  # some count their calls there
                x = scale[k + 1] * _sample_of(scheduler.step(given, index, theirs, **step))
                states.append(x)
        return states

    return Sampler(name, schedule, sample, grid, order, noisy, any_grid=False)


def _schedule_of(scheduler: Any) -> Schedule:
    """What its tables say."""
    if hasattr(scheduler, "alphas_cumprod"):
        abar = real("alphas_cumprod", scheduler.alphas_cumprod)
        betas = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
        betas[-1] = betas[-1].clamp(max=1 - 2.0**-53)  # zero terminal SNR, to float64's rounding
        wrong = (~((betas > 0) & (betas < 1))).nonzero()[:1, 0].tolist()
        wanted = "alphas_cumprod that fall from below 1, and to 0 at the last index alone"
        require(not wrong, "make", wanted, f"{[float(abar[k]) for k in wrong]} at index {wrong}")
        return Discrete(betas)
    wanted = "a scheduler with alphas_cumprod or sigmas"
    require(hasattr(scheduler, "sigmas"), "make", wanted, type(scheduler).__name__)
    return RectifiedFlow()


def _times_of(schedule: Schedule, ratios: Tensor) -> Tensor:
    """The times of sigma / alpha; those of a discrete schedule within its table's rounding."""
    low, high = schedule.log_snr(schedule.T), schedule.log_snr(schedule.t_min)
    times = schedule.time((-2 * ratios.log()).clamp(low, high))
    return torch.where(ratios == 0, 0.0, times)


class _Run:
    """One run down a grid: the normals of the step it is in, and the states that it shows.

    A draw is that of the step whose state the network saw last; where that is used, as by a sampler
    that first adds noise and then evaluates, of the next step. AssertionError for two in a step.
    """

    def __init__(self, x: Tensor, grid: Tensor, noise: Noise) -> None:
        self.grid, self.times = grid, [float(t) for t in grid[:-1]]
        self.normals = [noise(x, t, s) for t, s in pairwise(grid)]
        self.seen: dict[float, Tensor] = {}
        self.step, self.used, self.evaluated = 0, -1, True
        self.draws = Draws(self._normal)
        self.end = x

    def at(self, t: Tensor, x: Tensor) -> None:
        """The network is evaluated at x_t = x."""
        self.seen[float(t)], self.evaluated = x.clone(), True  # it may be changed in place
        if float(t) in self.times:
            self.step = self.times.index(float(t))

    def _normal(self) -> Tensor:
        self.step += self.used == self.step
        fresh = self.evaluated and self.used < self.step < len(self.normals)
        assert fresh, f"wanted one draw of a normal in each of {len(self.normals)} steps, got more"
        self.used, self.evaluated = self.step, False
        return self.normals[self.step]

    def ended(self, end: Tensor) -> "_Run":
        """Itself, with the last state."""
        self.end = end
        return self

    def states(self) -> Tensor | list[Tensor]:
        """All states, where the network saw each but the last; else the last alone."""
        inner = [float(t) for t in self.grid[1:-1]]
        seen = all(t in self.seen for t in inner)
        return [*(self.seen[t] for t in inner), self.end] if seen else self.end


def _nearest(levels: Tensor, grid: Tensor, level: Tensor) -> Tensor | None:
    """The grid's time whose level this is, to float32's rounding; None where there is none."""
    off = (levels - level).abs()
    k = int(off.argmin())
    return grid[k] if float(off[k]) <= 1e-6 * float(level.abs()) else None


def _sample_of(result: Any) -> Tensor:
    """The state after a step, of what `step` returns."""
    found = getattr(result, "prev_sample", result)
    state: Any = found[0] if isinstance(found, tuple | list) and found else found
    wanted = "x, a tuple with x first, or an object with prev_sample"
    require(isinstance(state, Tensor), "step", wanted, described(result))
    given: Tensor = state
    return given
