"""rectified-flow-pytorch's flows, each of one function as a network."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from experiments.audit.peers import _lucidrains as driven
from experiments.audit.peers._isolated_import import without

TIMES = [k / 20 for k in range(19, 0, -1)]
"""Theirs, from little to much noise."""
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
