"""`assert_table`: a table that is kept beside a schedule, such as the posterior's coefficients."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.assertions.posterior import clipped, first_in_use, first_variance
from diffusion_math.testing.mistakes.catalogue import QUANTITIES, Formula
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Step, Times, neighbours
from diffusion_math.testing.mistakes.probes import tensor

__all__ = ["TABLES", "ScheduleTable", "assert_table"]

DDPM = "arXiv:2006.11239"


class ScheduleTable(NamedTuple):
    """A table's formula, as code and in words, with its source."""

    value: Callable[[Step], Tensor]
    formula: str
    source: str


def _on_x0(step: Step) -> Tensor:
    return step.alpha_s * QUANTITIES["beta"](step) / step.sigma_t**2


def _on_x_t(step: Step) -> Tensor:
    return step.alpha_t / step.alpha_s * (step.sigma_s / step.sigma_t) ** 2


TABLES: Mapping[str, ScheduleTable] = {
    name: ScheduleTable(value, formula, f"{DDPM}, {source}")
    for name, value, formula, source in (
        ("betas", QUANTITIES["beta"], "1 - abar_t / abar_s", "eq. 4"),
        ("alphas", QUANTITIES["1 - beta"], "1 - beta_t", "eq. 4"),
        ("alphas_cumprod", QUANTITIES["abar"], "abar_t", "eq. 4"),
        ("alphas_cumprod_prev", lambda step: step.alpha_s**2, "abar_s", "eq. 4"),
        ("sqrt_alphas_cumprod", lambda step: step.alpha_t, "sqrt(abar_t)", "eq. 4"),
        ("sqrt_one_minus_alphas_cumprod", lambda step: step.sigma_t, "sqrt(1 - abar_t)", "eq. 4"),
        ("one_minus_alphas_cumprod", QUANTITIES["1 - abar"], "1 - abar_t", "eq. 4"),
        ("log_one_minus_alphas_cumprod", lambda s: 2 * s.sigma_t.log(), "log(1 - abar_t)", "eq. 4"),
        ("sqrt_recip_alphas", lambda s: s.alpha_s / s.alpha_t, "1 / sqrt(1 - beta_t)", "eq. 11"),
        ("sqrt_recip_alphas_cumprod", lambda step: 1 / step.alpha_t, "1 / sqrt(abar_t)", "eq. 9"),
        (
            "sqrt_recipm1_alphas_cumprod",
            lambda step: step.sigma_t / step.alpha_t,
            "sqrt(1 / abar_t - 1)",
            "eq. 9",
        ),
        (
            "posterior_variance",
            QUANTITIES["beta~"],
            "beta~_t = (1 - abar_s) / (1 - abar_t) beta_t",
            "eq. 7",
        ),
        (
            "posterior_log_variance_clipped",
            lambda step: QUANTITIES["beta~"](step).log(),
            "log beta~_t, and another at the first index, where beta~ is 0",
            "eq. 7",
        ),
        ("posterior_mean_coef1", _on_x0, "sqrt(abar_s) beta_t / (1 - abar_t)", "eq. 7"),
        (
            "posterior_mean_coef2",
            _on_x_t,
            "sqrt(1 - beta_t) (1 - abar_s) / (1 - abar_t)",
            "eq. 7",
        ),
        (
            "half_log_snr",
            lambda step: (step.alpha_t / step.sigma_t).log(),
            "log(alpha_t / sigma_t)",
            "eq. 4",
        ),
        ("snr", QUANTITIES["SNR"], "abar_t / (1 - abar_t)", "eq. 4"),
        ("sigmas", lambda step: step.sigma_t / step.alpha_t, "sigma_t / alpha_t", "eq. 4"),
    )
}
"""Tables by the names that most code has for them; s is the time before t, clean data at first."""


@checked
def assert_table(values: Any, levels: LevelsOf, times: Times, name: str) -> None:
    """Check a table that has an entry for each time, such as `posterior_variance`.

    Args:
        values: an array of any library, or numbers, one for each time.
        levels: `levels(t) -> (alpha, sigma)` of the entries' times.
        times: the times of the entries, from little to much noise.
        name: which table it is, one of `TABLES`. Of `posterior_variance` and its logarithm the
            first entry may be 0, one of 1e-20, or that of the second, which stands for it.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError for what is no table of numbers; ValueError for other arguments. Source: DDPM
    (arXiv:2006.11239) eq. 4 and 7.

    >>> import torch
    >>> from diffusion_math.testing import assert_table
    >>> abar = (1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)).cumprod(0)
    >>> levels = lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt())
    >>> try:
    ...     assert_table(abar.roll(1), levels, range(100), "alphas_cumprod_prev")
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[1][:68])
      the alphas_cumprod_prev differs at 1 of 100 indices, most at t = 0
    """
    require(name in TABLES, "name", f"one of {', '.join(TABLES)}", name)
    table = replace(Levels.read(levels, times), divides=name not in UNDIVIDED)
    rows = neighbours(table)
    found, eps = tensor(name, values, torch.zeros(len(rows.t), 1, device="cpu"), table.eps)
    value, formula, source = TABLES[name]
    compare(
        name,
        {name: found[:, 0]},
        _formula(name, value, _first(name, found[:, 0], table)),
        table,
        rows,
        eps=eps,
        right=f"{formula} ({source})",
    )


UNDIVIDED = {
    "alphas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_recip_alphas",
    "sqrt_recip_alphas_cumprod",
}
"""Tables in which nothing is divided by 1 - abar."""

VARIANCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "posterior_variance": lambda variance: variance,
    "posterior_log_variance_clipped": torch.log,
}


def _first(name: str, found: Tensor, levels: Levels) -> float:
    """The variance that stands for 0 at the first time, of those that are in use the nearest."""
    if name not in VARIANCES:
        return 0.0
    given = float(found[0] if name == "posterior_variance" else found[0].exp())
    return first_variance(first_in_use(given, levels), levels)


def _formula(name: str, value: Callable[[Step], Tensor], first: float) -> Formula:
    if name in VARIANCES:
        return lambda step: {name: VARIANCES[name](clipped(first)(step))}
    return lambda step: {name: value(step)}
