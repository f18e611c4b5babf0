"""An accelerator whose numbers lie on the CPU: what a real one refuses is refused, the rest runs.

`meta`, the other stand-in, has no numbers, so nothing can be brought back from it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

AWAY, HERE = torch.device("cuda"), torch.device("cpu")


def away(x: Tensor) -> bool:
    """Whether a tensor lies on the accelerator."""
    return getattr(x, "lies_away", False)


class Elsewhere(TorchFunctionMode):
    """While it is entered: results lie where their arguments do, as far as these lie together.

    A tensor of no axes goes with either device; `numpy` wants the CPU.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        there = [away(one) for one in tensors]
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return AWAY if there[0] else HERE
        if func is Tensor.numpy and there[0]:
            raise TypeError("numpy: wanted a tensor on the CPU")
        result = any(there) and func is not Tensor.cpu
        if func is Tensor.to:
            target = kwargs.pop("device", args[1] if len(args) > 1 else None)
            if isinstance(target, Tensor):
                args, result = (args[0], target.dtype, *args[2:]), there[1]
            elif isinstance(target, str | torch.device):
                rest = (one for one in (*args[2:], kwargs.pop("dtype", None)) if one is not None)
                args, result = (args[0], HERE, *rest), torch.device(target) == AWAY
        elif kwargs.get("device") == AWAY:
            kwargs["device"], result = HERE, True
        elif result and any(one.ndim and not away(one) for one in tensors):
            raise RuntimeError(f"{func}: wanted tensors on one device")

        def placed(one: Tensor) -> Tensor:
            one = one.clone() if away(one) != result else one
            one.lies_away = result  # type: ignore[attr-defined]
            return one

        return tree_map_only(Tensor, placed, func(*args, **kwargs))
