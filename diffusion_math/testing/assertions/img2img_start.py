"""`assert_img2img_start`: the noised image is one of the time that the first call is told."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.assertions.forward import signal_and_noise
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Rows, Times
from diffusion_math.testing.mistakes.probes import (
    coefficients,
    fields,
    guarded,
    name_of,
    parts,
    time_batch,
)

__all__ = ["assert_img2img_start"]

SDEDIT = "arXiv:2108.01073, algorithm 1"


@checked
def assert_img2img_start(
    start: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    settings: Iterable[Any],
    *,
    first_time: Callable[[Any], Any] | None = None,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `start(x0, setting, noise) -> x, t`: x = alpha_t x0 + sigma_t noise, at that very t.

    Args:
        start: takes x0 and noise `(1, 4)` and a setting; gives the first state and the time that
            the first call of the network is told. See `drawn` for a function that draws its noise.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        settings: strengths, or numbers of steps to skip, whatever `start` takes.
        first_time: the time that each setting promises, where that is to be checked too.
        dtype: that of x0 and noise.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError where `start` raises, returns what is no state and time, or a time that is none
    of `times` or not the promised one; ValueError for other arguments. Source: SDEdit
    (arXiv:2108.01073) algorithm 1.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_img2img_start
    >>> schedule = dm.Discrete.linear(50)
    >>> def start(x0, strength, noise):
    ...     t = int(50 * strength)
    ...     alpha, sigma = schedule(t + 1)
    ...     return alpha * x0 + sigma * noise, t
    ...
    >>> try:
    ...     assert_img2img_start(start, schedule, range(1, 51), [0.2, 0.5, 0.8])
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[3])
      diagnosis: every coefficient is its right value of index t + 1
    """
    table = Levels.read(levels, times)
    given = list(settings)
    require(len(given) > 0, "settings", "at least one setting", "none")
    subject = name_of(start, "start")
    safe = guarded(subject, start)
    rows, measured, eps = [], [], 0.0
    all_times = time_batch(table.times[1:]).double()
    for setting in given:
        told: list[Any] = []

        def state(of: Mapping[str, Tensor], setting: Any = setting, told: list[Any] = told) -> Any:
            x, t = parts(subject, safe(of["x0"], setting, of["noise"]), 2)
            told.append(t)
            return x

        found, its = coefficients(
            f"{subject} at {setting}", state, ("x0", "noise"), 1, dtype, table.eps
        )
        at = f"{subject} at {setting}"
        t = _time(at, told[0])
        apart = (all_times - t).abs()
        k = int(apart.argmin()) + 1
        assert apart[k - 1] <= 1e-6 * abs(t), (
            f"{at}: the first call is told {t:g}, which is none of the times"
        )
        promised = t if first_time is None else _time(at, first_time(setting))
        assert abs(promised - t) <= 1e-6 * abs(t), (
            f"{at}: the first call is told {t:g}, wanted {promised:g}"
        )
        rows.append(k)
        found.setdefault("offset", torch.zeros(1, dtype=torch.float64, device="cpu"))
        measured.append(fields(found))
        eps = max(eps, its)
    t_rows = torch.tensor(rows, device="cpu")
    found = {name: torch.cat([each[name] for each in measured]) for name in measured[0]}
    at_rows = _at_times(table, found)
    k = int((at_rows != t_rows).int().argmax())
    nearest = f"the first state is nearest to that of t = {table.times[int(at_rows[k])]}"
    compare(
        subject,
        found,
        lambda step: _x0(step.alpha_t, step.sigma_t),
        table,
        Rows(t_rows, t_rows - 1),
        eps=eps,
        known=[*KNOWN, _of_other_times(t_rows, at_rows)],
        right=f"alpha_t x0 + sigma_t noise at the t of the first call ({SDEDIT}); "
        f"where it is told t = {table.times[int(t_rows[k])]}, {nearest}",
    )


def _at_times(levels: Levels, found: Mapping[str, Tensor]) -> Tensor:
    """The place of the times whose levels the first states have, as nearly as any."""
    alpha, sigma = found["coefficient of x0"], found["coefficient of noise"]
    off = (levels.alpha - alpha[:, None]).abs() + (levels.sigma - sigma[:, None]).abs()
    return off[:, 1:].argmin(1) + 1


def _of_other_times(told: Tensor, at: Tensor) -> Mistake:
    """The noise of these times, each where another is told."""
    place = dict(zip(told.tolist(), at.tolist(), strict=True))

    def values(levels: Levels, rows: Rows) -> dict[str, Tensor]:
        k = torch.tensor([place[t] for t in rows.t.tolist()], device="cpu")
        return _x0(levels.alpha[k], levels.sigma[k])

    return Mistake(
        "the noise is that of another time than the first call is told", values, 2, SDEDIT
    )


def _time(subject: str, told: Any) -> float:
    """A time as a plain number, also of a batch that is told one time."""
    value = told.detach().cpu() if isinstance(told, Tensor) else told
    try:
        return float(np.asarray(value).flat[0])
    except (TypeError, ValueError, IndexError):
        raise AssertionError(f"{subject}: wanted a time, got {told!r}") from None


_x0 = partial(signal_and_noise, "x0")

KNOWN = tuple(
    Mistake.of(name, formula, source)
    for name, formula, source in (
        (
            "the noise is that of the time after the one that the first call is told",
            lambda step: _x0(step.alpha_s, step.sigma_s),
            SDEDIT,
        ),
        (
            "x0 is not scaled by alpha: x0 + sigma noise",
            lambda step: _x0(torch.ones_like(step.alpha_t), step.sigma_t),
            SDEDIT,
        ),
        (
            "x0 and noise are not scaled: x0 + noise",
            lambda step: _x0(torch.ones_like(step.alpha_t), torch.ones_like(step.alpha_t)),
            SDEDIT,
        ),
        (
            "no noise is added: x0 alone",
            lambda step: _x0(torch.ones_like(step.alpha_t), torch.zeros_like(step.alpha_t)),
            SDEDIT,
        ),
        (
            "noise alone: x0 is not used",
            lambda step: _x0(torch.zeros_like(step.alpha_t), torch.ones_like(step.alpha_t)),
            SDEDIT,
        ),
        (
            "the coefficient of noise is sigma^2, the variance",
            lambda step: _x0(step.alpha_t, step.sigma_t**2),
            SDEDIT,
        ),
    )
)
"""What people write for the start of image-to-image sampling."""
