"""Offloading: only the network in use has its weights in memory.

When a module of a network is called, the weights of the network are read from their file and those
of the last network are released. Weights of the right dtype and device are memory-mapped, others
are converted again, so that results do not change.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from sd.checkpoint.component import Component

__all__ = ["Offload", "Parked"]

HALVES = {"vae": (("encoder", "quant_conv"), ("decoder", "post_quant_conv"))}
"""Networks whose halves are loaded separately."""
CPU = torch.device("cpu")


@final
@dataclass(frozen=True, eq=False)
class Parked:
    """A network and the source of its weights.

    Attributes:
        network: the network, in evaluation mode.
        part: its tensors in the file.
        dtype: the dtype of its weights.
        kept: weights that differ from the file, on the CPU.
    """

    network: nn.Module
    part: Component
    dtype: torch.dtype
    kept: dict[str, Tensor] = field(default_factory=dict)

    def read(self, name: str, like: Tensor, device: torch.device) -> Tensor:
        """The weight of that name, in the shape of `like`."""
        if name in self.kept:
            return self.kept[name].to(device)
        return self.part.read(name, tuple(like.shape), self.dtype, device)


class _Group(NamedTuple):
    """Children of a network that are in memory together."""

    home: Parked
    children: tuple[str, ...]

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {name: self.home.network.get_submodule(name) for name in self.children}


@final
class Offload:
    """The networks of a model, of which one at a time has its weights in memory.

    The others are on the meta device. Weights that are changed in place are lost with the next
    network; use `keep` for those.

    Args:
        homes: the networks, by kind.
        device: the device on which they compute.
    """

    def __init__(self, homes: Mapping[str, Parked], device: torch.device) -> None:
        self.device = device
        self._homes = homes
        self._now: _Group | None = None
        for kind, home in homes.items():
            home.network.to("meta")
            whole = tuple(name for name, _ in home.network.named_children())
            for children in HALVES.get(kind, (whole,)):
                self._listen(_Group(home, children))

    def release(self) -> None:
        """Release all weights."""
        if self._now is not None:
            for module in self._now.modules.values():
                module.to("meta")
            self._now.home.part.source.release()
        self._now = None

    def read(self, kind: str, name: str) -> Tensor:
        """A weight on the CPU, memory-mapped or as a copy."""
        home = self._homes[kind]
        return home.read(name, home.network.get_parameter(name), CPU)

    def weights(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        """The names and weights of a network on the CPU, one at a time."""
        home = self._homes[kind]
        for name, value in home.network.state_dict().items():
            yield name, home.read(name, value, CPU)
        home.part.source.release()

    def keep(self, kind: str, name: str, value: Tensor) -> Tensor:
        """Replace a weight by `value`, which stays in memory; returns `value`.

        A value of another shape replaces the parameter of the network, too.
        """
        self.release()
        home = self._homes[kind]
        module_name, _, leaf = name.rpartition(".")
        module = home.network.get_submodule(module_name)
        setattr(module, leaf, nn.Parameter(value.to("meta"), requires_grad=False))
        home.kept[name] = value
        return value

    def _listen(self, group: _Group) -> None:
        """Load the group when one of its modules is called."""

        def called(module: nn.Module, given: Any) -> None:
            self._load(group)

        for module in group.modules.values():
            module.register_forward_pre_hook(called)

    def _load(self, group: _Group) -> None:
        if self._now is group:
            return
        self.release()
        read = {
            child: {
                name: group.home.read(f"{child}.{name}", value, self.device)
                for name, value in module.state_dict().items()
            }
            for child, module in group.modules.items()
        }
        for child, module in group.modules.items():
            module.load_state_dict(read.pop(child), strict=True, assign=True)
        self._now = group
