"""`assert_decoder`: the bound's last term, log p(x_0 | x_1), of 8-bit or of continuous data."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.elbo import quantized_log_probability
from diffusion_math.gaussian import Gaussian
from diffusion_math.testing.assertions.units import UNITS, check_unit, of_other_units
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.probes import guarded, name_of, tensor
from diffusion_math.testing.mistakes.table import Table

__all__ = ["assert_decoder"]

DDPM = "arXiv:2006.11239, eq. 13"
SCALE = "github.com/bjlkeng/sandbox/issues/10"
CODE = "github.com/openai/guided-diffusion, approx_standard_normal_cdf"
SIZE = 4

SPREADS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "variance": (torch.square, torch.sqrt),
    "deviation": (lambda std: std, lambda std: std),
    "log-variance": (lambda std: 2 * std.log(), lambda given: (given / 2).exp()),
    "log-deviation": (torch.log, torch.exp),
}
"""From a deviation to what is given, and back."""


@checked
def assert_decoder(
    log_probability: Callable[..., Any],
    *,
    quantized: bool = True,
    spread: str = "log-deviation",
    unit: str = "nats",
    tolerance: float = 1e-4,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `log_probability(x0, mean, spread)`, of a Gaussian decoder.

    For 8-bit data, levels 2 k / 255 - 1, an entry has the probability of its bin,
    Phi((x + 1/255 - mean) / std) - Phi((x - 1/255 - mean) / std), and the bins of the first and of
    the last level are open. For continuous data it has its density.

    Args:
        log_probability: takes three tensors `(batch, 4)`; returns that of each example, `(batch,)`,
            or of each entry, which are added.
        quantized: whether the data is of 8 bits.
        spread: what the third argument is: "variance", "deviation", or the logarithm of either,
            "log-variance" or "log-deviation".
        unit: "nats", or of the negative log-likelihood "nats/dim" or "bits/dim".
        tolerance: the relative error allowed: an approximation of Phi by tanh is off by 1e-3.
        dtype: that of the arguments.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it, and
    ValueError for arguments that are none. Source: DDPM (arXiv:2006.11239) eq. 13.

    >>> import torch
    >>> from diffusion_math.testing import assert_decoder
    >>> def density(x0, mean, log_std):
    ...     return torch.distributions.Normal(mean, log_std.exp()).log_prob(x0).sum(1)
    >>> assert_decoder(density, quantized=False)
    >>> try:
    ...     assert_decoder(density)
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2])
      diagnosis: it is the density, not the probability of a bin (arXiv:2006.11239, eq. 13)
    """
    check_unit(unit)
    require(spread in SPREADS, "spread", f"one of {', '.join(SPREADS)}", repr(spread))
    require(0 < tolerance < 1e-2, "tolerance", "a number in (0, 0.01)", tolerance)
    cases = list(product((0, 1, 100, 254, 255), (0.0, 0.9, -0.6), (0.004, 0.02, 0.1)))
    level, offset, std = torch.tensor(cases, dtype=torch.float64, device="cpu").T
    x = 2 * level / 255 - 1
    columns = {"x": x, "offset": offset * std, "std": std}
    subject = name_of(log_probability, "log_probability")
    given = (x, x + columns["offset"], SPREADS[spread][0](std))
    batch = [each.to(dtype)[:, None].expand(-1, SIZE).clone() for each in given]
    result = guarded(subject, log_probability)(*batch)
    whole = tuple(getattr(result, "shape", ())) == tuple(batch[0].shape)
    like = batch[0] if whole else batch[0][:, :1]
    found, _ = tensor(subject, result, like, tolerance)
    names = (f"level {k}, mean off by {by:g} deviations of {s:g}" for k, by, s in cases)
    table = Table(tuple(names), columns, tolerance / 64)
    factor = UNITS[unit](SIZE) * (1 if unit == "nats" else -1)
    value = partial(_value, factor, _quantized if quantized else _density)
    compare(
        subject,
        {"log-probability": _certain(found.sum(1))},
        value,
        table,
        table.rows,
        eps=tolerance / 64,
        known=[*_known(factor, quantized, spread), *of_other_units(value, unit, SIZE)],
        right=f"the log-{'probability of a bin' if quantized else 'density'} ({DDPM})",
    )


Entry = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The log-probability of x by mean and deviation, entry by entry."""


def _value(factor: float, entry: Entry, at: Mapping[str, Tensor]) -> dict[str, Tensor]:
    value = factor * SIZE * entry(at["x"], at["x"] + at["offset"], at["std"])
    return {"log-probability": _certain(value)}


def _certain(value: Tensor) -> Tensor:
    """0 for what is nearly: the logarithm of a probability that is 1 to rounding."""
    return torch.where(value.abs() < 1e-5, 0.0, value)


def _density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return Gaussian(mean[:, None], std.square()[:, None]).log_density(x[:, None])


def _quantized(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    level = (127.5 * (x + 1)).round() / 127.5 - 1  # a nudge of x is one of the mean
    centred = Gaussian((mean - x + level)[:, None], std.square()[:, None])
    return quantized_log_probability(centred, level[:, None])


def _bin(
    x: Tensor,
    mean: Tensor,
    std: Tensor,
    half: float = 1 / 255,
    ends: bool = True,
    phi: Callable[[Tensor], Tensor] = torch.special.ndtr,
) -> Tensor:
    """The same with bins of another width, without open ends, or of another distribution."""
    low, high = phi((x - half - mean) / std), phi((x + half - mean) / std)
    low = torch.where((x < -0.999) & ends, 0.0, low)
    high = torch.where((x > 0.999) & ends, 1.0, high)
    return (high - low).log()


TANH = "tanh, off by 1e-3: if that is meant, tolerance=5e-3"


def _tanh(x: Tensor) -> Tensor:
    """Phi as it is approximated in guided-diffusion."""
    return (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2


def _known(factor: float, quantized: bool, spread: str) -> Iterator[Mistake]:
    right: Entry = _quantized if quantized else _density

    def of(name: str, entry: Entry, source: str = DDPM) -> Mistake:
        return Mistake.of(name, partial(_value, factor, entry), source)

    if quantized:
        yield of("it is the density, not the probability of a bin", _density)
        yield of("the bins of the first and the last level are not open", partial(_bin, ends=False))
        yield of("the bins are half as wide: 1/510 to each side", partial(_bin, half=1 / 510))
        yield of("the bins are twice as wide: 2/255 to each side", partial(_bin, half=2 / 255))
        yield of(
            "the distribution is logistic",
            partial(_bin, phi=torch.sigmoid),
            "arXiv:1701.05517, eq. 2",
        )
        yield of(f"Phi is approximated by {TANH}", partial(_bin, phi=_tanh), CODE)
        yield of("the bins are of 256 levels: 1/256 to each side", partial(_bin, half=1 / 256))
    else:
        yield of("it is the probability of an 8-bit bin, not the density", _quantized)
        yield of(
            "log(2 pi) / 2 is left out",
            lambda x, mean, std: _density(x, mean, std) + 0.9189385332046727,
        )

    def misread(kind: str, least: float, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        read = SPREADS[kind][1](SPREADS[spread][0](std))
        return right(x, mean, read).clamp(min=least)

    logarithm = spread.startswith("log")
    for kind in SPREADS:
        if kind != spread and kind.startswith("log") == logarithm:
            for least in (-torch.inf, math.log(1e-12)):  # probabilities are often kept from 0
                name = f"the {spread} is taken for a {kind}"
                yield of(name, partial(misread, kind, least), SCALE)
