"""bionemo-moco's times: the grids to sample at, and the ranges of random times."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.audit.peers.bionemo_tokens import close, part


def of_times() -> dict[tuple[str, str], Callable[[], Any]]:
    """Times to sample at, and the ranges of random times."""
    schedules = part("schedules.inference_time_schedules")
    found: dict[tuple[str, str], Callable[[], Any]] = {}
    for kind in ("DiscreteLinear", "Linear", "Power", "Log"):
        name = f"{kind}InferenceSchedule"
        make = getattr(schedules, name)
        found[f"{name}(dilation=1)", "number of steps"] = partial(_number, make)
        if kind != "DiscreteLinear":
            found[f"{name}.discretize", "sum"] = partial(_whole, make)
            more = {"exponent": 2.0} if kind == "Power" else {}
            found[f"{name}(min_t=0.1)", "range"] = partial(_least, make, more)
    for kind in ("Uniform", "SymmetricUniform", "Beta", "LogitNormal"):
        name = f"{kind}TimeDistribution"
        make = getattr(part(f"distributions.time.{MODULES.get(kind, 'uniform')}"), name)
        found[f"{name}(max_t=0.5)", "range"] = partial(_most, make)

    def entropic() -> None:
        """Data of deviation 0.1, whose flow is v = (t 0.01 - (1 - t)) x / variance."""

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return (0.01 * t - (1 - t)) * x / (0.01 * t**2 + (1 - t) ** 2)

        def normals(n: int) -> Tensor:
            return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))

        grid = schedules.EntropicInferenceSchedule(
            velocity, normals, lambda n: 0.1 * normals(n), nsteps=10
        ).generate_schedule()
        close(grid[0], 0.0)

    return found | {("EntropicInferenceSchedule", "grid"): entropic}


def _number(make: Any) -> None:
    close(len(make(10, dilation=1).generate_schedule()), 10)


def _whole(make: Any) -> None:
    """The steps lead from the first time to the end, up or down."""
    for direction in ("unified", "diffusion"):
        close(make(10, direction=direction).discretize().sum(), 1.0)


def _least(make: Any, more: dict[str, Any]) -> None:
    close(make(10, min_t=0.1, **more).generate_schedule().min(), 0.1)


def _most(make: Any) -> None:
    t = make(min_t=0.0, max_t=0.5).sample(1000)
    assert t.max() <= 0.5, f"got times up to {float(t.max()):.2f}, expected up to 0.5"


MODULES = {"Beta": "beta", "LogitNormal": "logit_normal"}
