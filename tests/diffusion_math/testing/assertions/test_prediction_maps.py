"""`assert_prediction_maps`: all of ours pass, each wrong kind is named in each map."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine
from diffusion_math.testing.assertions.prediction_maps import BOTH, WRONG, assert_prediction_maps
from diffusion_math.testing.mistakes.diagnosis import MistakeError

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

SCHEDULE = Discrete.linear(20, 1e-3, 0.2)
TIMES = range(1, 21)
OURS = ("x0", "eps", "v", "score", "flow")
CASES: dict[str, tuple[Schedule, list[float]]] = {
    "linear": (Discrete.linear(), list(range(1, 1001))),
    "SD": (Discrete.scaled_linear(), list(range(1, 1001))),
    "VP cosine": (VPCosine(), [0.001, 0.1, 0.5, 0.9, 1.0]),
    "EDM": (VE(), [0.002, 0.1, 1.0, 80.0]),
    "flow": (RectifiedFlow(), [0.001, 0.3, 0.7, 1.0]),
}


def ours(schedule: Schedule, name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Our map; where it refuses a time, none is asked of it."""
    function = getattr(prediction, name)
    return lambda x_t, given, t: function(schedule, x_t, given, t)


def table(name: str, kinds: dict[str, Callable[..., Any]]) -> Callable[..., Tensor]:
    """A map by way of x0 and eps (which may be given), with kinds as (a, b) of (alpha, sigma)."""
    wanted, given = name.split("_from_")

    def convert(x_t: Tensor, value: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (each[:, None] for each in SCHEDULE(t))
        a, b = kinds[wanted](alpha, sigma)
        if given == BOTH:
            return a * x_t + b * value
        p, q = kinds[given](alpha, sigma)
        both = alpha * q - sigma * p
        x0, eps = (q * x_t - sigma * value) / both, (alpha * value - p * x_t) / both
        return a * x0 + b * eps

    return convert


KINDS: dict[str, Callable[..., Any]] = {
    "x0": lambda a, s: (1, 0),
    "eps": lambda a, s: (0, 1),
    "v": lambda a, s: (-s, a),
    "score": lambda a, s: (0, -1 / s),
    "flow": lambda a, s: (-1, 1),
    "velocity": lambda a, s: (1, -1),
}
PLANTED: dict[str, tuple[str, Callable[..., Any]]] = {
    "v is sigma_t x0 - alpha_t eps, of the other sign": ("v", lambda a, s: (s, -a)),
    "v is alpha_t eps + sigma_t x0, of a plus sign": ("v", lambda a, s: (s, a)),
    "v is alpha_t x0 - sigma_t eps: alpha and sigma are exchanged": ("v", lambda a, s: (a, -s)),
    "v is sigma_t eps - alpha_t x0: alpha and sigma are exchanged": ("v", lambda a, s: (-a, s)),
    "v is eps - x0, the flow": ("v", lambda a, s: (-1, 1)),
    "the score is eps / sigma_t, of the other sign": ("score", lambda a, s: (0, 1 / s)),
    "the score is -eps: 1 / sigma_t is left out": ("score", lambda a, s: (0, -1)),
    "the score is -eps / sigma_t^2": ("score", lambda a, s: (0, -1 / s**2)),
    "the flow is x0 - eps, data minus noise: a `velocity`": ("flow", lambda a, s: (1, -1)),
    "the velocity is eps - x0, noise minus data: a `flow`": ("velocity", lambda a, s: (-1, 1)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_our_maps_pass(case: str, dtype: torch.dtype) -> None:
    schedule, times = CASES[case]
    maps = {
        f"{wanted}_from_{given}": ours(schedule, f"{wanted}_from_{given}")
        for wanted, given in permutations(OURS, 2)
        if hasattr(prediction, f"{wanted}_from_{given}")
    }
    assert len(maps) >= 8
    assert_prediction_maps(maps, schedule, times, dtype=dtype)


def test_maps_by_way_of_x0_and_eps_pass() -> None:
    names = [f"{wanted}_from_{given}" for wanted, given in permutations(KINDS, 2)]
    names += [f"{wanted}_from_{BOTH}" for wanted in KINDS]
    assert_prediction_maps({name: table(name, KINDS) for name in names}, SCHEDULE, TIMES)


def test_float32_tables_as_people_write_them_pass() -> None:
    abar = torch.cumprod(1 - Discrete.linear().betas.float(), 0)
    a, s = abar.sqrt()[:, None], (1 - abar).sqrt()[:, None]
    rec, m1 = (1 / abar).sqrt()[:, None], (1 / abar - 1).sqrt()[:, None]
    maps = {
        "x0_from_eps": lambda x, eps, t: rec[t] * x - m1[t] * eps,
        "eps_from_x0": lambda x, x0, t: (rec[t] * x - x0) / m1[t],
        "x0_from_v": lambda x, v, t: a[t] * x - s[t] * v,
        "eps_from_v": lambda x, v, t: a[t] * v + s[t] * x,
        "v_from_x0": lambda x, x0, t: (a[t] * x - x0) / s[t],
    }
    assert_prediction_maps(maps, lambda i: (a[i], s[i]), range(1000), dtype=torch.float32)


def test_each_wrong_kind_is_planted() -> None:
    assert {name for wrong in WRONG.values() for name in wrong} == PLANTED.keys()


@pytest.mark.parametrize("mistake", PLANTED)
@pytest.mark.parametrize(
    "way", ["{}_from_x0", "{}_from_eps", "x0_from_{}", "eps_from_{}", "{}_from_x0_and_eps"]
)
def test_a_wrong_kind_is_named(mistake: str, way: str) -> None:
    kind, wrong = PLANTED[mistake]
    name = way.format(kind)
    with pytest.raises(MistakeError) as caught:
        assert_prediction_maps(
            {name: table(name, {**KINDS, kind: wrong}), "x0_from_eps": table("x0_from_eps", KINDS)},
            SCHEDULE,
            TIMES,
        )
    assert caught.value.subject == name
    assert [one.name for one in caught.value.mistakes] == [mistake]


def test_a_kind_that_is_wrong_in_two_maps_is_named_once() -> None:
    kinds = {**KINDS, "v": PLANTED["v is sigma_t x0 - alpha_t eps, of the other sign"][1]}
    names = ["x0_from_v", "eps_from_v", "v_from_x0"]
    with pytest.raises(MistakeError) as caught:
        assert_prediction_maps({name: table(name, kinds) for name in names}, SCHEDULE, TIMES)
    assert caught.value.subject == "x0_from_v, eps_from_v, v_from_x0"
    assert len(caught.value.mistakes) == 1 and len(caught.value.differences) == 4


def test_levels_of_another_index_are_named() -> None:
    right = table("x0_from_eps", KINDS)
    with pytest.raises(MistakeError, match=r"right value of index t - 1"):
        assert_prediction_maps(
            {"x0_from_eps": lambda x, eps, t: right(x, eps, (t - 1).clamp(1))}, SCHEDULE, TIMES
        )


def test_the_last_time_without_signal_is_checked_where_it_can_be() -> None:
    flow = RectifiedFlow()
    seen: dict[str, float] = {}

    def seeing(name: str) -> Callable[..., Tensor]:
        def convert(x: Tensor, given: Tensor, t: Tensor) -> Tensor:
            seen[name] = float(t.max())
            return getattr(prediction, name)(flow, x, given, t)

        return convert

    names = "x0_from_eps", "eps_from_x0", "x0_from_flow"
    assert_prediction_maps({name: seeing(name) for name in names}, flow, [0.25, 0.5, 1.0])
    assert seen == {"x0_from_eps": 0.5, "eps_from_x0": 0.5, "x0_from_flow": 1.0}
    with pytest.raises(MistakeError, match="x0_from_flow differs at 1 of 3 indices, most at t = 1"):
        assert_prediction_maps(
            {"x0_from_flow": lambda x, u, t: x - u * t.clamp(max=0.9)[:, None]},
            flow,
            [0.25, 0.5, 1],
        )


def test_maps_that_are_no_inverses_when_called_in_turn_are_told() -> None:
    last: list[Tensor] = []

    def there(x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        last.append(table("x0_from_eps", KINDS)(x, eps, t))
        return last[-1]

    def back(x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        factor = 1.01 if last and torch.equal(x0, last[-1]) else 1.0
        return factor * table("eps_from_x0", KINDS)(x, x0, t)

    maps = {"x0_from_eps": there, "eps_from_x0": back}
    with pytest.raises(
        AssertionError, match=r"eps_from_x0 after x0_from_eps: wanted 3 again, got 3.03 at t = 1"
    ):
        assert_prediction_maps(maps, SCHEDULE, TIMES)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "maps: wanted at least one map"),
        (
            {"x0": lambda x, e, t: x},
            "maps: wanted names A_from_B with A and B of x0, eps, v",
        ),
        ({"x0_from_noise": lambda x, e, t: x}, "maps: wanted names A_from_B"),
        ({"v_from_v": lambda x, e, t: x}, "maps: wanted names A_from_B"),
    ],
)
def test_bad_arguments_are_refused(maps: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        assert_prediction_maps(maps, SCHEDULE, TIMES)


def test_times_at_which_nothing_is_defined_are_refused() -> None:
    with pytest.raises(ValueError, match="times: wanted a time at which eps and x_t give the rest"):
        assert_prediction_maps({"x0_from_eps": lambda x, e, t: x}, RectifiedFlow(), [1.0])


def test_broken_maps_and_maps_of_one_time() -> None:
    with pytest.raises(AssertionError, match=r"^x0_from_eps: raised TypeError"):
        assert_prediction_maps({"x0_from_eps": lambda x: x}, SCHEDULE, TIMES)
    one = table("x0_from_eps", KINDS)
    assert_prediction_maps(
        {"x0_from_eps": lambda x, eps, t: one(x, eps, torch.tensor([t]))},
        SCHEDULE,
        TIMES,
        batched=False,
    )
