"""A squared error read off around its minimum: where that is, and how steep its walls are."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffusion_math.testing.assertions.network import Network
from diffusion_math.testing.mistakes.probes import LARGE, VECTORS, first, tensor

__all__ = ["Losses", "parabola"]


@final
@dataclass(eq=False)
class Losses:
    """A loss under test, with a network whose output we set; each example's, in float64.

    Attributes:
        call: `(network, x0, t, noise)` to the loss of a batch, of each example, or of each entry.
        event: "mean" or "sum" over an event's entries, where these are given.
        eps: the relative rounding of what was returned.
        whole: whether only the mean of a batch is given.
        rounding: the relative rounding of the levels, which a loss may have too.
    """

    subject: str
    call: Callable[..., Any]
    times: Tensor
    event: str
    dtype: torch.dtype
    eps: float = 2.0**-52
    whole: bool = False
    rounding: float = 0.0
    seen: list[tuple[Any, tuple[Any, ...]]] = field(default_factory=list)

    def batch(self, x0: Tensor, noise: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """What is returned for a batch of these rows, `()` or `(rows,)`: the network returns y."""
        y = y.to(self.dtype)
        given = self._given(x0, noise, y, rows)
        shape = tuple(getattr(given, "shape", ()))
        if shape == ():
            found, eps = tensor(self.subject, given, y.new_zeros(()), self.rounding)
            self.eps = max(eps, torch.finfo(self.dtype).eps)  # y is rounded, whatever is returned
            return found
        whole = shape == (len(rows), len(VECTORS))
        like = y.new_zeros(shape if whole else (len(rows), 1))
        found, eps = tensor(self.subject, given, like, self.rounding)
        self.eps = max(eps, torch.finfo(self.dtype).eps)
        return self._of_events(found)

    def gradient(self, x0: Tensor, noise: Tensor, y: Tensor, rows: Tensor) -> Tensor | None:
        """That of the sum of what is returned in y, `(rows, 4)`; 0 where there is none.

        None for a loss that is not of torch, whose gradient torch does not see.
        """
        y = y.to(self.dtype).requires_grad_()
        with torch.enable_grad(), warnings.catch_warnings(), _Leaving() as leaving:
            warnings.simplefilter("ignore")  # of a number that is made of the loss, for a log
            try:
                given = first(self._given(x0, noise, y, rows))
            except AssertionError:
                if leaving.seen:  # numpy takes no tensor that has a gradient
                    return None
                raise
            if not isinstance(given, Tensor) or (leaving.seen and not given.requires_grad):
                return None
            if not given.requires_grad:
                return torch.zeros_like(y).double()
            whole = given.shape == y.shape
            total = (self._of_events(given) if whole else given).double().sum()
            (found,) = torch.autograd.grad(total, y, allow_unused=True, materialize_grads=True)
        return found.double()

    def _given(self, x0: Tensor, noise: Tensor, y: Tensor, rows: Tensor) -> Any:
        """What is returned; notes what the network is given."""
        self.seen.clear()

        def network(x_t: Any, *others: Any) -> Tensor:
            self.seen.append((x_t.clone() if isinstance(x_t, Tensor) else x_t, others))
            return y.clone()

        given = self.call(
            Network(network), x0.to(self.dtype), self.times[rows], noise.to(self.dtype)
        )
        assert self.seen, f"{self.subject}: the network is not evaluated"
        return given

    def _of_events(self, entries: Tensor) -> Tensor:
        return entries.mean(1) if self.event == "mean" else entries.sum(1)

    def each(self, x0: Tensor, noise: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, `(rows,)`."""
        every = torch.arange(len(self.times), device="cpu")
        found = self.batch(x0, noise, y, every)
        self.whole = found.ndim == 0
        if not self.whole:
            return found
        return torch.stack([self.batch(x0[k], noise[k], y[k], k) for k in every[:, None]])

    def noised(self, given: Mapping[str, Tensor]) -> Tensor:
        """x_t, as the network is given it."""
        every = torch.arange(len(self.times), device="cpu")
        self.batch(given["x0"], given["noise"], torch.zeros_like(given["x0"]), every)
        x_t: Tensor = self.seen[0][0]
        return x_t


@final
class _Leaving(TorchFunctionMode):
    """Notes whether a tensor becomes an array of another library."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__):
            self.seen.append(func)
        return func(*args, **(kwargs or {}))


def parabola(
    losses: Losses, x0: Tensor, noise: Tensor, right: Tensor, size: Tensor, again: bool = True
) -> tuple[Tensor, Tensor]:
    """Where the minimum is, as a multiple of the vector, and the weight, each `(rows,)`.

    L(y) = w mean (y - y*)^2 at y, y + e, y - e, y + 2 e and y + `LARGE` e, with y the right target
    and e a vector of its size; again around the minimum where that is far from y, as differences of
    large numbers say little. AssertionError where these five are on no parabola of that kind.
    """
    vector = torch.tensor(VECTORS, dtype=torch.float64, device="cpu").expand(len(size), -1)
    y, e = right[:, None] * vector, size[:, None] * vector
    at = [losses.each(x0, noise, y + k * e) for k in (0, 1, -1, 2, LARGE)]
    entries = e.square().mean(1) if losses.event == "mean" else e.square().sum(1)
    weight = (at[1] + at[2] - 2 * at[0]) / 2 / entries
    part = ((at[2] - at[1]) / (4 * weight * entries)).nan_to_num(0.0, 0.0, 0.0)
    part = torch.where(part.abs() <= 64 * losses.eps, 0.0, part)
    minimum = right + part * size
    if again and bool((part.abs() > 0.01).any()):
        return parabola(losses, x0, noise, minimum, size, again=False)
    slack = 4096 * losses.eps * weight.abs() * entries * (1 + part.abs()) ** 2
    for k, found in zip((0, 2), (at[0], at[3]), strict=True):
        off = (found - weight * entries * (k - part) ** 2).abs() > slack
        row = int(off.int().argmax())
        assert not bool(off.any()), (
            f"{losses.subject}: wanted a squared error with minimum 0, but it is {at[0][row]:.6g}, "
            f"{at[1][row]:.6g}, {at[2][row]:.6g} and {at[3][row]:.6g} at y, y + e, y - e and "
            f"y + 2 e (t = {losses.times[row]})"
        )
    far = weight * entries * (LARGE - part) ** 2
    bent = ((at[4] - far).abs() > LARGE**2 * slack) & at[4].isfinite()
    row = int(bent.int().argmax())
    assert not bool(bent.any()), (
        f"{losses.subject}: a squared error near its minimum, but not {LARGE} times as far from it:"
        f" got {at[4][row]:.6g}, expected {far[row]:.6g} (t = {losses.times[row]})"
    )
    return minimum, weight
