"""Networks that take turns: the one at work has its weights in memory, the others wait without.

A turn begins when a module of the network is called, and ends when another network's begins. At its
beginning the weights come from their file: mapped where they have the type and the device already,
else read and converted once more, so that every number is what it would have been.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from sd.checkpoint.component import Component

__all__ = ["Offload", "Parked"]

APART = {"vae": (("encoder", "quant_conv"), ("decoder", "post_quant_conv"))}
"""The halves of a network that have turns of their own."""
CPU = torch.device("cpu")


@final
@dataclass(frozen=True, eq=False)
class Parked:
    """Where a network's weights are while it waits.

    Attributes:
        network: in evaluation mode.
        part: its tensors in the file.
        dtype: that they are wanted in.
        kept: on the CPU, what is no longer as the file has it.
    """

    network: nn.Module
    part: Component
    dtype: torch.dtype
    kept: dict[str, Tensor] = field(default_factory=dict)

    def read(self, name: str, like: Tensor, device: torch.device) -> Tensor:
        """The weight of that name, of a shape like that."""
        if name in self.kept:
            return self.kept[name].to(device)
        return self.part.read(name, tuple(like.shape), self.dtype, device)


class _Turn(NamedTuple):
    """What is in memory together: some children of a network."""

    home: Parked
    children: tuple[str, ...]

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {name: self.home.network.get_submodule(name) for name in self.children}


@final
class Offload:
    """Who of the networks has weights; the others are on the meta device.

    Weights that are changed in place are forgotten at the end of the turn: `keep` is for those.

    Args:
        homes: of the networks, by kind.
        device: where a network works.
    """

    def __init__(self, homes: Mapping[str, Parked], device: torch.device) -> None:
        self.device = device
        self._homes = homes
        self._now: _Turn | None = None
        for kind, home in homes.items():
            home.network.to("meta")
            whole = tuple(name for name, _ in home.network.named_children())
            for children in APART.get(kind, (whole,)):
                self._listen(_Turn(home, children))

    def rest(self) -> None:
        """No network has weights any more."""
        if self._now is not None:
            for module in self._now.modules.values():
                module.to("meta")
            self._now.home.part.source.release()
        self._now = None

    def read(self, kind: str, name: str) -> Tensor:
        """A weight, on the CPU: mapped, or a copy."""
        home = self._homes[kind]
        return home.read(name, home.network.get_parameter(name), CPU)

    def weights(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        """All weights of a network with their names, on the CPU, one at a time."""
        home = self._homes[kind]
        for name, value in home.network.state_dict().items():
            yield name, home.read(name, value, CPU)
        home.part.source.release()

    def keep(self, kind: str, name: str, value: Tensor) -> Tensor:
        """Take this for a weight from the next turn on; it stays in memory. The result is `value`.

        Where the shape is another, the network's own parameter is replaced, too.
        """
        self.rest()
        home = self._homes[kind]
        module_name, _, leaf = name.rpartition(".")
        module = home.network.get_submodule(module_name)
        setattr(module, leaf, nn.Parameter(value.to("meta"), requires_grad=False))
        home.kept[name] = value
        return value

    def _listen(self, turn: _Turn) -> None:
        """Begin the turn whenever one of its modules is called."""

        def called(module: nn.Module, given: Any) -> None:
            self._begin(turn)

        for module in turn.modules.values():
            module.register_forward_pre_hook(called)

    def _begin(self, turn: _Turn) -> None:
        if self._now is turn:
            return
        self.rest()
        read = {
            child: {
                name: turn.home.read(f"{child}.{name}", value, self.device)
                for name, value in module.state_dict().items()
            }
            for child, module in turn.modules.items()
        }
        for child, module in turn.modules.items():
            module.load_state_dict(read.pop(child), strict=True, assign=True)
        self._now = turn
