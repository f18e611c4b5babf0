"""`assert_schedule`: levels, their claims, and the inverse, betas, drift and diffusion of them."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion_math.checks import checked, real, require
from diffusion_math.testing.mistakes.catalogue import Formula, Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Step, Times, neighbours
from diffusion_math.testing.mistakes.probes import guarded, name_of, tensor
from diffusion_math.testing.mistakes.slopes import Slopes, slopes
from diffusion_math.testing.mistakes.table import Table

__all__ = ["assert_schedule"]

Path = Literal["variance-preserving", "variance-exploding", "straight"]

SCORE_SDE = "arXiv:2011.13456, section 3"

PATHS: Mapping[str, tuple[str, Callable[[Step], Tensor]]] = {
    "variance-preserving": (
        "alpha^2 + sigma^2",
        lambda step: step.alpha_t**2 + step.sigma_t**2,
    ),
    "variance-exploding": ("alpha", lambda step: step.alpha_t),
    "straight": ("alpha + sigma", lambda step: step.alpha_t + step.sigma_t),
}
"""What is 1 at every time of a path."""


@checked
def assert_schedule(
    levels: LevelsOf,
    times: Times,
    *,
    path: Path | None = None,
    first: tuple[Any, Any] | None = None,
    last: tuple[Any, Any] | None = None,
    inverse: Callable[[Any], Any] | None = None,
    beta: Callable[[Any], Any] | None = None,
    drift: Callable[[Any], Any] | None = None,
    g2: Callable[[Any], Any] | None = None,
) -> None:
    """Check `levels(t) -> (alpha, sigma)` and what else is given, at every time.

    The signal-to-noise ratio falls; levels are finite, alpha >= 0 and sigma > 0. Levels of times
    that are no whole numbers are those of float64 to 1% at both ends when t is in float32.

    Args:
        levels: code under test: their time to (alpha, sigma).
        times: all their times, from little to much noise.
        path: a claim: "variance-preserving", alpha^2 + sigma^2 = 1; "variance-exploding",
            alpha = 1; "straight", alpha + sigma = 1.
        first, last: (alpha, sigma) claimed for the first and the last time.
        inverse: log(alpha^2 / sigma^2), a float, to the time.
        beta: time to 1 - (alpha_t / alpha_s)^2, s the time before; of the first, to clean data.
        drift: time to f = d log(alpha) / dt of dx = f x dt + g dw.
        g2: time to g^2 = d sigma^2 / dt - 2 f sigma^2.

    Drift and g^2 are compared with differences of `levels`, at times between the first and the
    last. Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has
    it; AssertionError where code under test raises or returns what is no number; ValueError for
    other arguments. Sources: DDPM (arXiv:2006.11239) eq. 4; Song et al. (arXiv:2011.13456)
    section 3; VDM (arXiv:2107.00630) eq. 2.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_schedule
    >>> times = [0.1, 0.3, 0.5, 0.7, 0.9]
    >>> try:
    ...     assert_schedule(dm.RectifiedFlow(), times, g2=lambda t: 2 / (1 - t))
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2][:67])
      diagnosis: g^2 is -2 f, that of a variance-preserving process (ar
    """
    require(path is None or path in PATHS, "path", f"one of {', '.join(PATHS)}", path)
    subject = name_of(levels, "levels")
    given = list(times)
    require(len(given) > 0, "times", "at least one time", "none")
    safe = guarded(subject, levels)
    try:
        table = Levels.read(safe, given)
    except ValueError as error:
        raise AssertionError(f"{subject}: {error}") from None
    every, step = neighbours(table), table.at(neighbours(table))
    if path is not None:
        field, value = PATHS[path]
        compare(
            f"{subject}, {path}",
            {field: value(step)},
            lambda step: {field: torch.ones_like(step.alpha_t)},
            table,
            every,
            eps=table.eps,
            known=_other_paths(field, value),
            right=f"{field} = 1",
        )
    ends = {name: end for name, end in (("first", first), ("last", last)) if end is not None}
    if ends:
        places = [1 if name == "first" else -1 for name in ends]
        pairs = {name: real(name, end) for name, end in ends.items()}
        for name, pair in pairs.items():
            require(pair.shape == (2,), name, "(alpha, sigma)", ends[name])
        claimed = torch.stack(list(pairs.values()), 1)
        column = dict(zip(("alpha", "sigma"), claimed, strict=True))
        _compare(
            f"{subject} at its ends",
            {"alpha": table.alpha[places], "sigma": table.sigma[places]},
            Table(tuple(f"the {name} time" for name in ends), column),
            max(table.eps, 1e-6),
        )
    _in_float32(subject, safe, table)
    if beta is not None:
        compare(
            name_of(beta, "beta"),
            {"beta": _numbers("beta", beta, table.times[1:])[0]},
            lambda step: {"beta": 1 - (step.alpha_t / step.alpha_s) ** 2},
            table,
            every,
            eps=table.eps,
            right="1 - (alpha_t / alpha_s)^2 (DDPM, arXiv:2006.11239, eq. 4)",
        )
    if inverse is not None:
        _inverse(inverse, table, step)
    if drift is not None or g2 is not None:
        found = slopes(
            safe, [float(time) for time in table.times[1:] if time is not None], table.eps
        )
        require(len(found.times) > 0, "times", "one between the first and the last", given)
        _sde({"drift": drift, "g^2": g2}, found)


def _compare(
    subject: str,
    measured: Mapping[str, Tensor],
    table: Table,
    eps: float,
    known: tuple[Mistake, ...] = (),
    right: str = "",
) -> None:
    """Each measured field is the table's column of its name."""
    compare(
        subject,
        measured,
        lambda columns: {field: columns[field] for field in measured},
        table,
        table.rows,
        eps=eps,
        known=known,
        right=right,
    )


def _numbers(name: str, function: Callable[[Any], Any], given: Any) -> tuple[Tensor, float]:
    """What a function of one number gives, float64 `(rows,)`, with its rounding."""
    safe, like = guarded(name, function), torch.zeros(1, 1, device="cpu")
    found = [tensor(name, safe(each), like) for each in given]
    return torch.cat([value[0] for value, _ in found]), max(eps for _, eps in found)


def _other_paths(field: str, value: Callable[[Step], Tensor]) -> tuple[Mistake, ...]:
    """Levels that are other functions of alpha than the path's."""
    others: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
        "sigma is 1 - alpha^2, the variance, not its root": lambda a, s: (a, 1 - a**2),
        "alpha is abar, not its root": lambda a, s: (a, (1 - a).sqrt()),
        "alpha + sigma = 1, the straight path": lambda a, s: (a, 1 - a),
        "alpha^2 + sigma^2 = 1, the variance-preserving path": lambda a, s: (a, (1 - a**2).sqrt()),
        "alpha = 1, the variance-exploding path": lambda a, s: (torch.ones_like(a), s),
    }

    def of(pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[Step], Any]:
        def values(step: Step) -> dict[str, Tensor]:
            alpha, sigma = pair(step.alpha_t, step.sigma_t)
            return {field: value(step._replace(alpha_t=alpha, sigma_t=sigma))}

        return values

    return tuple(Mistake.of(name, of(pair), SCORE_SDE) for name, pair in others.items())


def _in_float32(subject: str, levels: LevelsOf, table: Levels) -> None:
    """Levels at both ends, for a float32 time, are those of float64 to 1%."""
    ends = [time for time in (table.times[1], table.times[-1]) if isinstance(time, float)]
    for time in ends:
        k = table.times.index(time)
        try:
            alpha, sigma = (
                float(each)
                for each in levels(torch.tensor(time, dtype=torch.float32, device="cpu"))
            )
        except AssertionError:  # they take plain numbers, which have no float32
            return
        for name, got, wanted in (
            ("alpha", alpha, float(table.alpha[k])),
            ("sigma", sigma, float(table.sigma[k])),
        ):
            assert abs(got - wanted) <= 0.01 * abs(wanted) + 1e-6 * (name == "alpha"), (
                f"{subject}: {name} at t = {time:g} is {got:.6g} in float32, "
                f"{wanted:.6g} in float64"
            )


def _inverse(inverse: Callable[[Any], Any], table: Levels, step: Step) -> None:
    """The time of each log-SNR, where that is finite."""
    log_snr = 2 * (step.alpha_t / step.sigma_t).log()
    finite = log_snr.isfinite()
    times = [time for time, good in zip(table.times[1:], finite.tolist(), strict=True) if good]
    column = torch.tensor(times, dtype=torch.float64, device="cpu")
    subject, given = name_of(inverse, "inverse"), log_snr[finite]
    rounding = 8 * max(table.eps, 2.0**-52) * (1 + given.abs())
    given[0] -= rounding[0]  # an inverse may refuse what lies a rounding beyond its ends
    given[-1] += rounding[-1]
    found, its = _numbers(subject, inverse, given.tolist())
    eps = 1e-6 if max(table.eps, its) < 1e-10 else 3e-4
    apart = column.diff(append=2 * column[-1:]).abs()  # an index may be 0
    found = torch.where((found - column).abs() <= 16 * eps * apart, column, found)
    known = []
    for name, other in (
        ("the inverse takes log(alpha / sigma), half the log-SNR", given / 2),
        ("the inverse takes log(sigma^2 / alpha^2), the negative log-SNR", -given),
        ("the inverse takes log(sigma / alpha), half the negative log-SNR", -given / 2),
        ("the inverse takes sigma / alpha", torch.exp(-given / 2)),
        ("the inverse takes alpha^2 / sigma^2, the SNR itself", torch.exp(given)),
    ):
        if _is_time(subject, inverse, other, column, eps):
            known.append(Mistake(name, lambda levels, rows: {"time": found[rows.t]}))
    names = tuple(f"t = {time:g}" for time in column.tolist())
    table_of_times = Table(names, {"time": column})
    _compare(subject, {"time": found}, table_of_times, eps, tuple(known), "t(log-SNR(t)) = t")


def _is_time(
    subject: str, inverse: Callable[[Any], Any], given: Tensor, times: Tensor, eps: float
) -> bool:
    """Whether the inverse is right for another argument than the log-SNR."""
    try:
        found, _ = _numbers(subject, inverse, given.tolist())
    except AssertionError:
        return False
    return bool(((found - times).abs() <= 16 * eps * times.abs()).all())


def _sde(given: Mapping[str, Callable[[Any], Any] | None], found: Slopes) -> None:
    """Drift and squared diffusion, both against the levels' differences."""
    measured, eps = {}, found.eps
    for name, function in given.items():
        if function is not None:
            measured[name], rounding = _numbers(name, function, found.times)
            eps = max(eps, rounding)
    columns = {
        "drift": found.f,
        "g^2": found.g2,
        "d sigma^2 / dt": found.sigma2,
        "sigma": found.sigma,
    }
    others: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
        "g^2 is -2 f, that of a variance-preserving process": lambda c: -2 * c["drift"],
        "g^2 is d sigma^2 / dt: -2 f sigma^2 is left out": lambda c: c["d sigma^2 / dt"],
        "g^2 is d sigma^2 / dt + 2 f sigma^2, of the other sign": lambda c: (
            2 * c["d sigma^2 / dt"] - c["g^2"]
        ),
        "g^2 is sigma^2: its logarithm's derivative is left out": lambda c: c["sigma"] ** 2,
        "g^2 is d sigma / dt, not that of sigma^2": lambda c: (
            c["d sigma^2 / dt"] / (2 * c["sigma"])
        ),
    }

    def of(value: Callable[[Mapping[str, Tensor]], Tensor]) -> Formula:
        return lambda columns: {"g^2": value(columns)}

    known = [Mistake.of(name, of(value), SCORE_SDE) for name, value in others.items()]
    table = Table(tuple(f"t = {time:g}" for time in found.times), columns)
    right = f"f = d log(alpha) / dt, g^2 = d sigma^2 / dt - 2 f sigma^2 ({SCORE_SDE})"
    _compare(", ".join(measured), measured, table, eps, tuple(known), right)
