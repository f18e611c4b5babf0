"""The parts of NVIDIA PhysicsNeMo that have formulas of diffusion.

They are read without the packages around them, which want a GPU's kernels and networks.
"""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from experiments.audit.peers._isolated_import import parts_of

PARTS = (
    "noise_schedulers",
    "samplers.samplers",
    "metrics.losses",
    "preconditioners.preconditioners",
    "guidance.dps_guidance",
)
BARE = ("samplers", "metrics", "preconditioners", "guidance", "utils")
STAND_INS: dict[str, dict[str, Any]] = {
    "physicsnemo.core": {},
    "physicsnemo.core.meta": {"ModelMetaData": object},
    "physicsnemo.core.module": {"Module": nn.Module},
    "physicsnemo.domain_parallel": {},
    "physicsnemo.domain_parallel.shard_tensor": {"scatter_tensor": None},
    "tensordict": {"TensorDict": type("TensorDict", (), {})},
}
UNTRIED = {
    "DomainParallelNoiseScheduler": "another scheduler on several devices",
    "StudentTEDMNoiseScheduler, sampling": "its noise is no Gaussian, as it says",
    "deterministic_sampler, stochastic_sampler": "legacy: to be deprecated, as they warn",
    "EDMLoss, VPLoss, VELoss, ResidualLoss": "legacy: to be deprecated, as they warn",
    "EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond": "legacy: to be deprecated, as they warn",
    "MultiDiffusionPredictor": "patches of an image, not a formula of diffusion",
}
"""What has to do with diffusion and is not audited: why."""


@cache
def library() -> SimpleNamespace:
    """All that its parts export, by name."""
    bare = ["physicsnemo.diffusion", *(f"physicsnemo.diffusion.{one}" for one in BARE)]
    parts = [f"physicsnemo.diffusion.{one}" for one in PARTS]
    return parts_of("physicsnemo", parts, bare, STAND_INS)


def scheduler(name: str, **options: Any) -> Any:
    return getattr(library(), name)(**options)


def levels_of(own: Any) -> Callable[[Any], tuple[float, float]]:
    def levels(t: Any) -> tuple[float, float]:
        time = torch.as_tensor(t, dtype=torch.float64)
        return float(own.alpha(time)), float(own.sigma(time))

    return levels


def times_of(own: Any) -> list[float]:
    """Its own of 40 steps, from little to much noise."""
    found: list[float] = own.timesteps(40, dtype=torch.float64)[:-1].flip(0).tolist()
    return found
