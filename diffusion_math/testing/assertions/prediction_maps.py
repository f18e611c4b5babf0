"""`assert_prediction_maps`: conversions between eps, x0, v, score and flow, at every index."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked, require, shown
from diffusion_math.testing.assertions import network
from diffusion_math.testing.mistakes.catalogue import Formula, Mistake
from diffusion_math.testing.mistakes.diagnosis import MistakeError, compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Rows, Step, Times
from diffusion_math.testing.mistakes.probes import (
    VECTORS,
    called,
    coefficients,
    tensor,
    time_batch,
)

__all__ = ["assert_prediction_maps"]

Parts = Callable[[Step], tuple[Tensor, Tensor]]


def _of(
    kind: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], step: Step
) -> tuple[Tensor, Tensor]:
    return kind(step.alpha_t, step.sigma_t)


KINDS: Mapping[str, Parts] = {name: partial(_of, kind) for name, kind in network.KINDS.items()}
"""What each is of x0 and eps."""

BOTH = "x0_and_eps"
"""What a map such as `v_from_x0_and_eps` is given in the place of x_t and one kind."""

WRONG: Mapping[str, Mapping[str, tuple[Parts, str]]] = {
    "v": {
        "v is sigma_t x0 - alpha_t eps, of the other sign": (
            lambda step: (step.sigma_t, -step.alpha_t),
            "arXiv:2202.00512, appendix D; github.com/huggingface/diffusers/pull/1421",
        ),
        "v is alpha_t eps + sigma_t x0, of a plus sign": (
            lambda step: (step.sigma_t, step.alpha_t),
            "arXiv:2202.00512, appendix D",
        ),
        "v is alpha_t x0 - sigma_t eps: alpha and sigma are exchanged": (
            lambda step: (step.alpha_t, -step.sigma_t),
            "arXiv:2202.00512, appendix D",
        ),
        "v is sigma_t eps - alpha_t x0: alpha and sigma are exchanged": (
            lambda step: (-step.alpha_t, step.sigma_t),
            "arXiv:2202.00512, appendix D",
        ),
        "v is eps - x0, the flow": (KINDS["flow"], "arXiv:2202.00512, appendix D"),
    },
    "score": {
        "the score is eps / sigma_t, of the other sign": (
            lambda step: (torch.zeros_like(step.alpha_t), 1 / step.sigma_t),
            "arXiv:2011.13456, eq. 29",
        ),
        "the score is -eps: 1 / sigma_t is left out": (
            lambda step: (torch.zeros_like(step.alpha_t), -torch.ones_like(step.alpha_t)),
            "arXiv:2011.13456, eq. 29",
        ),
        "the score is -eps / sigma_t^2": (
            lambda step: (torch.zeros_like(step.alpha_t), -1 / step.sigma_t**2),
            "arXiv:2011.13456, eq. 29",
        ),
    },
    "flow": {
        "the flow is x0 - eps, data minus noise: a `velocity`": (
            KINDS["velocity"],
            "arXiv:2209.03003, eq. 1",
        )
    },
    "velocity": {
        "the velocity is eps - x0, noise minus data: a `flow`": (
            KINDS["flow"],
            "arXiv:2210.02747, eq. 23",
        )
    },
}
"""What people take a kind for."""


@checked
def assert_prediction_maps(
    maps: Mapping[str, Callable[..., Any]],
    levels: LevelsOf,
    times: Times,
    *,
    batched: bool = True,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check each map `wanted_from_given(x_t, given, t) -> wanted` at every time.

    With x_t = alpha_t x0 + sigma_t eps, each kind is a x0 + b eps: x0 = (1, 0), eps = (0, 1),
    v = (-sigma_t, alpha_t), score = (0, -1 / sigma_t), flow = (-1, 1) and velocity = (1, -1), so
    that a map is a sum of multiples of x_t and of what is given. A time at which x_t and what is
    given are parallel is left out: eps says nothing of x0 where alpha_t = 0. Where both ways are
    given, there and back is checked too.

    Args:
        maps: by names such as "x0_from_eps" or "v_from_score"; each takes x_t and what is given
            `(batch, 4)` and t `(batch,)`. "v_from_x0_and_eps" takes x0, eps and t.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        batched: False for functions of one time, a plain number, and events `(1, 4)`.
        dtype: that of x_t and what is given.

    Raises MistakeError, an AssertionError, of all maps that are wrong, with the mistakes' names
    where the catalogue has them; AssertionError where a map raises or returns what is none;
    ValueError for other arguments. Sources: Salimans & Ho (arXiv:2202.00512) appendix D; Song et
    al. (arXiv:2011.13456) eq. 29; rectified flow (arXiv:2209.03003) eq. 1.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_prediction_maps
    >>> schedule = dm.Discrete.linear(10)
    >>> def x0_from_v(x_t, v, t):
    ...     alpha, sigma = schedule(t[:, None])
    ...     return alpha * x_t + sigma * v
    ...
    >>> try:
    ...     assert_prediction_maps({"x0_from_v": x0_from_v}, schedule, range(1, 11))
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2][:63])
      diagnosis: v is sigma_t x0 - alpha_t eps, of the other sign (
    """
    require(len(maps) > 0, "maps", "at least one map", "none")
    for name, function in maps.items():
        require(isinstance(name, str), "maps", "names such as 'x0_from_eps'", repr(name))
        require(callable(function), "maps", f"a function {name}", shown(function))
    table = Levels.read(levels, times)
    calls = {name: called(name, function, batched) for name, function in maps.items()}
    wrong = [
        one
        for name, call in calls.items()
        if (one := _mistakes(name, call, table, dtype)) is not None
    ]
    if wrong:
        mistakes = {one.name: one for each in wrong for one in each.mistakes}
        raise MistakeError(
            ", ".join(each.subject for each in wrong),
            tuple(one for each in wrong for one in each.differences),
            tuple(mistakes.values()),
        )
    for name in calls:
        wanted, given = _kinds(name)
        back = f"{given}_from_{wanted}"
        if back in calls and given < wanted:
            _assert_inverse(name, calls[name], back, calls[back], table, dtype)


def _mistakes(
    name: str, call: Callable[..., Any], table: Levels, dtype: torch.dtype
) -> MistakeError | None:
    """What is wrong with a map."""
    _, given = _kinds(name)
    rows = _defined(table, given)
    t = time_batch([table.times[k] for k in rows.t.tolist()])
    one, other = _arguments(given)

    def convert(of: Mapping[str, Tensor]) -> Any:
        return call(of[one], of[other], t)

    found, eps = coefficients(name, convert, (one, other), len(t), dtype, table.eps)
    measured = _fields(name, found[one], found[other], found.get("offset"))
    try:
        compare(name, measured, _map(name, KINDS), table, rows, eps=eps, known=_known(name))
    except MistakeError as error:
        return error
    return None


def _kinds(name: str) -> tuple[str, str]:
    """(wanted, given) of a map's name."""
    kinds = name.split("_from_")
    good = len(kinds) == 2 and kinds[0] in KINDS and kinds[1] in {*KINDS, BOTH} - {kinds[0]}
    wanted = f"names A_from_B with A and B of {', '.join(KINDS)}, or A_from_{BOTH}"
    require(good, "maps", wanted, name)
    return kinds[0], kinds[1]


def _arguments(given: str) -> tuple[str, str]:
    """The two that a map takes, beside the time."""
    return ("x0", "eps") if given == BOTH else ("x_t", given)


def _defined(levels: Levels, given: str) -> Rows:
    """The times at which x_t and what is given are not parallel."""
    t = torch.arange(1, len(levels.times), device="cpu")
    if given == BOTH:
        return Rows(t, t - 1)
    step = levels.at(Rows(t, t - 1))
    x0, eps = KINDS[given](step)
    t = t[step.alpha_t * eps - step.sigma_t * x0 != 0]
    require(len(t) > 0, "times", f"a time at which {given} and x_t give the rest", levels.times[1:])
    return Rows(t, t - 1)


def _fields(name: str, one: Tensor, other: Tensor, offset: Tensor | None) -> dict[str, Tensor]:
    arguments = _arguments(_kinds(name)[1])
    both = zip(arguments, (one, other), strict=True)
    found = {f"coefficient of {argument} in {name}": value for argument, value in both}
    return found if offset is None else {**found, f"offset of {name}": offset}


def _map(name: str, kinds: Mapping[str, Parts]) -> Formula:
    """Cramer's rule in the plane of x0 and eps."""
    wanted, given = _kinds(name)

    def values(step: Step) -> dict[str, Tensor]:
        a, b = kinds[wanted](step)
        if given == BOTH:
            return _fields(name, a, b, torch.zeros_like(a))
        p, q = kinds[given](step)
        both = step.alpha_t * q - step.sigma_t * p
        x_t, other = (a * q - b * p) / both, (step.alpha_t * b - step.sigma_t * a) / both
        return _fields(name, x_t, other, torch.zeros_like(a))

    return values


def _known(name: str) -> list[Mistake]:
    return [
        Mistake.of(said, _map(name, {**KINDS, kind: parts}), source)
        for kind in _kinds(name)
        for said, (parts, source) in WRONG.get(kind, {}).items()
    ]


def _assert_inverse(
    name: str,
    there: Callable[..., Any],
    back: str,
    again: Callable[..., Any],
    levels: Levels,
    dtype: torch.dtype,
) -> None:
    """`name` and then `back` give what was given, to the rounding of the way between."""
    wanted, given = _kinds(name)
    one, other = _defined(levels, given).t, _defined(levels, wanted).t
    t = one[torch.isin(one, other)]
    step = levels.at(Rows(t, t - 1))
    at = time_batch([levels.times[k] for k in t.tolist()])
    x_t = torch.tensor(VECTORS, dtype=dtype, device="cpu").expand(len(t), -1)
    value, both = x_t.flip(1), f"{back} after {name}"
    found, eps = tensor(both, again(x_t, there(x_t, value, at), at), x_t, levels.eps)
    (a, b), (c, d) = (
        [each.abs()[:, None] for each in list(_map(one, KINDS)(step).values())[:2]]
        for one in (name, back)
    )
    size = value.abs() + c * x_t.abs() + d * (a * x_t.abs() + b * value.abs())
    rounding = 64 * max(eps, levels.eps) * (1 + (step.alpha_t / step.sigma_t) ** 2)
    off = ~((found - value).abs() <= rounding[:, None] * size)
    if bool(off.any()):
        k, entry = divmod(int(off.int().argmax()), off.shape[1])
        raise AssertionError(
            f"{both}: wanted {value[k, entry]:g} again, got {found[k, entry]:.6g} "
            f"at t = {levels.times[int(t[k])]}"
        )
