"""NVIDIA PhysicsNeMo's solvers, each on the times of a noise scheduler."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.noise import Noise
from diffusion_math.schedule import VE, Schedule, VPLinear
from diffusion_math.testing import Sampler, UnsupportedError
from experiments.audit.peers.physicsnemo_parts import library
from experiments.audit.peers.physicsnemo_parts import scheduler as scheduler_of

SCHEDULERS: dict[str, tuple[str, float]] = {
    "EDMNoiseScheduler": ("variance-exploding", 80.0),
    "EDMLogUniformNoiseScheduler": ("variance-exploding", 80.0),
    "IDDPMNoiseScheduler": ("variance-exploding", 81.0),
    "VENoiseScheduler": ("variance-exploding", 100.0),
    "VPNoiseScheduler": ("variance-preserving", 1.0),
}
"""Each, its path and its largest noise level, or time."""


def sampler(
    solver: str,
    order: int,
    noisy: bool = False,
    scheduler: str = "EDM",
    churn: Sequence[str] = (),
    **options: Any,
) -> Sampler:
    """`sample` with a scheduler's ODE; times are the scheduler's, in ours.

    Args:
        churn: the scheduler's methods that the solver is given.
        options: the solver's.
    """
    name = f"{scheduler}NoiseScheduler"
    own = scheduler_of(name)
    path, most = SCHEDULERS[name]
    preserving = path == "variance-preserving"
    schedule: Schedule = VPLinear(0.1, 19.2) if preserving else VE(most)
    given = options | {f"{one}_fn": getattr(own, one) for one in churn}

    def grid(n: int) -> Tensor:
        if n == 1:
            raise UnsupportedError("its times of one step are a finding of their own")
        times: Tensor = own.timesteps(n, dtype=torch.float64)
        return times if preserving else own.sigma(times)

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> list[Tensor]:
        times = grid if preserving else own.sigma_inv(grid)
        steps = iter(pairwise(grid))

        def x0_predictor(x: Tensor, t: Tensor) -> Tensor:
            return denoise(x, t[0] if preserving else own.sigma(t[0]))

        count = {"num_steps": len(grid) - 1} if "S_churn" in given else {}
        with patch.object(torch, "randn_like", lambda like: noise(like, *next(steps))):
            found: list[Tensor] = library().sample(
                own.get_denoiser(x0_predictor=x0_predictor),
                x,
                own,
                len(grid) - 1,
                solver,
                times,
                given | count,
                list(range(len(grid) - 1)),
            )
        return found

    exact = scheduler != "VE" and not preserving
    return Sampler(solver, schedule, sample, grid, order, noisy, exact=exact, level_tolerance=1e-5)


CHURN = {"S_churn": 10.0}
LEVELS = {**CHURN, "churn": ("sigma", "sigma_inv")}
DOCUMENTED = {**CHURN, "churn": ("sigma", "sigma_inv", "diffusion")}
"""What the stochastic solvers are given; the last is the documentation's example."""

SAMPLERS: tuple[tuple[str, int, bool, dict[str, Any]], ...] = (
    ("euler", 1, False, {}),
    ("heun", 2, False, {}),
    ("heun", 2, False, {"alpha": 0.5}),
    ("heun", 2, False, {"scheduler": "VE"}),
    ("heun", 2, False, {"scheduler": "VP"}),
    ("edm_stochastic_euler", 1, True, CHURN),
    ("edm_stochastic_heun", 2, True, CHURN),
    ("edm_stochastic_euler", 1, True, {"scheduler": "VE", **DOCUMENTED}),
    ("edm_stochastic_heun", 1, True, {"scheduler": "VE", **DOCUMENTED}),
    ("edm_stochastic_heun", 2, True, {"scheduler": "VE", **LEVELS}),
    ("edm_stochastic_heun", 1, True, {"scheduler": "VP", **DOCUMENTED}),
    ("edm_stochastic_euler", 1, True, {"scheduler": "VP", "S_max": 0.5, **DOCUMENTED}),
    ("edm_stochastic_heun", 1, True, {"scheduler": "VP", "S_max": 0.5, **DOCUMENTED}),
)
MORE: tuple[tuple[str, int, bool, dict[str, Any]], ...] = (
    ("heun", 2, False, {"scheduler": "IDDPM"}),
    ("euler", 1, False, {"scheduler": "VE"}),
    ("euler", 1, False, {"scheduler": "VP"}),
    ("edm_stochastic_heun", 2, True, {"alpha": 0.5, **CHURN}),
)
