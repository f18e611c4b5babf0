"""The noise levels of an object, from the tables that it has."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_math.testing.mistakes.levels import LevelsOf
from diffusion_math.testing.objects.names import TABLE_NAMES

__all__ = ["Noise", "found", "of_sigmas", "of_tables", "tables"]


class Noise(NamedTuple):
    """What the times of an object mean.

    Attributes:
        levels: (alpha, sigma) of x_t.
        added: (alpha, sigma) of what adding noise gives: (1, sigma / alpha) where samples are kept
            divided by alpha.
        times: all times, from little to much noise.
        source: which table the levels are from.
        skipped: how many entries of the tables come before the first time.
    """

    levels: LevelsOf
    added: LevelsOf
    times: Sequence[Any]
    source: str
    skipped: int = 0


def found(thing: Any, name: str) -> Any:
    """An attribute; None where the object has none, or raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of attributes that are deprecated
        try:
            return getattr(thing, name, None)
        except Exception:  # code under test may raise anything
            return None


def tables(thing: Any) -> dict[str, tuple[str, Tensor]]:
    """Each quantity of which the object has a table, to the table's name and entries."""
    all_found = {}
    for quantity, names in TABLE_NAMES.items():
        for name in names:
            value = found(thing, name)
            entries = None if value is None or callable(value) else _entries(value)
            if entries is not None and quantity not in all_found:
                all_found[quantity] = name, entries.clone()
    return all_found


def _entries(value: Any) -> Tensor | None:
    """A table's entries, `(entries,)` in their dtype, on the CPU; None for what is no table."""
    try:
        entries = (
            value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value, device="cpu")
        )
    except (TypeError, ValueError, RuntimeError):
        return None
    return entries.reshape(-1) if entries.is_floating_point() and entries.numel() > 1 else None


WAYS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("alphas_cumprod", lambda table: table),
    ("sqrt_alphas_cumprod", torch.square),
    ("betas", lambda betas: (1 - betas.double()).cumprod(0).to(betas)),
    ("alphas", lambda alphas: alphas.double().cumprod(0).to(alphas)),
)
"""Tables that give abar, the first that there is."""


def of_tables(have: dict[str, tuple[str, Tensor]], first: int | None) -> Noise | None:
    """The noise levels of tables; `first` is the time of their first entry with noise.

    None where no table says.
    """
    for quantity, abar_of in WAYS:
        if quantity in have:
            name, values = have[quantity]
            abar = abar_of(values)
            break
    else:
        return None

    skipped = int(abar[0] == 1)  # the entry of clean data
    first = skipped if first is None else first

    def levels(t: Any) -> tuple[Tensor, Tensor]:
        one = abar[int(t) - first + skipped]
        return one.sqrt(), (1 - one).sqrt()

    times = range(first, first + len(abar) - skipped)
    return Noise(levels, levels, times, name, skipped)


def of_sigmas(thing: Any, table: Noise | None) -> Noise | None:
    """Of diffusers' schedulers that have a sigma for each of their timesteps, much noise first.

    Where all are entries of the table of abar, that is what they mean. None for other objects.
    """
    given, steps = found(thing, "sigmas"), found(thing, "timesteps")
    if given is None or steps is None:
        return None
    sigmas, timesteps = (
        np.array(torch.as_tensor(each, device="cpu").tolist()) for each in (given, steps)
    )
    straight = table is None and hasattr(thing, "scale_noise")
    start = found(thing, "init_noise_sigma")  # the deviation of what sampling starts from
    scale = start is not None and float(start) > 1 and not straight
    sigma_of = dict(zip(timesteps.tolist(), sigmas, strict=False))
    by_table = table is not None and bool(np.isin(timesteps, table.times).all())
    if not by_table and len(sigma_of) == 0:
        return None

    def levels(t: Any) -> tuple[Any, Any]:
        if table is not None and by_table:
            return table.levels(t)
        sigma = np.float32(sigma_of[t])
        if straight:
            return 1 - sigma, sigma
        alpha = 1 / np.sqrt(1 + sigma**2)
        return alpha, sigma * alpha

    def unscaled(t: Any) -> tuple[Any, Any]:
        alpha, sigma = levels(t)
        return np.float32(1), np.float32(sigma / alpha)

    times = sorted(sigma_of, key=None if by_table else sigma_of.__getitem__)
    source = table.source if table is not None and by_table else "sigmas"
    return Noise(levels, unscaled if scale else levels, times, source)
