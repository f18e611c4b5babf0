"""`assert_transition`: q(x_t | x_s) between any times, and between times by way of another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.assertions.forward import signal_and_noise
from diffusion_math.testing.mistakes.catalogue import QUANTITIES, Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Rows, Step, Times, pairs_of
from diffusion_math.testing.mistakes.probes import called, coefficients, fields, name_of, time_batch

__all__ = ["assert_transition"]

VDM = "arXiv:2107.00630, appendix A"


@checked
def assert_transition(
    q: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    pairs: Iterable[Sequence[Any]] | None = None,
    batched: bool = True,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `q(x, s, t, noise) -> alpha_{t|s} x + sigma_{t|s} noise`, from s to a noisier t.

    alpha_{t|s} = alpha_t / alpha_s and sigma_{t|s}^2 = sigma_t^2 - alpha_{t|s}^2 sigma_s^2. Then
    two transitions, s to u and u to t, are one from s to t; that is checked by calling `q` twice.

    Args:
        q: takes x and noise `(batch, 4)`, s and t `(batch,)`. See `drawn` for a function that draws
            its noise.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise; two at least.
        pairs: (t, s) of their times; without, each time with the one before it and with the first.
        batched: False for a function of one s and t, plain numbers, and events `(1, 4)`.
        dtype: that of x and noise.

    Raises as `assert_forward` does. Source: VDM (arXiv:2107.00630) appendix A.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_transition
    >>> schedule = dm.VE()
    >>> def q(x, s, t, noise):
    ...     return x + (schedule(t)[1] - schedule(s)[1])[:, None] * noise
    ...
    >>> try:
    ...     assert_transition(q, schedule, [0.1, 1.0, 2.0, 5.0, 9.0])
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2][:66])
      diagnosis: sigma_t - sigma_s, a difference of deviations, not th
    """
    table = Levels.read(levels, times)
    require(len(table.times) > 2, "times", "two times or more", table.times[1:])
    rows = _default(table) if pairs is None else pairs_of(table, pairs)
    subject = name_of(q, "q")
    call = called(subject, q, batched)

    def at(positions: Tensor) -> Tensor:
        return time_batch([table.times[k] for k in positions.tolist()])

    def check(said: str, found: Mapping[str, Tensor], rows: Rows, eps: float) -> None:
        compare(
            said,
            found,
            _exact,
            table,
            rows,
            eps=eps,
            known=KNOWN,
            right=f"sigma_{{t|s}}^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2 ({VDM})",
        )

    t, s = at(rows.t), at(rows.s)
    found, eps = coefficients(
        subject,
        lambda given: call(given["x"], s, t, given["noise"]),
        ("x", "noise"),
        len(t),
        dtype,
        table.eps,
    )
    check(subject, fields(found), rows, eps)
    if len(table.times) == 3:
        return
    rows = Rows(
        torch.arange(3, len(table.times), device="cpu"),
        torch.ones(len(table.times) - 3, device="cpu").long(),
    )
    t, u, s = at(rows.t), at(rows.t - 1), at(rows.s)

    def twice(given: Mapping[str, Tensor]) -> Any:
        return call(call(given["x"], s, u, given["first"]), u, t, given["noise"])

    found, eps = coefficients(subject, twice, ("x", "first", "noise"), len(t), dtype, table.eps)
    found["noise"] = torch.hypot(found.pop("first"), found["noise"])
    check(f"{subject}, from s to t by way of the time before t", fields(found), rows, 2 * eps)


def _default(levels: Levels) -> Rows:
    """Each time with the one before it, and with the first."""
    t = torch.arange(2, len(levels.times), device="cpu")
    return Rows(torch.cat([t, t[1:]]), torch.cat([t - 1, torch.ones_like(t[1:])]))


_x = partial(signal_and_noise, "x")


def _exact(step: Step) -> dict[str, Tensor]:
    return _x(step.alpha_t / step.alpha_s, QUANTITIES["beta"](step).sqrt())


KNOWN = tuple(
    Mistake.of(name, formula, VDM)
    for name, formula in {
        "sigma_t - sigma_s, a difference of deviations, not the root of a difference of squares": (
            lambda step: _x(step.alpha_t / step.alpha_s, step.sigma_t - step.sigma_s)
        ),
        "sqrt(sigma_t^2 - sigma_s^2): sigma_s^2 is not scaled by (alpha_t / alpha_s)^2": (
            lambda step: _x(step.alpha_t / step.alpha_s, (step.sigma_t**2 - step.sigma_s**2).sqrt())
        ),
        "sigma_s^2 is scaled by alpha_t / alpha_s, not by its square": (
            lambda step: _x(
                step.alpha_t / step.alpha_s,
                (step.sigma_t**2 - step.alpha_t / step.alpha_s * step.sigma_s**2).sqrt(),
            )
        ),
        "the coefficient of noise is sigma_{t|s}^2, the variance": (
            lambda step: _x(step.alpha_t / step.alpha_s, QUANTITIES["beta"](step))
        ),
        "the coefficients are those of q(x_t | x_0): s is not used": (
            lambda step: _x(step.alpha_t, step.sigma_t)
        ),
        "x is not scaled by alpha_t / alpha_s": (
            lambda step: _x(torch.ones_like(step.alpha_t), QUANTITIES["beta"](step).sqrt())
        ),
        "x is scaled by (alpha_t / alpha_s)^2, 1 - beta, not by its root": (
            lambda step: _x((step.alpha_t / step.alpha_s) ** 2, QUANTITIES["beta"](step).sqrt())
        ),
    }.items()
)
"""What people write for a transition."""
