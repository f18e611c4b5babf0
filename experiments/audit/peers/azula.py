"""azula's samplers: objects that sample from t = 1 to 0 over their own `timesteps`."""

from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise
from diffusion_math.schedule import Schedule, VPLinear
from diffusion_math.testing.sampler import Sampler
from experiments.audit.subject import Subject, along, subjects_of

SAMPLERS: dict[str, tuple[int, bool]] = {
    "DDPMSampler": (1, True),
    "DDIMSampler": (1, False),
    "EulerSampler": (1, False),
    "HeunSampler": (2, False),
    "ItoSampler": (1, True),
    "zABSampler": (2, False),
    "vABSampler": (2, False),
    "zEABSampler": (2, False),
    "xEABSampler": (2, False),
    "REABSampler": (2, False),
}
"""Each class, its order (the weak order where it draws noise), and whether it is noisy."""

LAST = 1e-3
"""The last time of its own grids here: several of its samplers have no value at t = 0."""


def sampler(name: str, claimed: int, noisy: bool, **options: Any) -> Sampler:
    """One of the library's classes as a sampler of any grid, on the linear VP schedule."""
    kind = getattr(import_module("azula.sample"), name)
    schedule: Schedule = VPLinear()

    def sample(denoise: Denoiser, x: Tensor, grid: Tensor, noise: Noise) -> Tensor | list[Tensor]:
        pairs = {float(t): (t, s) for t, s in pairwise(grid)}
        now = [grid[0], grid[1]]
        seen: dict[float, Tensor] = {}

        class Model:
            """What azula calls a denoiser: it knows its schedule and gives a distribution."""

            def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
                return schedule(t)

            def __call__(self, x: Tensor, t: Tensor, **_: Any) -> SimpleNamespace:
                now[:] = pairs.get(float(t), now)
                seen[float(t)] = x.clone()
                return SimpleNamespace(mean=denoise(x, t))

        on_grid = type(name, (kind,), {"timesteps": grid})
        sample = on_grid(Model(), silent=True, **options)
        with patch.object(torch, "randn_like", lambda like: noise(like, *now)):
            end: Tensor = sample(x)
        return along(grid, seen, end)

    def grid(n: int) -> Tensor:
        return trailing(schedule, n, end=LAST)

    exact = name not in ("ItoSampler", "REABSampler")
    return Sampler(name, schedule, sample, grid, claimed, noisy, exact=exact, level_tolerance=1e-6)


def subjects(quick: bool) -> Iterator[Subject]:
    """Every sampler at its defaults; other orders and etas beside."""
    cases: list[tuple[str, int, bool, dict[str, Any]]] = [
        (name, order, noisy, {}) for name, (order, noisy) in SAMPLERS.items()
    ]
    if not quick:
        adams = [name for name in SAMPLERS if "AB" in name]
        cases += [(name, n, False, {"order": n}) for name in adams for n in (1, 3)]
        cases += [("DDIMSampler", 1, True, {"eta": 1.0}), ("ItoSampler", 1, False, {"eta": 0.0})]
    return subjects_of("azula", sampler, cases)
