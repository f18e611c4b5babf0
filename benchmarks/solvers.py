"""A step of every solver beside diffusers' scheduler of the same name, around a network of no cost.

Both sides evaluate the same function, so the difference is the step's own arithmetic. Where the two
steps are one map, the results must agree; the others differ in their start or in their noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor

from benchmarks.compare import Row, compare
from diffusion_math.denoiser import from_eps
from diffusion_math.noise import from_generator
from diffusion_math.sample import final
from diffusion_math.schedule import Discrete
from diffusion_math.solvers.registry import SOLVERS

STEPS = 25
EVENTS = {"1x4x8x8": (1, 4, 8, 8), "4x4x64x64": (4, 4, 64, 64)}
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Peer:
    """A scheduler of diffusers, and the largest relative difference from our result."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: float = torch.inf

    def made(self) -> Any:
        """The scheduler with its timesteps set."""
        scheduler = getattr(diffusers, self.kind)(**TABLE, **self.settings)
        scheduler.set_timesteps(STEPS)
        return scheduler


ROUNDED = 1e-4  # float32 at every step; the last divides by alpha_T = 0.07
ONE_MAP = {"clip_sample": False, "steps_offset": 1, "set_alpha_to_one": True}
MULTI = {"steps_offset": 1, "timestep_spacing": "leading", "final_sigmas_type": "zero"}
PEERS = {
    "ddpm": Peer("DDPMScheduler", {"clip_sample": False}),
    "ddpm_large": Peer("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}),
    "ddim": Peer("DDIMScheduler", ONE_MAP, ROUNDED),
    "euler": Peer("EulerDiscreteScheduler"),
    "euler_ancestral": Peer("EulerAncestralDiscreteScheduler"),
    "heun": Peer("HeunDiscreteScheduler"),
    "dpm2": Peer("KDPM2DiscreteScheduler"),
    "dpm2_ancestral": Peer("KDPM2AncestralDiscreteScheduler"),
    "lms": Peer("LMSDiscreteScheduler"),
    "plms": Peer("PNDMScheduler", {"skip_prk_steps": True}),
    "pndm": Peer("PNDMScheduler"),
    "deis": Peer("DEISMultistepScheduler", {"solver_order": 3}),
    "dpm_solver_2m": Peer(
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "dpm_solver_3s": Peer(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver", "solver_order": 3, "final_sigmas_type": "sigma_min"},
    ),
    "dpmpp_2s": Peer("DPMSolverSinglestepScheduler", {"solver_order": 2}),
    "dpmpp_3s": Peer("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    "dpmpp_2m": Peer("DPMSolverMultistepScheduler", MULTI, ROUNDED),
    "dpmpp_3m": Peer("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "dpmpp_2m_sde": Peer("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_3m_sde": Peer(
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    ),
    "unipc": Peer("UniPCMultistepScheduler"),
}
"""Our other solvers have no scheduler in diffusers that needs nothing else."""


def solver_rows(rounds: int) -> list[Row]:
    """Whole trajectories of 25 steps; the unit is one function evaluation of the network."""
    schedule = Discrete.scaled_linear(steps=1000)
    rows = []
    for name, peer in PEERS.items():
        scheduler = peer.made()
        times = sorted({float(t) + 1 for t in scheduler.timesteps}, reverse=True)
        if len(times) > STEPS or peer.tolerance == torch.inf:
            times = [float(t) for t in torch.linspace(961, 1, STEPS).round()]
        grid = torch.tensor([*times, 0.0], dtype=torch.float64)
        for label, shape in EVENTS.items():
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(shape, generator=generator)
            eps = torch.randn(shape, generator=generator)
            counted = Counted(eps)
            denoise = from_eps(counted, schedule)
            noise = from_generator(generator)

            def ours(x: Tensor = x, name=name, nodes=grid, denoise=denoise, noise=noise) -> Tensor:
                return final(SOLVERS[name](schedule), denoise, x, nodes, noise)

            def theirs(x: Tensor = x, scheduler=scheduler, network=counted) -> Tensor:
                scheduler.set_timesteps(STEPS)
                x = x * scheduler.init_noise_sigma
                for t in scheduler.timesteps:
                    x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x)[0]
                return x

            units = counted.during(ours), counted.during(theirs)
            what, who = f"a step of {name}, {label}", f"diffusers' {peer.kind}"
            rows.append(compare(what, who, ours, theirs, rounds, units, peer.tolerance))
    return rows


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
