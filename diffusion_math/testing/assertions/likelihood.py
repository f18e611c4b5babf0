"""`assert_likelihood`: the log-density of a model whose network is exact for a Gaussian."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_math.checks import Number, checked, require
from diffusion_math.testing.assertions.network import KINDS, Network
from diffusion_math.testing.assertions.units import UNITS, check_unit, of_other_units
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import LevelsOf, pair_of
from diffusion_math.testing.mistakes.probes import VECTORS, guarded, name_of, tensor
from diffusion_math.testing.mistakes.table import Table

__all__ = ["assert_likelihood"]

SCORE_SDE = "arXiv:2011.13456, appendix D.2"
MEAN, SPREAD = 0.3, 0.8
"""Every entry of the data is N(MEAN, SPREAD^2), independently."""


@checked
def assert_likelihood(
    log_density: Callable[..., Any],
    levels: LevelsOf,
    first: Number,
    last: Number,
    *,
    prior: Number = 1.0,
    predicts: str = "eps",
    unit: str = "nats",
    offset: Number = 0.0,
    tolerance: float = 1e-4,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `log_density(network, x)`, by a probability flow from time `first` to `last`.

    The network is exact for a Gaussian, on which the flow is known. With v = alpha^2 s^2 + sigma^2,

        log p(x) = log N(z; 0, prior^2) + D / 2 log(v_last / v_first),
        z = alpha_last m + sqrt(v_last / v_first) (x - alpha_first m)

    Args:
        log_density: takes `network(x_t, t)`, which returns what `predicts` says, and x of shape
            `(batch, 4)`; returns `(batch,)`.
        levels: `levels(t) -> (alpha, sigma)` of `first`, `last` and what the network is told:
            numbers, or times of shape `(batch,)`.
        first, last: where x is, little noise, and where the prior is, much.
        prior: the prior's deviation.
        unit: "nats", or of the negative log-likelihood "nats/dim" or "bits/dim".
        offset: what is added in that unit: 7 for bits/dim of 8-bit data in [-1, 1].
        tolerance: the relative error that their integrator may leave.
        dtype: that of x.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it, and
    ValueError for arguments that are none. Source: arXiv:2011.13456, appendix D.2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_likelihood
    >>> schedule = dm.RectifiedFlow()
    >>> def log_density(network, x):
    ...     def prior(z):
    ...         return -(z.square() + torch.log(torch.tensor(2 * torch.pi))).sum(1) / 2
    ...     denoise = lambda x_t, t: network(x_t, t)
    ...     return dm.likelihood.flow_log_density(
    ...         schedule, denoise, x, prior, s=0.01, rtol=1e-6, atol=1e-6
    ...     ).log_density
    >>> assert_likelihood(log_density, schedule, 0.01, 1.0, predicts="x0")
    """
    check_unit(unit)
    require(predicts in KINDS, "predicts", f"one of {', '.join(KINDS)}", repr(predicts))
    require(prior > 0, "prior", "a positive deviation", prior)
    require(0 < tolerance < 1e-2, "tolerance", "a number in (0, 0.01)", tolerance)
    (alpha, sigma), (a, s) = (pair_of(levels, time)[:2] for time in (first, last))
    subject = name_of(log_density, "log_density")
    x = torch.tensor(VECTORS, dtype=dtype, device="cpu") * torch.tensor(
        [[0.0], [0.5], [-0.7], [1.0]], dtype=dtype, device="cpu"
    )
    size = x.shape[1]

    def network(x_t: Any, time: Any, *_: Any) -> Tensor:
        return _exact_network(predicts, levels, x_t, time)

    given = guarded(subject, log_density)(Network(network), x)
    found, _ = tensor(subject, given, x[:, :1], tolerance)
    grown = (a**2 * SPREAD**2 + s**2) / (alpha**2 * SPREAD**2 + sigma**2)
    z = a * MEAN + grown**0.5 * (x.double() - alpha * MEAN)
    fast = grown * alpha / a if a > 0 else 1.0  # of twice the score's part
    fast_z = a * MEAN + fast * (x.double() - alpha * MEAN)
    ones = torch.ones(len(x), dtype=torch.float64, device="cpu")
    columns = {
        "squares": z.square().sum(1) / (2 * prior**2),
        "unit squares": z.square().sum(1) / 2,
        "fast squares": fast_z.square().sum(1) / (2 * prior**2),
        "fast growth": ones * size * float(np.log(fast)),
        "nothing": 0 * ones,
        "normaliser": ones * size * float(np.log(2 * np.pi)) / 2,
        "prior": ones * size * float(np.log(prior)),
        "growth": ones * size / 2 * float(np.log(grown)),
    }
    table = Table(tuple(f"x = {row}" for row in x.tolist()), columns, tolerance / 64)
    sign = 1.0 if unit == "nats" else -1.0
    value = partial(_value, sign * UNITS[unit](size), float(offset))
    compare(
        subject,
        {"log-density": found[:, 0]},
        value,
        table,
        table.rows,
        eps=tolerance / 64,
        known=[*_known(value, unit, a > 0), *of_other_units(value, unit, size)],
        right=f"log N(z; 0, prior^2) + D / 2 log(v_last / v_first) ({SCORE_SDE})",
    )


OFFSET = "github.com/yang-song/score_sde_pytorch, likelihood.py"


def _exact_network(predicts: str, levels: LevelsOf, x_t: Any, time: Any) -> Tensor:
    """a E[x0 | x_t] + b E[eps | x_t] of the Gaussian, differentiable in x_t."""
    pair = (torch.as_tensor(each, dtype=torch.float64, device="cpu") for each in levels(time))
    alpha, sigma = (each[..., None] if each.ndim else each for each in pair)
    x = torch.as_tensor(x_t, device="cpu")
    off = (x.double() - alpha * MEAN) / (alpha**2 * SPREAD**2 + sigma**2)
    a, b = KINDS[predicts](alpha, sigma)
    return (a * (MEAN + alpha * SPREAD**2 * off) + b * sigma * off).to(x)


def _value(
    factor: float,
    offset: float,
    at: Mapping[str, Tensor],
    squares: str = "squares",
    growth: float = 1.0,
    volume: str = "growth",
    **parts: float,
) -> dict[str, Tensor]:
    density = growth * at[volume] - at[squares]
    for name in ("normaliser", "prior"):
        density = density - parts.get(name, 1.0) * at[name]
    return {"log-density": factor * density + offset}


def _known(value: Callable[..., dict[str, Tensor]], unit: str, ends: bool) -> Iterator[Mistake]:
    """Parts that are left out, or taken the other way."""
    wrong: Mapping[str, Mapping[str, Any]] = {
        "the divergence is left out: the prior's log-density alone": {"growth": 0.0},
        "the divergence has the other sign": {"growth": -1.0},
        "the divergence is doubled: g^2 where g^2 / 2 belongs": {"growth": 2.0},
        "the divergence is half of what it should be": {"growth": 0.5},
        "the divergence is averaged over dimensions, not summed": {"growth": 1 / len(VECTORS)},
        "the prior is not normalised: log(2 pi) is left out": {"normaliser": 0.0},
        "the prior's log-deviation is left out": {"prior": 0.0},
        "the prior is a standard normal": {"squares": "unit squares", "prior": 0.0},
        "the flow has g^2 where g^2 / 2 belongs, in x and in the divergence": {
            "squares": "fast squares",
            "volume": "fast growth",
        },
        "the prior is left out: the divergence alone": {
            "squares": "nothing",
            "normaliser": 0.0,
            "prior": 0.0,
        },
    }
    for name, parts in wrong.items():
        if parts.get("volume") is None or ends:
            yield Mistake.of(name, partial(value, **parts), SCORE_SDE)
    for by in (-1.0, 1.0) if unit == "bits/dim" else ():
        name = "it is a bit off everywhere: 8-bit data in [0, 1] add 8 bits/dim, in [-1, 1] 7"
        yield Mistake.of(name, partial(_shifted, value, by), OFFSET)


def _shifted(
    value: Callable[..., dict[str, Tensor]], by: float, at: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {name: one + by for name, one in value(at).items()}
