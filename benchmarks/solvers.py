"""A step of every solver beside diffusers' scheduler of the same name, around a network of no cost.

Both sides evaluate the same function on the same grid, from the same start and with the same noise,
so the difference is the step's own arithmetic. Where the two steps are one map, the results agree
up to rounding; where they are not, the row says by what the two differ.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from diffusion_math._kept import forget
from diffusion_math.denoiser import from_eps
from diffusion_math.noise import from_generator
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.registry import SOLVERS

STEPS = 25
EVENTS = {"1x4x8x8": (1, 4, 8, 8), "4x4x64x64": (4, 4, 64, 64)}
FIRST = ("ddim", "heun", "dpmpp_2m", "unipc")
"""Solvers whose first run over a grid is timed too, before the coefficients are kept."""
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ROUNDED = 1e-5
"""Float32 at every step: some 1e-6 is found."""


@dataclass(frozen=True)
class Peer:
    """A scheduler of diffusers, and how it is compared.

    Attributes:
        kind, settings: its class and what it is made with.
        tolerance: the largest difference from our result, relative to the largest entry.
        differs: by what, if the two are not one map.
        end: the last node of our grid, 1 for the first time of the training; None for the last of
            the nodes before it.
        every: how many nodes of the scheduler one of our steps covers; of more than one, equal in
            log-SNR.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: float = ROUNDED
    differs: str = ""
    end: float | None = 0.0
    every: int = 1

    @property
    def name(self) -> str:
        """The scheduler, and by what it differs."""
        return f"diffusers' {self.kind}" + (f", {self.differs}" if self.differs else "")

    def made(self) -> Any:
        """The scheduler with its timesteps set."""
        import diffusers

        scheduler = getattr(diffusers, self.kind)(**TABLE, **self.settings)
        scheduler.set_timesteps(STEPS)
        return scheduler

    def grid(self, scheduler: Any, schedule: Discrete) -> Tensor:
        """The nodes of our steps."""
        if self.every > 1:
            log_snr = -2 * scheduler.sigmas[: -1 : self.every].double().log()
            ends = schedule.log_snr(schedule.T), schedule.log_snr(schedule.t_min)
            times = schedule.time(log_snr.clamp(*ends))
        else:
            found = sorted({float(t) + 1 for t in scheduler.timesteps}, reverse=True)
            times = torch.tensor(found, dtype=torch.float64)
            if len(found) > STEPS:  # there are stages among them
                times = torch.linspace(found[0], found[-1], STEPS, dtype=torch.float64).round()
        return times if self.end is None else torch.cat([times, times.new_tensor([self.end])])


LEADING = {"steps_offset": 1, "timestep_spacing": "leading"}
ZERO = {**LEADING, "final_sigmas_type": "zero"}
PLAIN = {"clip_sample": False}
STAGES = {"use_exponential_sigmas": True, "lower_order_final": True}
MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
EPS = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++", **ZERO}
START, WEIGHTS, SECOND = "other start", "other weights", "other second difference"
PEERS = {
    "ddpm": Peer("DDPMScheduler", PLAIN),
    "ddpm_large": Peer("DDPMScheduler", {**PLAIN, "variance_type": "fixed_large"}),
    "ddim": Peer("DDIMScheduler", {**PLAIN, "steps_offset": 1, "set_alpha_to_one": True}),
    "euler": Peer("EulerDiscreteScheduler", ZERO),
    "euler_ancestral": Peer("EulerAncestralDiscreteScheduler", LEADING),
    "heun": Peer("HeunDiscreteScheduler", LEADING),
    "dpm2": Peer("KDPM2DiscreteScheduler", LEADING),
    "dpm2_ancestral": Peer("KDPM2AncestralDiscreteScheduler", LEADING),
    "lms": Peer("LMSDiscreteScheduler", LEADING, 1e-2, START),
    "plms": Peer("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}, end=1.0),
    "pndm": Peer("PNDMScheduler", {"steps_offset": 1}, end=1.0),
    "deis": Peer("DEISMultistepScheduler", {**LEADING, "solver_order": 3}, 1e-2, START, end=1.0),
    "dpm_solver_2m": Peer(MULTI, {**LEADING, **EPS, "solver_type": "heun"}, end=1.0),
    "dpm_solver_3s": Peer(
        SINGLE, {**STAGES, **EPS, "solver_order": 3}, 1e-3, WEIGHTS, end=None, every=3
    ),
    "dpmpp_2s": Peer(SINGLE, {**STAGES, "solver_order": 2}, every=2),
    "dpmpp_3s": Peer(SINGLE, {**STAGES, "solver_order": 3}, 5e-3, WEIGHTS, every=3),
    "dpmpp_2m": Peer(MULTI, ZERO),
    "dpmpp_3m": Peer(MULTI, {**ZERO, "solver_order": 3}, 5e-3, f"{START}, {SECOND}"),
    "dpmpp_2m_sde": Peer(MULTI, {**SDE, "solver_type": "heun"}),
    "dpmpp_3m_sde": Peer(MULTI, {**SDE, "solver_order": 3}, 0.3, SECOND),
    "unipc": Peer("UniPCMultistepScheduler", ZERO, 5e-4, WEIGHTS),
}
"""Our other solvers have no scheduler in diffusers that needs nothing else."""


def solver_rows(rounds: int) -> list[Row]:
    """Whole trajectories of 25 steps; the unit is one function evaluation of the network."""
    return [row for name in PEERS for label in EVENTS for row in _rows(name, label, rounds)]


def _rows(name: str, label: str, rounds: int) -> Iterator[Row]:
    ours, theirs, network = sides(name, EVENTS[label])
    peer, units = PEERS[name], (network.during(ours), network.during(theirs))
    kinds: dict[str, Callable[[], object]] = {"a later run": lambda: None}
    if name in FIRST:
        kinds["the first run"] = forget
    for kind, before in kinds.items():
        what = f"a step of {name}, {kind}, {label}"
        yield compare(what, peer.name, ours, theirs, rounds, units, peer.tolerance, before)


class Counted:
    """A network of no cost, eps + x / 10, and how often it was called."""

    def __init__(self, eps: Tensor) -> None:
        self.eps, self.calls = eps, 0

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        self.calls += 1
        return self.eps + 0.1 * x

    def during(self, run: Callable[[], object]) -> int:
        """Calls in one run."""
        before = self.calls
        run()
        return self.calls - before


def sides(
    name: str, shape: tuple[int, ...]
) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Counted]:
    """Our trajectory and the peer's from one start, and the network that both evaluate."""
    peer, solver = PEERS[name], SOLVERS[name]
    schedule, scheduler = Discrete.scaled_linear(steps=1000), peer.made()
    grid = peer.grid(scheduler, schedule)
    generator = torch.Generator().manual_seed(0)
    start, eps = (torch.randn(shape, generator=generator) for _ in range(2))
    network = Counted(eps)
    denoise = from_eps(network, schedule)

    def ours() -> Tensor:
        noise = from_generator(torch.Generator().manual_seed(1))
        return final(solver(schedule), denoise, start, grid, noise)

    def theirs() -> Tensor:
        generator = torch.Generator().manual_seed(1)
        given = {"generator": generator} if solver.noisy else {}
        scheduler.set_timesteps(STEPS)
        x = start * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x, **given)[0]
        return x

    return ours, theirs, network
