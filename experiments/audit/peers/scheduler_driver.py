"""A scheduler object (`set_timesteps`, `scale_model_input`, `step`) as a `Sampler`.

It is driven as pipelines drive it: through its public methods, call by call, over its own times.
The exact denoiser stands where the network does, and sees what the network would: the scaled input
and the time that the scheduler announces.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from sys import modules
from typing import Any, Literal, TypeAlias, final
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine
from diffusion_math.testing.sampler import Sampler, UnsupportedError
from experiments.audit.peers.brownian import Increments

Space: TypeAlias = Literal["vp", "ve", "flow", "edm", "arc"]
"""Its sample is x_t; x_t / alpha_t; x_t on the rectified flow; EDM's, where alpha = 1; x_t on the
arc alpha = cos(pi t / 2), sigma = sin(pi t / 2), with no table but the times themselves."""


def every(scheduler: Any) -> list[int]:
    """Each call reaches a node."""
    return list(range(len(scheduler.timesteps)))


def second(scheduler: Any) -> list[int]:
    """Each second call does, and the last."""
    calls = len(scheduler.timesteps)
    return [*range(1, calls - 1, 2), calls - 1]


@final
@dataclass(frozen=True)
class Driven:
    """How to drive one class of scheduler.

    Attributes:
        space: see `Space`.
        reached: scheduler -> the calls after which its sample is at a node.
        by_sigmas: whether its levels are in `scheduler.sigmas`; else its times are its levels.
        level: where the space is "edm", the sigma that a time stands for.
        settle: what `set_timesteps` is given besides the number of steps; step: the same of `step`;
        each: what `step` is given at one call: of the scheduler, the call, and what the step before
            gave back.
        forward: whether times rise towards the data, and the network predicts x0 - eps.
        skip: the call to begin with, of the scheduler and the number of steps that are left out.
    """

    space: Space = "vp"
    reached: Callable[[Any], list[int]] = every
    by_sigmas: bool = True
    level: Callable[[Tensor], Tensor] = lambda told: torch.exp(4 * told)
    settle: Mapping[str, Any] = field(default_factory=dict)
    step: Mapping[str, Any] = field(default_factory=dict)
    each: Callable[[Any, int, Any], Mapping[str, Any]] = lambda scheduler, call, before: {}
    forward: bool = False
    skip: Callable[[Any, int], int] | None = None


def sampler(
    name: str,
    make: Callable[[], Any],
    driven: Driven,
    order: int,
    noisy: bool = False,
    exact: bool = True,
    grouped: bool = False,
) -> Sampler:
    """The scheduler that `make` makes, a fresh copy for every trajectory, on its own grids."""
    first = make()
    schedule = _schedule(first, driven.space)
    known: dict[int, Tensor] = {}

    def settled(n: int) -> Any:
        scheduler = deepcopy(first)
        try:
            scheduler.set_timesteps(n, **driven.settle)
        except (ValueError, NotImplementedError) as refused:
            raise UnsupportedError(str(refused)) from None
        return scheduler

    def grid(n: int) -> Tensor:
        known.pop(n, None)
        known[n] = _nodes(settled(n), driven, schedule)
        return known[n]

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        n = _asked(known, grid)
        return _sample(settled(n), driven, schedule, denoise, x, (known[n], grid), noise)

    return Sampler(
        name,
        schedule,
        sample,
        grid,
        order=order,
        noisy=noisy,
        any_grid=False,
        exact=exact,
        precision=1e-7,
        level_tolerance=0.01,
        grouped=grouped,
    )


def announced(made: Any, driven: Driven, n: int) -> float:
    """The largest difference of the network times from the times of the input noise levels.

    In steps of a discrete schedule, or in 1/1000 of a flow; 0 for EDM's. The first call of each
    node is looked at.
    """
    if driven.space == "edm" or not driven.by_sigmas:
        return 0.0
    scheduler, times, nodes, _ = _settled(made, driven, n)
    unit = 1000 if driven.space == "flow" else 1
    return unit * float((_time(scheduler, driven, times.double()) - nodes).abs().max())


METHODS = ("add_noise", "scale_noise", "get_velocity")
"""Methods of a scheduler that have a formula."""


def method_error(made: Any, driven: Driven, n: int, method: str, training: bool = False) -> float:
    """The largest error of a method of `METHODS` at the nodes of n steps.

    A noisy sample is alpha x0 + sigma eps, divided by alpha where the scheduler's samples are; its
    error is relative to the noise's factor. The velocity is alpha eps - sigma x0 in every space.

    Args:
        training: look at the times of a scheduler that has no steps set, instead; about n of them.
    """
    scheduler, times, nodes, schedule = (_unset if training else _settled)(made, driven, n)
    alpha, sigma = (each[:, None] for each in schedule(nodes))
    scale = alpha if driven.space == "ve" else torch.ones_like(alpha)
    x0, eps = torch.full((len(nodes), 2), 0.7), torch.full((len(nodes), 2), -1.3)
    wanted, unit = (alpha * x0 + sigma * eps) / scale, sigma / scale
    if method == "get_velocity":
        wanted, unit = alpha * eps - sigma * x0, torch.ones_like(sigma)
    found = []
    for k in range(len(nodes)):
        one = scheduler if training else deepcopy(scheduler)  # a pipeline calls it once
        x, noise, time = x0[k : k + 1], eps[k : k + 1], times[k : k + 1]
        given = (x, time, noise) if method == "scale_noise" else (x, noise, time)
        found.append(getattr(one, method)(*given))
    return float(((torch.cat(found).double() - wanted) / unit).abs().max())


def left(made: Any, driven: Driven, n: int) -> float:
    """The end time of n sampling steps, in steps of the schedule or in 1/1000 of a flow."""
    scheduler, _, _, schedule = _settled(made, driven, n)
    last = float(_nodes(scheduler, driven, schedule)[-1])
    return 1000 * last if driven.space == "flow" else last


def _settled(made: Any, driven: Driven, n: int) -> tuple[Any, Tensor, Tensor, Schedule]:
    """The scheduler at n steps, the times that each node begins with, and the nodes."""
    scheduler, schedule = deepcopy(made), _schedule(made, driven.space)
    scheduler.set_timesteps(n, **driven.settle)
    nodes = _nodes(scheduler, driven, schedule)[:-1]
    return scheduler, scheduler.timesteps[_starts(driven.reached(scheduler))], nodes, schedule


def _unset(made: Any, driven: Driven, n: int) -> tuple[Any, Tensor, Tensor, Schedule]:
    """A scheduler without steps, as in training: about n of its times, and the nodes they mean.

    On a table they are the whole times of training, in the dtype of the times of sampling. Raises
    UnsupportedError for a scheduler that has no such times.
    """
    table = hasattr(made, "alphas_cumprod")
    whole = torch.arange(made.config.num_train_timesteps if table else 0).flip(0)
    times = whole if made.timesteps is None else torch.as_tensor(made.timesteps)
    found = len(times) > 0 and bool(torch.isin(whole, times).all())
    if not found or (driven.space == "flow" and table):
        raise UnsupportedError("has no times before its steps are set")
    times = (whole if table else times).to(_settled(made, driven, n)[1].dtype)
    times = times[:: len(times) // n]
    return deepcopy(made), times, _time(made, driven, times.double()), _schedule(made, driven.space)


def _schedule(scheduler: Any, space: Space) -> Schedule:
    """The scheduler's own table as ours, or the continuous schedule that it declares."""
    if space == "flow":
        return RectifiedFlow()
    if space == "arc":
        return VPCosine()
    if space == "edm":
        return VE(10 * float(scheduler.config.sigma_max))
    table = torch.as_tensor(scheduler.alphas_cumprod, dtype=torch.float64)
    return Discrete(1 - table / torch.cat([table.new_ones(1), table[:-1]]))


def _starts(reached: list[int]) -> list[int]:
    """The call that each node begins with, but for the last node."""
    return [0, *(k + 1 for k in reached[:-1])]


def _nodes(scheduler: Any, driven: Driven, schedule: Schedule) -> Tensor:
    """The scheduler's nodes as times of the schedule."""
    begin = _starts(driven.reached(scheduler))
    if driven.by_sigmas:
        sigmas = torch.as_tensor(scheduler.sigmas, dtype=torch.float64)
        return _times(torch.cat([sigmas[begin], sigmas[-1:]]), driven.space, schedule)
    times = _time(scheduler, driven, torch.as_tensor(scheduler.timesteps, dtype=torch.float64))
    final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return torch.cat([times[begin], times.new_tensor([0.0 if final == 1.0 else 1.0])])


def _time(scheduler: Any, driven: Driven, told: Tensor) -> Tensor:
    """The network times as times of the schedule."""
    if driven.space == "edm":
        return driven.level(told)
    if driven.space == "arc":
        return told
    if driven.forward:
        return 1 - told
    return told / scheduler.config.num_train_timesteps if driven.space == "flow" else told + 1


def _times(sigmas: Tensor, space: Space, schedule: Schedule) -> Tensor:
    """Noise levels as times; on a table, those within rounding of a whole time are that time."""
    if space in ("flow", "edm"):
        return sigmas
    low, high = (float(schedule.log_snr(t)) for t in (schedule.T, schedule.t_min))
    times = schedule.time((-2 * sigmas.clamp(min=1e-30).log()).clamp(low, high))
    times = torch.where((times - times.round()).abs() < 1e-3, times.round(), times)
    return torch.where(sigmas == 0, 0.0, times)


def _asked(known: Mapping[int, Tensor], grid: Tensor) -> int:
    """Which number of steps the grid is of, or the end of: the latest that fits."""
    for n, nodes in reversed(list(known.items())):
        if len(nodes) >= len(grid) and torch.equal(nodes[-len(grid) :], grid):
            return n
    raise UnsupportedError("samples only on one of its own grids")


def _sample(
    scheduler: Any,
    driven: Driven,
    schedule: Schedule,
    denoise: Denoiser,
    x: Tensor,
    grids: tuple[Tensor, Tensor],
    noise: Noise,
) -> list[Tensor]:
    whole, grid = grids
    reached = driven.reached(scheduler)
    skipped = len(whole) - len(grid)
    call = driven.skip(scheduler, skipped) if driven.skip else _starts(reached)[skipped]
    if skipped and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(call)
        reached = driven.reached(scheduler)
    alpha, _ = schedule(grid)
    alpha = alpha if driven.space == "ve" else torch.ones_like(alpha)
    states: list[Tensor] = []
    sample = x / alpha[0]
    now = [grid[0], grid[1]]
    gave = None

    def own(x: Tensor, t: Tensor, s: Tensor, generator: object) -> Tensor:
        """Noise of a scheduler that tells the step that it is for."""
        return noise(x, *(_node(scheduler, grid, time) for time in (t, s)))

    with _drawing(type(scheduler), lambda like: noise(like, *now), own):
        for k, time in enumerate(scheduler.timesteps[call:], call):
            seen = sample
            if hasattr(scheduler, "scale_model_input"):
                seen = scheduler.scale_model_input(sample, time)
            output = _output(scheduler, driven, schedule, denoise, seen, time)
            more = {**driven.step, **driven.each(scheduler, k, gave)}
            gave = scheduler.step(
                model_output=output, timestep=time, sample=sample, return_dict=False, **more
            )
            sample = gave[0]
            if k in reached:
                states.append(sample.to(x.dtype) * alpha[len(states) + 1])
                now = [grid[len(states)], grid[min(len(states) + 1, len(grid) - 1)]]
    return states


def _output(
    scheduler: Any,
    driven: Driven,
    schedule: Schedule,
    denoise: Denoiser,
    seen: Tensor,
    time: Tensor,
) -> Tensor:
    """The prediction of a perfect network for its input and time."""
    space = driven.space
    usual = "v_prediction" if space == "arc" else "flow_prediction"
    kind = getattr(scheduler.config, "prediction_type", usual)
    at = _time(scheduler, driven, torch.as_tensor(float(time), dtype=torch.float64))
    if space == "edm":
        return _preconditioned(scheduler, denoise, seen, at, kind)
    x = seen.double()
    x0 = denoise(x, at)
    if kind == "sample":
        return x0.to(seen.dtype)
    if space == "flow" or kind == "flow_prediction":
        flow = prediction.flow_from_x0(schedule, x, x0, at).to(seen.dtype)
        return -flow if driven.forward else flow
    convert = prediction.v_from_x0 if kind == "v_prediction" else prediction.eps_from_x0
    return convert(schedule, x, x0, at).to(seen.dtype)


def _preconditioned(
    scheduler: Any, denoise: Denoiser, seen: Tensor, sigma: Tensor, kind: str
) -> Tensor:
    """EDM (arXiv:2206.00364), Eq. 7: F of x0 = c_skip x + c_out F(c_in x, c_noise)."""
    data = scheduler.config.sigma_data
    root = (sigma**2 + data**2).sqrt()
    x = seen.double() * root
    out = sigma * data / root * (1 if kind == "epsilon" else -1)
    F: Tensor = (denoise(x, sigma) - data**2 / root**2 * x) / out
    return F.to(seen.dtype)


def _node(scheduler: Any, grid: Tensor, time: Tensor) -> Tensor:
    """The node of the grid that a scheduler has as this one of its own, or the time as it is."""
    own = scheduler.nodes[-len(grid) :]
    near = int((own - time).abs().argmin())
    return grid[near] if own[near] == time else time


@contextmanager
def _drawing(kind: type, draw: Callable[[Tensor], Tensor], own: Any) -> Iterator[None]:
    """Within, the scheduler's module draws its normals from `draw`, or from `own`."""

    def randn_tensor(shape: Any, *_: Any, dtype: Any = torch.float64, **__: Any) -> Tensor:
        return draw(torch.zeros(tuple(shape), dtype=torch.float64)).to(dtype or torch.float64)

    def tree(x: Tensor, *_: Any, **__: Any) -> Increments:
        return Increments(lambda: draw(x))

    module = modules[kind.__module__]
    with ExitStack() as stack:
        stand_ins = {"randn_tensor": randn_tensor, "BrownianTreeNoiseSampler": tree, "normals": own}
        for name, stand_in in stand_ins.items():
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, stand_in))
        yield
