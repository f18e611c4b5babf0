"""Code that draws its own noise, as a function of that noise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffusion_math.testing.mistakes.probes import name_of

__all__ = ["Draws", "drawn"]


def drawn(function: Callable[..., Any], generator: str | None = None) -> Callable[..., Any]:
    """`function(*arguments)`, which draws one standard normal, as `f(*arguments, noise)`.

    While it runs, the draw is replaced by `noise`: torch.randn, randn_like, normal and Tensor's
    normal_, with or without a generator of torch; numpy.random's normal, standard_normal, randn and
    default_rng.

    Args:
        function: code under test.
        generator: the keyword under which it takes a `numpy.random.Generator`; a `Draws` is given.

    The result raises AssertionError where `function` draws no normal, more than one, or one of
    another size than `noise`.

    >>> import torch
    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import drawn
    >>> def add_noise(x):
    ...     return x + 2 * torch.randn_like(x)
    ...
    >>> drawn(add_noise)(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 4., 6.])
    """

    def replaced(*arguments: Any) -> Any:
        draws = Draws(arguments[-1])
        keywords = {} if generator is None else {generator: draws}
        with draws.everywhere():
            result = function(*arguments[:-1], **keywords)
        assert draws.count == 1, f"wanted one draw of a normal, got {draws.count}"
        return result

    replaced.__name__ = name_of(function, "function")
    return replaced


@final
class Draws:
    """In the place of a `numpy.random.Generator`: standard normals that are a given noise.

    The noise is an array, or a function that gives that of the next draw.

    >>> from diffusion_math.testing import Draws
    >>> Draws([1.0, -2.0]).normal(loc=3.0, scale=0.5, size=2)
    array([3.5, 2. ])
    """

    def __init__(self, noise: Any) -> None:
        self.noise = noise if callable(noise) else torch.as_tensor(noise, device="cpu")
        self.count = 0

    def next(self, size: Any) -> Tensor:
        """The noise in a size; AssertionError where the numbers of entries differ."""
        self.count += 1
        shape = torch.Size([size] if isinstance(size, int) else size or ())
        noise: Tensor = self.noise() if callable(self.noise) else self.noise
        wanted, got = tuple(noise.shape), tuple(shape)
        assert shape.numel() == noise.numel(), f"wanted a normal of shape {wanted}, got {got}"
        return noise.reshape(shape)

    def standard_normal(
        self, size: Any = None, dtype: Any = np.float64, out: np.ndarray | None = None
    ) -> np.ndarray:
        """As `numpy.random.Generator.standard_normal`."""
        value = self.next(size if out is None else out.shape).numpy().astype(dtype)
        if out is not None:
            out[...] = value
        return value

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> np.ndarray:
        """loc + scale times the noise, as `numpy.random.Generator.normal`."""
        shape = np.broadcast(loc, scale).shape if size is None else size
        return np.asarray(loc + scale * self.standard_normal(shape))

    def randn(self, *size: int) -> np.ndarray:
        """As `numpy.random.randn`."""
        return self.standard_normal(size)

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Within, the noise is what torch and numpy draw."""
        names = "normal", "standard_normal", "randn"
        numpy = {name: getattr(self, name) for name in names}
        given = mock.patch.multiple(np.random, default_rng=lambda seed=None: self, **numpy)
        with given, _TorchDraws(self):
            yield


@final
class _TorchDraws(TorchFunctionMode):
    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in _SCALED:
            return func(*args, **kwargs)
        with torch.random.fork_rng(devices=[]):
            result = func(*args, **kwargs)
        noise = self.draws.next(result.shape).to(result)
        mean, deviation = _SCALED[func](*args, **kwargs)
        return result.copy_(mean + deviation * noise)


def _scale(mean: Any = 0.0, std: Any = 1.0, *rest: Any, **others: Any) -> tuple[Any, Any]:
    return mean, std


_SCALED: dict[Any, Callable[..., tuple[Any, Any]]] = {
    torch.randn: lambda *args, **kwargs: (0.0, 1.0),
    torch.randn_like: lambda *args, **kwargs: (0.0, 1.0),
    torch.normal: _scale,
    torch.nn.init.normal_: lambda tensor, *args, **kwargs: _scale(*args, **kwargs),
    Tensor.normal_: lambda tensor, *args, **kwargs: _scale(*args, **kwargs),
}
"""Mean and deviation of a draw, from the arguments of what draws it."""
