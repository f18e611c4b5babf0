"""rectified-flow-pytorch's flows, each of one function as a network, and exact networks."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._isolated_import import without

Found = dict[tuple[str, str], Callable[[], Any]]
"""What checks each formula, by what is exported and the formula's name."""


def module(name: str) -> Any:
    """One of the library's modules."""
    beside = "torchvision", "accelerate", "datasets", "x_unet", "x_transformers"
    with without(*beside, "rotary_embedding_torch"):
        return driven.quiet(import_module(f"rectified_flow_pytorch.{name}"))


class Net(nn.Module):
    """A function of x and of times as a network."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, *times: Tensor, **named: Tensor) -> Tensor:
        return self.function(x, *times, *named.values())


def flow(name: str, network: Any, **options: Any) -> Any:
    """A flow of one network, on data as it is."""
    where = {
        "RectifiedFlow": "rectified_flow",
        "NanoFlow": "nano_flow",
        "MeanFlow": "mean_flow",
        "SplitMeanFlow": "split_mean_flow",
        "LsdFlow": "lsd_flow",
        "SoFlow": "soflow",
        "RecursiveFlow": "recursive_flow",
    }[name]
    plain: dict[str, Any] = {"data_normalize_fn": None, "data_unnormalize_fn": None}
    timed: dict[str, dict[str, Any]] = {
        "RectifiedFlow": plain,
        "NanoFlow": {"times_cond_kwarg": "times"},
    }
    return getattr(module(where), name)(Net(network), **{**timed.get(name, {}), **options})


SPREAD = 0.5
"""The deviation of data whose flow is known: x_t is x_s times the ratio of its deviations."""


def deviation(t: Tensor) -> Tensor:
    """Of x_t, where t = 1 is noise."""
    return ((1 - t) ** 2 * SPREAD**2 + t**2).sqrt()


def average_velocity(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """(x_t - x_s) / (t - s) of the flow through x at t, noise at 1; the velocity at s = t."""
    t, s = (each.reshape(-1, *([1] * (x.ndim - 1))) for each in (t, s))
    same = (t - s).abs() < 1e-9
    now = x * (t - (1 - t) * SPREAD**2) / deviation(t) ** 2
    step = torch.where(same, torch.ones_like(t), t - s)
    return torch.where(same, now, x * (1 - deviation(s) / deviation(t)) / step)


def of_average(name: str) -> Callable[..., Tensor]:
    """The exact network of each library's class that learns average velocities."""

    def towards_data(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return -average_velocity(x, 1 - s, 1 - t)

    return {
        "MeanFlow": lambda x, t, delta: average_velocity(x, t, t - delta),
        "SplitMeanFlow": lambda x, t, delta: towards_data(x, t, t - delta),
        "LsdFlow": towards_data,
        "SoFlow": average_velocity,
    }[name]
