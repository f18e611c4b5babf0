"""MONAI's schedulers and its inferer, by name."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

SHORT = {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.2}
BOUND = {"num_train_timesteps": 20, "beta_end": 0.2}
"""A short table, all of whose terms a bound evaluates at once."""


def scheduler_of(kind: str, **options: Any) -> Any:
    clip = {"clip_sample": False} if kind in ("DDPMScheduler", "DDIMScheduler") else {}
    return getattr(import_module("monai.networks.schedulers"), kind)(**{**clip, **options})


def inferer_of(own: Any) -> Any:
    return import_module("monai.inferers").DiffusionInferer(own)


def levels_of(own: Any) -> Callable[[Any], tuple[Tensor, Tensor]]:
    abar = own.alphas_cumprod.double()
    return lambda t: (abar[t] ** 0.5, (1 - abar[t]) ** 0.5)
