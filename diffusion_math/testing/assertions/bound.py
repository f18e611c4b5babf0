"""`assert_bound`: the terms of the variational bound, each at its index."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked, require
from diffusion_math.testing.assertions.network import KINDS, Network
from diffusion_math.testing.assertions.told import Told, check_told
from diffusion_math.testing.assertions.units import UNITS, check_unit, of_other_units
from diffusion_math.testing.mistakes.catalogue import QUANTITIES, Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Rows, Step, Times
from diffusion_math.testing.mistakes.probes import (
    MIXED,
    VECTORS,
    coefficients,
    events,
    guarded,
    name_of,
    snapped,
    tensor,
    time_batch,
)
from diffusion_math.testing.mistakes.table import Table

__all__ = ["assert_bound", "assert_prior_term"]

DDPM = "arXiv:2006.11239, eq. 5 and 8"
SIZE = len(VECTORS)
VARIANCES = {"beta": QUANTITIES["beta"], "beta~": QUANTITIES["beta~"]}


@checked
def assert_bound(
    term: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    variance: str | Callable[[Step], Tensor] = "beta~",
    predicts: str = "eps",
    unit: str = "nats",
    told: Told = "t",
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `term(network, x0, t, noise)`, KL(q(x_s | x_t, x_0), p(x_s | x_t)) of each time.

    With an error e of the network in x0, c = alpha_s sigma_{t|s}^2 / sigma_t^2, the posterior's
    variance beta~ and the model's variance v, it is, in nats,

        c^2 norm(e)^2 / (2 v) + D / 2 (beta~ / v - 1 - log(beta~ / v))

    The second part is read at the exact network, the first as a second difference in e.

    Args:
        term: takes `network(x_t, ...)`, which returns what `predicts` says, x0 and noise of shape
            `(batch, 4)`, t of shape `(batch,)`; returns `(batch,)`. x_t is alpha_t x0 + sigma_t
            noise, which is looked at where the network is evaluated once.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise; s is the one before t. At the first the
            term is a reconstruction, which is not looked at.
        variance: v: "beta", "beta~", or a function of a `Step`.
        predicts: what the network predicts: "x0", "eps", "v", "flow", "velocity" or "score".
        unit: "nats", "nats/dim" or "bits/dim".
        told: the time that the network is told, as in `assert_loss`.
        dtype: that of x0 and noise.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it, and
    ValueError for arguments that are none. Source: DDPM (arXiv:2006.11239) eq. 5 and 8.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_bound
    >>> schedule = dm.Discrete.linear(20)
    >>> def term(network, x0, t, noise):
    ...     x_t = dm.gaussian.marginal(schedule, x0, t).sample(noise)
    ...     v = dm.variance.small_variance
    ...     return dm.elbo.step_term(schedule, network, x0, x_t, t, t - 1, v)
    >>> assert_bound(term, schedule, range(1, 21), predicts="x0")
    """
    check_unit(unit)
    require(predicts in KINDS, "predicts", f"one of {', '.join(KINDS)}", repr(predicts))
    named = not isinstance(variance, str) or variance in VARIANCES
    require(named, "variance", f"one of {', '.join(VARIANCES)}, or a function", repr(variance))
    v = VARIANCES[variance] if isinstance(variance, str) else variance
    table, subject = Levels.read(levels, times), name_of(term, "term")
    require(len(table.times) > 2, "times", "two at least", table.times[1:])
    t = torch.arange(2, len(table.times), device="cpu")
    rows = Rows(t, t - 1)
    step, batch = table.at(rows), time_batch(table.times[2:])
    vector = torch.tensor(VECTORS, dtype=torch.float64, device="cpu").expand(len(t), -1)
    size = (v(step).sqrt() / _mean(step))[:, None] * vector  # errors that add about a nat

    seen: list[Any] = []

    def at(x0: Tensor, noise: Tensor, error: Tensor) -> tuple[Tensor, float]:
        seen.clear()

        def network(x_t: Any, *others: Any) -> Tensor:
            seen.append((x_t, others))
            a, b = (each[:, None] for each in KINDS[predicts](step.alpha_t, step.sigma_t))
            alpha, sigma = step.alpha_t[:, None], step.sigma_t[:, None]
            x = x0 + error
            return (
                a * x + b * (torch.as_tensor(x_t, device="cpu").double() - alpha * x) / sigma
            ).to(dtype)

        given = guarded(subject, term)(Network(network), x0.to(dtype), batch, noise.to(dtype))
        value, eps = tensor(subject, given, vector[:, :1].to(dtype), table.eps)
        return value[:, 0], eps

    zero, own = torch.zeros_like(vector), events(len(t))
    exact = at(vector, vector.flip(1), zero)[0]
    apart, eps = at(own, own.flip(1), zero)
    reach = 256 * eps * (1 + exact.abs()) * SIZE * UNITS[unit](SIZE)
    unmixed = ((apart - exact).abs() <= reach) | ~exact.isfinite()
    assert bool(unmixed.all()), f"{subject}: {MIXED}"
    assert seen, f"{subject}: the network is not evaluated"
    beside = seen[0][1]
    (middle, eps), (above, _), (below, _) = (at(zero, zero, k * size) for k in (0, 1, -1))

    def noised(given: Mapping[str, Tensor]) -> Any:
        at(given["x0"].double(), given["noise"].double(), zero)
        return seen[0][0]

    once = len(seen) == 1
    x_t = (
        coefficients(subject, noised, ("x0", "noise"), len(t), dtype, table.eps)[0] if once else {}
    )
    factor = UNITS[unit](SIZE)
    formula = partial(_terms, v, factor)
    right = formula(step)["term of the exact network"]
    known = [*_known(v, factor), *of_other_units(formula, unit, SIZE)]
    wrong = [one.values(table, rows).get("term of the exact network", right) for one in known]
    exact = snapped(exact, (*wrong, torch.zeros_like(right), right), 256 * eps * SIZE * factor)
    found = {f"x_t's coefficient of {name}": value for name, value in x_t.items()} | {
        "term of the exact network": exact,
        "second difference": (above + below - 2 * middle) / 2 / size.square().sum(1),
    }

    def right_values(step: Step) -> dict[str, Tensor]:
        x_t = {"x0": step.alpha_t, "noise": step.sigma_t, "offset": torch.zeros_like(step.alpha_t)}
        return formula(step) | {f"x_t's coefficient of {name}": one for name, one in x_t.items()}

    compare(
        subject,
        found,
        right_values,
        table,
        rows,
        eps=32 * eps,
        known=known,
        right=f"KL(q(x_s | x_t, x_0), p(x_s | x_t)), in {unit} ({DDPM})",
    )
    check_told(subject, beside, told, table, rows, dtype)


@checked
def assert_prior_term(
    term: Callable[..., Any],
    alpha: float,
    sigma: float,
    *,
    unit: str = "nats",
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `term(x0)`, KL(N(alpha x0, sigma^2 I), N(0, I)) at the last time's alpha and sigma.

    (alpha^2 norm(x0)^2 + D (sigma^2 - 1 - log sigma^2)) / 2 in nats, for x0 of shape `(batch, 4)`.
    Raises as `assert_bound` does. Source: DDPM (arXiv:2006.11239) eq. 5, the first term.

    >>> import math
    >>> from diffusion_math.testing import assert_prior_term
    >>> def term(x0):
    ...     return (0.25 * x0.square() + 0.75 - 1 - math.log(0.75)).sum(1)
    >>> try:
    ...     assert_prior_term(term, 0.5, 0.75**0.5)
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2])
      diagnosis: the term is 2 its right value
    """
    check_unit(unit)
    require(0 < sigma < torch.inf, "sigma", "a positive number", sigma)
    subject = name_of(term, "term")
    x0 = torch.tensor([[0.0], [1.0], [-2.0]], dtype=dtype, device="cpu") * torch.tensor(
        VECTORS, dtype=dtype, device="cpu"
    )
    value, eps = tensor(subject, guarded(subject, term)(x0), x0[:, :1])
    ones = torch.ones(3, dtype=torch.float64, device="cpu")
    columns = {
        "squares": x0.double().square().sum(1),
        "alpha": alpha * ones,
        "sigma": sigma * ones,
    }
    table = Table(tuple(f"x0 = {row}" for row in x0.tolist()), columns, eps)
    factor = UNITS[unit](SIZE)

    def formula(at: dict[str, Tensor], constant: float = SIZE) -> dict[str, Tensor]:
        variance = at["sigma"] ** 2
        spread = variance - 1 - variance.log()
        return {"term": factor * (at["alpha"] ** 2 * at["squares"] + constant * spread) / 2}

    def deviation(at: dict[str, Tensor]) -> dict[str, Tensor]:
        return formula({**at, "sigma": at["sigma"].sqrt()})

    one, root = formula(columns, 1.0)["term"], deviation(columns)["term"]
    rounding = 8 * eps * SIZE * factor  # of a difference of numbers near 1
    same = bool(((one - root).abs() <= rounding).all())
    also = ", or of sigma where sigma^2 belongs" if same else ""
    found = snapped(value[:, 0], (one, root, formula(columns)["term"]), rounding)
    known = [
        Mistake.of(
            "the variances are left out: alpha^2 norm(x0)^2 / 2 alone",
            lambda at: formula(at, 0.0),
            DDPM,
        ),
        Mistake.of(
            f"the variances' part is of one dimension{also}", lambda at: formula(at, 1.0), DDPM
        ),
        Mistake.of("the variances' part is of sigma, where sigma^2 belongs", deviation, DDPM),
        Mistake.of(
            "x0 is scaled by alpha^2, abar",
            lambda at: formula({**at, "alpha": at["alpha"] ** 2}),
            DDPM,
        ),
        Mistake.of(
            "it is the KL divergence the other way round",
            lambda at: {
                "term": factor
                * (
                    at["alpha"] ** 2 * at["squares"] / at["sigma"] ** 2
                    + SIZE * (at["sigma"] ** -2 - 1 + 2 * at["sigma"].log())
                )
                / 2
            },
            DDPM,
        ),
        Mistake.of(
            "x0 is not scaled by alpha", lambda at: formula({**at, "alpha": ones[:1]}), DDPM
        ),
        *of_other_units(formula, unit, SIZE),
    ]
    compare(
        subject,
        {"term": found},
        formula,
        table,
        table.rows,
        eps=4 * eps,
        known=known,
        right=f"KL(N(alpha x0, sigma^2 I), N(0, I)), in {unit} ({DDPM})",
    )


def _mean(step: Step) -> Tensor:
    """The coefficient of x0 in the posterior's mean."""
    return step.alpha_s * QUANTITIES["beta"](step) / step.sigma_t**2


def _terms(
    v: Callable[[Step], Tensor], factor: float, step: Step, constant: float = SIZE
) -> dict[str, Tensor]:
    ratio = QUANTITIES["beta~"](step) / v(step)
    return {
        "term of the exact network": factor * constant / 2 * (ratio - 1 - ratio.log()),
        "second difference": factor * _mean(step) ** 2 / (2 * v(step)),
    }


def _known(v: Callable[[Step], Tensor], factor: float) -> Iterator[Mistake]:
    for name, other in VARIANCES.items():
        yield Mistake.of(f"the model's variance is {name}", partial(_terms, other, factor), DDPM)
    yield Mistake.of("1/2 is left out", partial(_terms, v, 2 * factor), DDPM)
    yield Mistake.of(
        "the part of the variances is of one dimension",
        lambda step: _terms(v, factor, step, 1.0),
        DDPM,
    )
    yield Mistake.of(
        "the part of the variances is left out", lambda step: _terms(v, factor, step, 0.0), DDPM
    )

    def exchanged(step: Step) -> dict[str, Tensor]:
        beta = QUANTITIES["beta~"]
        ratio = v(step) / beta(step)
        return {
            "term of the exact network": factor * SIZE / 2 * (ratio - 1 - ratio.log()),
            "second difference": factor * _mean(step) ** 2 / (2 * beta(step)),
        }

    yield Mistake.of("it is the KL divergence the other way round", exchanged, DDPM)
    yield Mistake.of(
        "the error is not multiplied by the posterior's coefficient of x0",
        lambda step: {"second difference": factor / (2 * v(step))},
        DDPM,
    )
