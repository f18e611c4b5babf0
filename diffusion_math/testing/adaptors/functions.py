"""Functions of other arrays, of other shapes, and with a network that is an object's own."""

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_math.checks import require
from diffusion_math.testing.assertions.network import Network
from diffusion_math.testing.mistakes.probes import name_of

__all__ = ["arrays", "shaped", "with_network"]


def arrays(
    function: Callable[..., Any], to: Callable[[np.ndarray], Any] = np.asarray
) -> Callable[..., Any]:
    """A function of arrays of another library, as one of tensors: numpy at the border.

    Tensors among the arguments become `to(numpy array)`, arrays among the results, in tuples and
    lists too, become tensors. A function among the arguments, such as a network, is called with
    tensors by our side and with arrays by theirs; so is one that is returned.

    Args:
        function: of numpy arrays, or of those that `to` makes.
        to: numpy array to theirs: `jax.numpy.asarray`, `tf.convert_to_tensor`, `mx.array`.

    >>> import numpy as np
    >>> import torch
    >>> from diffusion_math.testing import adaptors
    >>> def q_sample(x0, t, noise):
    ...     return np.cos(t)[:, None] * x0 + np.sin(t)[:, None] * noise
    >>> x = torch.ones(1, 2)
    >>> adaptors.arrays(q_sample)(x, torch.zeros(1), x)
    tensor([[1., 1.]])
    """

    def theirs(value: Any) -> Any:
        if isinstance(value, Tensor):
            return to(value.detach().cpu().numpy())
        return arrays_back(value) if callable(value) else value

    def ours(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(map(ours, value))
        if isinstance(value, FunctionType | MethodType | partial):
            return arrays(value, to)
        return torch.from_numpy(np.array(value)) if hasattr(value, "__array__") else value

    def arrays_back(network: Callable[..., Any]) -> Callable[..., Any]:
        """Of ours, as they call it."""
        return lambda *given, **named: theirs(
            network(*map(ours, given), **{name: ours(one) for name, one in named.items()})
        )

    def call(*given: Any, **named: Any) -> Any:
        return ours(function(*map(theirs, given), **{k: theirs(v) for k, v in named.items()}))

    return _named(call, function)


def shaped(function: Callable[..., Any], event: Sequence[int]) -> Callable[..., Any]:
    """A function of events of one shape, as one of `(batch, D)`: images for what takes vectors.

    Tensors of two axes become `(batch, *event)`, and results of that shape `(batch, D)` again.
    Networks among the arguments are called with `(batch, D)`.

    Raises ValueError, when called, for events that do not have D entries.

    >>> import torch
    >>> from diffusion_math.testing import adaptors
    >>> adaptors.shaped(lambda x: x.mean((2, 3), keepdim=True) + 0 * x, (1, 2, 2))(torch.eye(4)[:1])
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    shape = tuple(event)

    def theirs(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim == 2:
            wanted = f"a shape of {value.shape[1]} entries"
            require(value.shape[1] == torch.Size(shape).numel(), "event", wanted, shape)
            return value.reshape(len(value), *shape)
        if callable(value) and not isinstance(value, Tensor):
            return lambda *given, **named: theirs(value(*map(ours, given), **named))
        return value

    def ours(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(map(ours, value))
        is_event = isinstance(value, Tensor) and value.ndim > 1 and value.shape[1:] == shape
        return value.reshape(len(value), -1) if is_event else value

    return _named(lambda *given, **named: ours(function(*map(theirs, given), **named)), function)


def with_network(
    function: Callable[..., Any], owner: Any, attribute: str = "model"
) -> Callable[..., Any]:
    """A method that evaluates its object's own network, as a function of a network first.

    While it runs, `owner.attribute` is that network, in a module where modules belong; then it is
    what it was. `lucidrains`' loss is `with_network(diffusion.p_losses, diffusion)`.

    Raises ValueError where the owner has no such attribute.

    >>> import torch
    >>> from diffusion_math.testing import adaptors
    >>> class Diffusion:
    ...     model = torch.nn.Identity()
    ...     def loss(self, x0, t, noise):
    ...         return (self.model(x0 + t * noise, t) - noise).square().mean()
    >>> one, mine = torch.ones(1), Diffusion()
    >>> loss = adaptors.with_network(mine.loss, mine)
    >>> loss(lambda x, t: x - 1, one, one, one)
    tensor(0.)
    """
    wanted = f"an object that has the attribute {attribute!r}"
    require(hasattr(owner, attribute), "owner", wanted, f"a {type(owner).__name__}")

    def call(network: Callable[..., Any], *given: Any, **named: Any) -> Any:
        before = getattr(owner, attribute)
        theirs = isinstance(network, nn.Module) and not isinstance(network, Network)
        module = isinstance(before, nn.Module) and not theirs
        setattr(owner, attribute, _Network(network, before) if module else network)
        try:
            return function(*given, **named)
        finally:
            setattr(owner, attribute, before)

    return _named(call, function)


@final
class _Network(nn.Module):
    """A function as a module; other attributes are those of the module in whose place it is."""

    def __init__(self, network: Callable[..., Any], before: nn.Module) -> None:
        super().__init__()
        self.network, self.before = network, before

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.network(*given, **named)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("before"), name)


def _named(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function under the name of another, which messages say."""
    call.__name__ = name_of(function, "function")
    return call
