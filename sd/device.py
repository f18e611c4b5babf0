"""The devices of this machine, and the choice of one."""

import copy
import warnings
from typing import TypeVar

import torch
from torch import nn

__all__ = ["available", "exists", "pick", "placed", "slow_bfloat16", "warn_slow_bfloat16"]

Network = TypeVar("Network", bound=nn.Module)

BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "avx10_2")
"""The extensions of x86-64 that compute in bfloat16, as PyTorch names them."""


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


def slow_bfloat16(device: torch.device) -> bool:
    """Whether the device is a CPU without instructions for bfloat16, which is slow there.

    False where PyTorch does not tell: an older version, or a processor other than x86-64.
    """
    tell = getattr(torch.cpu, "get_capabilities", None)
    if device.type != "cpu" or tell is None:
        return False
    found = tell()
    return found.get("architecture") == "x86_64" and not any(found.get(one) for one in BFLOAT16)


def warn_slow_bfloat16(device: torch.device, option: str, advice: str) -> None:
    """Warn of bfloat16 on a device where it is slow, naming the option that asks for it."""
    if slow_bfloat16(device):
        why = "bfloat16 is several times slower than float32 on this CPU, which has no instructions"
        warnings.warn(f"{option}: {why} for it; {advice}", stacklevel=3)
