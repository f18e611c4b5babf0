"""The devices of this machine, and the choice of one."""

import copy
from typing import TypeVar

import torch
from torch import nn

__all__ = ["available", "exists", "pick", "placed"]

Network = TypeVar("Network", bound=nn.Module)


def available() -> list[str]:
    """The kinds of device found here, fastest first; "cpu" is always the last."""
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return [*found, "cpu"]


def pick(name: str) -> torch.device:
    """The device of that name ("cuda", "cuda:1", "mps", "cpu"); "auto" is the fastest found.

    Raises ValueError for a device that this machine does not have.
    """
    found = available()
    if name == "auto":
        return torch.device(found[0])
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    valid = kind in found and (index.isdecimal() and int(index) < count if ":" in name else True)
    if not valid:
        raise ValueError(f"device: wanted auto or one of {', '.join(found)}, got {name!r}")
    return torch.device(name)


def exists(name: str) -> bool:
    """Whether this machine has the device of that name."""
    try:
        pick(name)
    except ValueError:
        return False
    return True


def placed(network: Network, device: torch.device) -> Network:
    """The network if it is on the device, else a copy there; the network stays where it is."""
    there = {weight.device for weight in network.parameters()} <= {device}
    return network if there else copy.deepcopy(network).to(device)
