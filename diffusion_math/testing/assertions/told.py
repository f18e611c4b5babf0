"""The time that code under test tells our network, row by row."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import SINGLE, compare
from diffusion_math.testing.mistakes.levels import Levels, Rows
from diffusion_math.testing.mistakes.probes import snapped
from diffusion_math.testing.mistakes.table import Table

__all__ = ["Told", "check_told"]

Told: TypeAlias = Literal["t", "nothing"] | Callable[[Any], Any]
"""The time that a network is told at t: t itself, none that is looked at, or a function of t."""

FIELD = "time told to the network"
CLOCKS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "t + 1": lambda t, ratio, last: t + 1,
    "t - 1": lambda t, ratio, last: t - 1,
    "1 - t": lambda t, ratio, last: 1 - t,
    "1000 * t": lambda t, ratio, last: 1000 * t,
    "1000 * (1 - t)": lambda t, ratio, last: 1000 * (1 - t),
    "t / {last:g}": lambda t, ratio, last: t / last,
    "t / {more:g}": lambda t, ratio, last: t / (last + 1),
    "t // 1": lambda t, ratio, last: t.floor(),
    "sigma / alpha": lambda t, ratio, last: ratio,
    "log(sigma / alpha) / 4": lambda t, ratio, last: ratio.log() / 4,
    "log(sigma / alpha)": lambda t, ratio, last: ratio.log(),
    "2 * log(alpha / sigma)": lambda t, ratio, last: -2 * ratio.log(),
}
"""What networks are told in t's place, as code, with sigma / alpha of t and the last time."""


def _told_times(told: Told, times: Sequence[Any]) -> Tensor | None:
    """What the network should be told at each time, float64; None where that is not looked at.

    Raises ValueError for a function that gives no number.
    """
    if told == "nothing":
        return None
    found = []
    for time in times:
        try:
            found.append(float(told(time)) if callable(told) else float(time))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"told: wanted a number at t = {time}, got {said}") from error
    return torch.tensor(found, dtype=torch.float64, device="cpu")


def check_told(
    subject: str,
    given: Sequence[Any],
    told: Told,
    levels: Levels,
    rows: Rows,
    dtype: torch.dtype,
) -> None:
    """Raise MistakeError unless the network is told the right time of each row.

    given: what it is given beside x_t; one of these is the time. It may be in float32.
    """
    times = [levels.times[k] for k in rows.t.tolist()]
    wanted = _told_times(told, times)
    if wanted is None:
        return
    seen = [one for each in given if (one := _numbers(each, len(times))) is not None]
    assert seen, f"{subject}: the network is told no time beside x_t (told='nothing' allows it)"
    eps = max(SINGLE, torch.finfo(dtype).eps)
    near = [snapped(one, (wanted,), 16 * eps * (1 + wanted.abs())) for one in seen]
    found = next((one for one in near if torch.equal(one, wanted)), near[0])
    step, t = levels.at(rows), torch.tensor(times, dtype=torch.float64, device="cpu")
    last = float(t[-1])
    columns = {"right": wanted, "t": t, "first": t[:1].expand(len(t)), "reversed": wanted.flip(0)}
    for code, clock in CLOCKS.items():
        name = code.format(last=last, more=last + 1)
        columns[name] = clock(t, step.sigma_t / step.alpha_t, last)
    table = Table(tuple(f"t = {time}" for time in times), columns)

    def of(column: str, at: Any) -> dict[str, Tensor]:
        return {FIELD: at[column]}

    said = {"t": "the network is told t itself"}
    said |= {name: f"the network is told {name}" for name in columns if name not in ("right", "t")}
    said["first"] = "every row of the network is told the time of the first row"
    said["reversed"] = "a row of the network is told the time of another row"
    for code in CLOCKS:
        name = code.format(last=last, more=last + 1)
        said[name] += f"; if that is meant, told=lambda t: {name}"
    compare(
        subject,
        {FIELD: found},
        partial(of, "right"),
        table,
        table.rows,
        eps=eps,
        known=[
            Mistake.of(name, partial(of, column))
            for column, name in said.items()
            if not torch.equal(columns[column], wanted)
        ],
        right="t itself" if told == "t" else "told(t)",
    )


def _numbers(value: Any, rows: int) -> Tensor | None:
    """One number, or one for each row, as float64 `(rows,)`; None for what is neither."""
    if value is None or isinstance(value, bool | str | bytes):
        return None
    try:
        array = (
            value.detach().cpu()
            if isinstance(value, Tensor)
            else torch.tensor(np.array(value), device="cpu")
        )
        found = array.double().flatten()
    except (TypeError, ValueError, RuntimeError):
        return None
    whole = found.numel() in (1, rows) and array.dtype not in (torch.bool, torch.complex64)
    return found.expand(rows) if whole else None
