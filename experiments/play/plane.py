"""The tab Plane: a solver or Langevin chain in the plane, animated beside the exact flow."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, final

import numpy as np
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math.noise import from_generator
from experiments.common.quadrature import in_square
from experiments.common.sampling_options import Grid, Solver
from experiments.common.statistics import seeded
from experiments.play.jobs import Tell
from experiments.plots import animation, plane
from sd.command_line.flags import Range, refuse, unused, validated

__all__ = [
    "SCHEDULES",
    "Animated",
    "Moment",
    "Settings",
    "animate",
    "exact_flow",
    "langevin",
    "reverse",
]

SCHEDULES: dict[str, Callable[[], dm.Schedule]] = {
    "VP linear": dm.VPLinear,
    "VP cosine": dm.VPCosine,
    "VE": dm.VE,
    "rectified flow": dm.RectifiedFlow,
    "DDPM linear, 1000 steps": dm.Discrete.linear,
    "Stable Diffusion, 1000 steps": dm.Discrete.scaled_linear,
}
"""Noise schedules by the names of the page."""

REVERSE, LANGEVIN = "reverse process", "Langevin"

LABELS = {"none": None, "first half of the components": 0, "second half of the components": 1}
"""What the denoiser is conditioned on."""

FINE = 240
"""Steps of the exact flow, at least."""

CLEAN = 16.0
"""log-SNR from where the exact flow goes to clean data in one step."""

PURE = -12.0
"""log-SNR to where it comes from pure noise in one step."""

FRAMES, SPREAD = 24, 1.5
"""Frames of an animation; the standard deviation of a chain's start."""

LEVELS, FIRST, LAST = 20, 2.5, 0.05
"""Noise levels of annealed Langevin."""


@validated
class Settings:
    """What the page asks for."""

    density: Literal[
        "ring", "grid25", "two_moons", "pinwheel", "spirals", "checkerboard", "banana", "funnel"
    ] = "two_moons"
    process: Literal["reverse process", "Langevin"] = "reverse process"
    schedule: Literal[
        "VP linear", "VP cosine", "VE", "rectified flow", "DDPM linear, 1000 steps",
        "Stable Diffusion, 1000 steps",
    ] = "VP linear"  # fmt: skip
    solver: Solver = "dpmpp_2m"
    grid: Grid = "uniform_log_snr"
    steps: Annotated[int, Range(1, 500)] = 10
    condition: Literal["none", "first half of the components", "second half of the components"] = (
        "none"
    )
    guidance_scale: Annotated[float, Range(0, 20)] = 1.0
    chain: Literal["unadjusted", "Metropolis", "annealed"] = "annealed"
    step_size: Annotated[float, Range(0, 1, above=True)] = 0.002
    points: Annotated[int, Range(50, 2000)] = 400
    seed: Annotated[int, Range(0, 2**31)] = 0

    def __post_init__(self) -> None:
        if self.condition == "none":
            unused(self, ["guidance_scale"], "without a condition")
        elif not isinstance(dm.DENSITIES[self.density](), dm.GaussianMixture):
            mixtures = "ring, grid25, two_moons, pinwheel or spirals"
            refuse(self, "condition", f"none for a density that is no mixture (try {mixtures})")
        if self.process == LANGEVIN and self.guidance_scale != 1:
            refuse(self, "guidance_scale", "1 with Langevin, which samples the condition's density")

    @property
    def guided(self) -> bool:
        """Whether guidance changes the denoiser."""
        return self.guidance_scale != 1

    def data(self) -> dm.densities.Density:
        """The density that is sampled: the given one, or the condition's."""
        whole, label = dm.DENSITIES[self.density](), LABELS[self.condition]
        if label is None:
            return whole
        assert isinstance(whole, dm.GaussianMixture)
        count = len(whole.means)
        labels = (torch.arange(count) >= count // 2).long()
        return dm.densities.Labelled(whole, labels).given(label)

    def denoiser(self, schedule: dm.Schedule) -> dm.Denoiser:
        """The exact denoiser, guided where the scale is not 1."""
        conditional = self.data().denoiser(schedule)
        if not self.guided:
            return conditional
        unconditional = dm.DENSITIES[self.density]().denoiser(schedule)
        return dm.cfg(conditional, unconditional, self.guidance_scale)


@final
@dataclass(frozen=True)
class Moment:
    """A frame of the animation, and how far it is."""

    number: int
    of: int
    frame: animation.Frame


@final
@dataclass(frozen=True)
class Animated:
    """The whole animation and the error at its end, in words."""

    gif: bytes
    error: str


def animate(settings: Settings, tell: Tell) -> None:
    """Sample, tell each `Moment` as it is drawn, and then what is `Animated`."""
    run = reverse if settings.process == REVERSE else langevin
    moments, error = run(settings, tell)
    density, reach = _contours(settings.data())
    frames = []
    for k, (title, panels) in enumerate(moments, 1):
        clouds = [plane.Cloud(name, x.numpy(), density, size=8.0) for name, x in panels.items()]
        frames.append(animation.frame(plane.moment(clouds, reach, title)))
        tell(Moment(k, len(moments), frames[-1]))
    frames = frames if len(frames) > 1 else frames * 2
    tell(Animated(animation.gif(frames, max(2.0, 0.2 * len(frames))), error))


def exact_flow(
    denoiser: Callable[[dm.Schedule], dm.Denoiser],
    schedule: dm.Schedule,
    x: Tensor,
    grid: Tensor,
    tell: Tell = lambda report: None,
) -> list[Tensor]:
    """Where the probability flow carries x from `grid[0]` to each node of the grid.

    In the straight chart u = x / (alpha + sigma), tau = sigma / (alpha + sigma) all schedules have
    one flow, that of rectified flow. It is solved by DPM-Solver++(3M) in at least `FINE` steps,
    uniform in log-SNR between two nodes. `tell` hears now and then how far it is.
    """
    alpha, sigma = schedule(grid)
    scale, straight = alpha + sigma, dm.RectifiedFlow()
    nodes, places = _refined(sigma / scale, max(4, math.ceil(FINE / (len(grid) - 1))))
    step = dm.multistep(straight, order=3)
    states = []
    for k, state in enumerate(dm.trajectory(step, denoiser(straight), x / scale[0], nodes)):
        states.append(state.x)
        if k % 20 == 0:
            tell(f"exact flow, step {k} of {len(nodes) - 1}")
    return [s * states[k] for s, k in zip(scale, places, strict=True)]


def _refined(tau: Tensor, parts: int) -> tuple[Tensor, list[int]]:
    """Nodes that cut each step between the given ones into parts, and the places of those."""
    straight = dm.RectifiedFlow()
    nodes, places = [tau[:1]], [0]
    for t, s in pairwise(tau):
        ends = straight.log_snr(torch.stack([t, s]))
        low, high = (float(end.clamp(PURE, CLEAN)) for end in ends)
        inner = torch.linspace(low, high, parts + 1, dtype=torch.float64)
        inner = inner[(inner > ends[0]) & (inner < ends[1])]
        nodes += [straight.time(inner), s[None]]
        places.append(places[-1] + len(inner) + 1)
    return torch.cat(nodes), places


Titled = tuple[str, dict[str, Tensor]]
"""The title of a frame, and the points of its panels by their names."""


def reverse(settings: Settings, tell: Tell) -> tuple[list[Titled], str]:
    """The frames of a solver beside the exact flow, and the error at the end."""
    schedule, solver = SCHEDULES[settings.schedule](), dm.SOLVERS[settings.solver]
    grid = dm.GRIDS[settings.grid](schedule, settings.steps)
    start = _start(settings, schedule, grid[0], 0)
    flow = exact_flow(settings.denoiser, schedule, start, grid, tell)
    x = _start(settings, schedule, grid[0], 1) if solver.noisy else start
    noise = from_generator(seeded(settings.seed, 2))
    run = dm.trajectory(solver(schedule), settings.denoiser(schedule), x, grid, noise)
    states = _told(run, tell)

    def title(k: int) -> str:
        off = "" if solver.noisy else f", RMS error {_rms(states[k], flow[k]):.2g}"
        return f"step {k} of {settings.steps}, t = {float(grid[k]):.3g}{off}"

    frames = []
    for k in _shown(len(states)):
        alpha, sigma = schedule(grid[k])
        shown = (alpha.square() + sigma.square()).sqrt()  # so that VE's noise fits the window
        panels = {settings.solver: states[k] / shown, "exact flow": flow[k] / shown}
        frames.append((title(k), panels))
    error = _distance(states[-1], flow[-1], "the exact flow's, of independent starts")
    if not solver.noisy:
        rms = _rms(states[-1], flow[-1])
        words = "root mean square distance from the exact flow's end of the same start"
        error = f"error of {settings.solver} after {settings.steps} steps: {rms:.3g} ({words})"
    return frames, error


def langevin(settings: Settings, tell: Tell) -> tuple[list[Titled], str]:
    """The frames of a chain beside the end of the exact flow, and the error at the end."""
    schedule, data = SCHEDULES[settings.schedule](), settings.data()
    grid = dm.uniform_log_snr(schedule, 2)
    start = _start(settings, schedule, grid[0], 0)
    flow = exact_flow(settings.denoiser, schedule, start, grid, tell)
    generator = seeded(settings.seed, 1)
    x = SPREAD * torch.randn(settings.points, 2, generator=generator, dtype=torch.float64)
    move = _move(data, settings)
    noise = from_generator(seeded(settings.seed, 2))
    states = _told(dm.langevin.chain(move, x, settings.steps, noise), tell)
    name = f"Langevin, {settings.chain}"
    frames = [
        (f"{k} of {settings.steps} moves", {name: states[k], "exact flow, end": flow[-1]})
        for k in _shown(len(states))
    ]
    return frames, _distance(states[-1], flow[-1], "the exact flow's")


def _told(run: Iterable[dm.State | dm.langevin.Particles], tell: Tell) -> list[Tensor]:
    """The points of each state of a run."""
    points = []
    for k, state in enumerate(run):
        points.append(state.x)
        if k % 10 == 0:
            tell(f"step {k}")
    return points


def _move(data: dm.densities.Density, settings: Settings) -> dm.langevin.Move:
    """The move of the chosen chain on the density."""
    clean, delta = dm.VE(), settings.step_size
    if settings.chain == "unadjusted":
        return dm.langevin.ula(lambda x: data.score(clean, x, 0.0), delta)
    if settings.chain == "Metropolis":
        return dm.langevin.mala(
            lambda x: (data.log_density(clean, x, 0.0), data.score(clean, x, 0.0)), delta
        )
    levels = torch.logspace(math.log10(FIRST), math.log10(LAST), LEVELS, dtype=torch.float64)
    levels = levels[-min(LEVELS, settings.steps) :]
    each = settings.steps // len(levels)
    return dm.langevin.annealed(lambda x, sigma: data.score(clean, x, sigma), levels, each, delta)


def _start(settings: Settings, schedule: dm.Schedule, t: Tensor, stream: int) -> Tensor:
    """Exact samples of x_t, of the density that is sampled."""
    generator = seeded(settings.seed, stream)
    x0 = settings.data().sample(generator, settings.points)
    z = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    return dm.gaussian.marginal(schedule, x0, t).sample(z)


def _rms(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().sum(1).mean().sqrt())


def _distance(x: Tensor, y: Tensor, what: str) -> str:
    value, error = dm.metrics.energy_distance(x, y)
    words = "an unbiased estimate, which may be negative"
    return f"squared energy distance from {what}: {value:.3g} ± {error:.1g} ({words})"


def _shown(count: int) -> list[int]:
    """The places of the states that are frames, the first and last among them."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(FRAMES, count)).tolist()})


def _contours(data: dm.densities.Density) -> tuple[tuple[plane.Floats, plane.Floats], float]:
    """The density on a square window, and half the window's side; noise fits in it as well."""
    reach = max(2.5, 1.1 * float(data.sample(seeded(0), 1000).abs().max()))
    return in_square(data, dm.VE(), 0.0, reach, 181), reach
