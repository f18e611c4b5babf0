"""`assert_posterior`: q(x_s | x_t, x_0), both coefficients and the variance at every index."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion_math.checks import Number, checked, require
from diffusion_math.testing.mistakes.catalogue import QUANTITIES, Evaluated, Formula, Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import (
    Levels,
    LevelsOf,
    Rows,
    Step,
    Times,
    neighbours,
    pairs_of,
)
from diffusion_math.testing.mistakes.probes import (
    coefficients,
    events,
    fields,
    guarded,
    moments,
    name_of,
    one_by_one,
    parts,
    tensor,
    time_batch,
)

__all__ = [
    "First",
    "Spread",
    "assert_posterior",
    "first_in_use",
    "first_variance",
    "in_spread",
]

Spread = Literal["variance", "deviation", "log-variance"]
"""What stands for the variance: itself, its root or its logarithm."""

First = Number | Literal["second"]
"""The variance at the first index, whose exact one is 0: a number, or that of the second."""

DDPM = "arXiv:2006.11239, eq. 7"
CODE = "github.com/openai/guided-diffusion, alphas_cumprod_prev"

RIGHT = (
    "mean sqrt(abar_s) beta / (1 - abar_t) x0 + sqrt(1 - beta) (1 - abar_s) / (1 - abar_t) x_t, "
    "variance beta~ = (1 - abar_s) / (1 - abar_t) beta"
)


@checked
def assert_posterior(
    posterior: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    spread: Spread = "variance",
    first: First = 0,
    pairs: Iterable[Sequence[Any]] | None = None,
    batched: bool = True,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `posterior(x0, x_t, t) -> mean, variance` of q(x_s | x_t, x_0), s the time before t.

    mean = alpha_s sigma_{t|s}^2 / sigma_t^2 x0 + alpha_{t|s} sigma_s^2 / sigma_t^2 x_t;
    variance = sigma_{t|s}^2 sigma_s^2 / sigma_t^2, with alpha_{t|s} = alpha_t / alpha_s and
    sigma_{t|s}^2 = sigma_t^2 - alpha_{t|s}^2 sigma_s^2. The first time goes to clean data, x0.

    Args:
        posterior: takes x0 and x_t `(batch, 4)` and t `(batch,)`; what it returns beyond the first
            two is not looked at. An object or a dict with `mean` and `variance` will do.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        spread: what the second result is.
        first: the variance at the first time where it is not the exact 0: a number such as 1e-20,
            or "second", that of the second time, as in Improved DDPM's clipped log-variance.
        pairs: (t, s) of their times, for `posterior(x0, x_t, t, s)`; without, `posterior` takes t.
        batched: False for a function of one time, a plain number, and events `(1, 4)`.
        dtype: that of x0 and x_t.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError where `posterior` raises or returns what is no posterior; ValueError for other
    arguments. Source: DDPM (arXiv:2006.11239) eq. 6 and 7.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_posterior
    >>> schedule = dm.Discrete.linear(10)
    >>> def posterior(x0, x_t, t):
    ...     q = dm.gaussian.posterior(schedule, x_t, x0, t, t - 1)
    ...     return q.mean, schedule.betas[t - 1][:, None]
    ...
    >>> try:
    ...     assert_posterior(posterior, schedule, range(1, 11))
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2])
      diagnosis: the variance is beta, the upper bound of the variance (arXiv:2006.11239, eq. 7)
    """
    require(spread in SPREADS, "spread", f"one of {', '.join(SPREADS)}", spread)
    require(pairs is None or first == 0, "first", "0, the exact one, with pairs", first)
    table = Levels.read(levels, times)
    rows = neighbours(table) if pairs is None else pairs_of(table, pairs)
    subject = name_of(posterior, "posterior")
    safe = guarded(subject, posterior)
    which = (rows.t,) if pairs is None else (rows.t, rows.s)
    at = [time_batch([table.times[k] for k in each.tolist()]) for each in which]

    def both(*arguments: Any) -> Any:
        return tuple(parts(subject, moments(safe(*arguments), spread), 2))

    call = both if batched else one_by_one(subject, both)
    measured, eps = coefficients(
        subject,
        lambda given: call(given["x0"], given["x_t"], *at)[0],
        ("x0", "x_t"),
        len(rows.t),
        dtype,
        table.eps,
    )
    x = events(len(rows.t)).to(dtype)
    variance, its = tensor(subject, call(x, x, *at)[1], x, table.eps)
    same = (variance == variance[:, :1]) | variance.isnan()
    assert bool(same.all()), f"{subject}: the {spread} depends on x0 or x_t"
    compare(
        subject,
        {**fields(measured), spread: variance[:, 0]},
        _exact(spread, first_variance(first, table)),
        table,
        rows,
        eps=max(eps, its),
        known=_known(spread, first, table),
        right=f"{RIGHT} (DDPM, {DDPM})",
    )


SPREADS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "variance": lambda variance: variance,
    "deviation": torch.sqrt,
    "log-variance": torch.log,
}


def in_spread(spread: str, variance: Callable[[Step], Tensor]) -> Formula:
    """A formula of the one field `spread`."""
    return lambda step: {spread: SPREADS[spread](variance(step))}


def first_variance(first: First, levels: Levels) -> float:
    """The variance at the first time; ValueError for no such, or for one time without a second."""
    if isinstance(first, str):
        wanted = "a number of at least 0, or 'second' with two times or more"
        require({"second": len(levels.times) > 2}.get(first, False), "first", wanted, first)
        second = Rows(torch.tensor([2], device="cpu"), torch.tensor([1], device="cpu"))
        return float(QUANTITIES["beta~"](levels.at(second)))
    require(first >= 0, "first", "a number of at least 0, or 'second'", first)
    return float(first)


def first_in_use(value: float, levels: Levels) -> First:
    """What people let stand for the variance 0 at the first time, the nearest to a value."""
    firsts: list[First] = [0, 1e-20, *(["second"] if len(levels.times) > 2 else [])]  # type: ignore[list-item]
    return min(firsts, key=lambda first: abs(first_variance(first, levels) - value))


def clipped(first: float) -> Callable[[Step], Tensor]:
    """beta~, with a given variance where the cleaner time is clean data."""
    return lambda step: torch.where(step.sigma_s == 0, first, QUANTITIES["beta~"](step))


def _exact(spread: str, first: float) -> Formula:
    def exact(step: Step) -> dict[str, Tensor]:
        ratio = step.alpha_t / step.alpha_s
        return {
            "coefficient of x0": step.alpha_s * QUANTITIES["beta"](step) / step.sigma_t**2,
            "coefficient of x_t": ratio * (step.sigma_s / step.sigma_t) ** 2,
            "offset": torch.zeros_like(ratio),
            **in_spread(spread, clipped(first))(step),
        }

    return exact


BEFORE: Mapping[str, Callable[[Rows, int], Tensor]] = {
    "read at index -1, the last, where it is 1": lambda rows, last: torch.where(
        rows.s > 0, rows.s, last
    ),
    "that of the first time, where it is 1": lambda rows, last: rows.s.clamp(min=1),
    "abar_t, of the time itself": lambda rows, last: rows.t,
    "that of the time before s": lambda rows, last: (rows.s - 1).clamp(min=0),
}
"""What people read for abar_s, beside a table of betas that is right."""


def _of_another_s(spread: str, place: Callable[[Rows, int], Tensor]) -> Evaluated:
    def values(levels: Levels, rows: Rows) -> dict[str, Tensor]:
        k, step = place(rows, len(levels.times) - 1), levels.at(rows)
        share = QUANTITIES["beta"](step) / step.sigma_t**2
        return {
            "coefficient of x0": levels.alpha[k] * share,
            "coefficient of x_t": step.alpha_t
            / step.alpha_s
            * (levels.sigma[k] / step.sigma_t) ** 2,
            spread: SPREADS[spread](share * levels.sigma[k] ** 2),
        }

    return values


BETAS: Mapping[str, Callable[[Rows, int], Tensor]] = {
    "that of the time after t": lambda rows, last: (rows.t + 1).clamp(max=last),
    "that of the time before t": lambda rows, last: (rows.t - 1).clamp(min=1),
    "that of the time before t, at index -1 the last": lambda rows, last: torch.where(
        rows.t > 1, rows.t - 1, last
    ),
}
"""What people read for beta_t, beside a table of abar that is right."""


def _of_another_beta(spread: str, place: Callable[[Rows, int], Tensor]) -> Evaluated:
    def values(levels: Levels, rows: Rows) -> dict[str, Tensor]:
        k, step = place(rows, len(levels.times) - 1), levels.at(rows)
        other = levels.at(Rows(k, k - 1))
        beta = QUANTITIES["beta"](other)
        return {
            "coefficient of x0": step.alpha_s * beta / step.sigma_t**2,
            "coefficient of x_t": other.alpha_t
            / other.alpha_s
            * (step.sigma_s / step.sigma_t) ** 2,
            spread: SPREADS[spread](beta * (step.sigma_s / step.sigma_t) ** 2),
        }

    return values


def _known(spread: str, first: First, levels: Levels) -> list[Mistake]:
    def unbracketed(step: Step) -> Tensor:
        return QUANTITIES["beta"](step) * step.sigma_s**2 - step.alpha_t**2

    def exchanged(step: Step) -> dict[str, Tensor]:
        right = _exact(spread, 0.0)(step)
        names = "coefficient of x0", "coefficient of x_t"
        return {names[0]: right[names[1]], names[1]: right[names[0]]}

    upper = f"the {spread} is beta, the upper bound of the variance"
    brackets = f"the {spread} is that of beta (1 - abar_s) / 1 - abar_t: brackets are missing"
    found = [
        Mistake.of(upper, in_spread(spread, QUANTITIES["beta"]), DDPM),
        Mistake.of(
            brackets, in_spread(spread, unbracketed), "github.com/CompVis/stable-diffusion/pull/907"
        ),
        Mistake.of("x0 and x_t are exchanged", exchanged, DDPM),
        *(
            Mistake(f"abar_s, of the time before, is {said}", _of_another_s(spread, place), 1, CODE)
            for said, place in BEFORE.items()
        ),
        *(
            Mistake(f"beta_t is {said}", _of_another_beta(spread, place), 1, DDPM)
            for said, place in BETAS.items()
        ),
    ]
    others: dict[str, First] = {"0": 0, "clipped at 1e-20": 1e-20, "that of the second": "second"}
    for said, other in others.items():
        if other != first and (other != "second" or len(levels.times) > 2):
            name = f"the {spread} at the first time is {said}; if that is meant, first={other!r}"
            formula = in_spread(spread, clipped(first_variance(other, levels)))
            found.append(Mistake.of(name, formula, "arXiv:2102.09672"))
    return found
