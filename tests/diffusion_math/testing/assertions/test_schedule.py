"""`assert_schedule`: ours pass with drift, diffusion, inverse and betas; mistakes are named."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.testing.assertions.schedule import assert_schedule
from diffusion_math.testing.mistakes.diagnosis import MistakeError

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

TIMES = np.linspace(0.01, 0.99, 30).tolist()
RATIO = math.log(50 / 0.01)


def sub_vp(t: float) -> tuple[float, float]:
    alpha = math.exp(-(0.1 * t + 19.9 * t * t / 2) / 2)
    return alpha, 1 - alpha**2


def geometric(t: float) -> tuple[float, float]:
    """Song et al.'s variance-exploding process without its term at t = 0."""
    return 1.0, 0.01 * math.exp(RATIO * t)


SDES: dict[str, tuple[Callable[..., Any], Callable[[float], float], Callable[[float], float]]] = {
    "VP": (VPLinear(), lambda t: -(0.1 + 19.9 * t) / 2, lambda t: 0.1 + 19.9 * t),
    "cosine": (
        VPCosine(),
        lambda t: -math.pi / 2 * math.tan(math.pi * t / 2),
        lambda t: math.pi * math.tan(math.pi * t / 2),
    ),
    "EDM": (VE(), lambda t: 0.0, lambda t: 2 * t),
    "flow": (RectifiedFlow(), lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
    "geometric": (geometric, lambda t: 0.0, lambda t: 2 * RATIO * geometric(t)[1] ** 2),
    "sub-VP": (
        sub_vp,
        lambda t: -(0.1 + 19.9 * t) / 2,
        lambda t: (0.1 + 19.9 * t) * (1 - sub_vp(t)[0] ** 4),
    ),
}


def names(levels: Callable[..., Any], times: Any = TIMES, **options: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        assert_schedule(levels, times, **options)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("case", SDES)
def test_drift_and_diffusion_of_known_processes_pass(case: str) -> None:
    levels, drift, g2 = SDES[case]
    assert_schedule(levels, TIMES, drift=drift, g2=g2)


@pytest.mark.parametrize("case", SDES)
@pytest.mark.parametrize("which", ["drift", "g2"])
@pytest.mark.parametrize("by", [0.01, -0.01])
def test_one_percent_of_drift_or_diffusion_fails(case: str, which: str, by: float) -> None:
    levels, drift, g2 = SDES[case]
    functions = {
        "drift": lambda t: drift(t) - by * (drift(t) or 1),
        "g2": lambda t: (1 + by) * g2(t),
    }
    with pytest.raises(MistakeError, match=f"{which.replace('g2', 'g.2')} differs at 28 of 28"):
        assert_schedule(levels, TIMES, **{which: functions[which]})


@pytest.mark.parametrize("case", ["VP", "EDM", "flow", "sub-VP"])
def test_levels_in_float32_pass_and_one_percent_fails(case: str) -> None:
    levels, drift, g2 = SDES[case]
    single = lambda t: tuple(np.float32(c) for c in levels(t))  # noqa: E731
    assert_schedule(single, TIMES, drift=drift, g2=g2)
    with pytest.raises(MistakeError):
        assert_schedule(single, TIMES, g2=lambda t: 1.01 * g2(t))


@pytest.mark.parametrize(
    ("schedule", "path", "times"),
    [
        (Discrete.linear(), "variance-preserving", range(1, 1001)),
        (Discrete.cosine(), "variance-preserving", range(1, 1001)),
        (VPLinear(), "variance-preserving", TIMES),
        (VE(), "variance-exploding", [0.002, 0.5, 80.0]),
        (RectifiedFlow(), "straight", [*TIMES, 1.0]),
    ],
)
def test_our_schedules_pass_with_their_claims(schedule: Schedule, path: str, times: Any) -> None:
    ends = schedule(times[0]), schedule(times[-1])
    beta = {"beta": lambda t: schedule.betas[t - 1]} if isinstance(schedule, Discrete) else {}
    assert_schedule(
        schedule, times, path=path, first=ends[0], last=ends[1], inverse=schedule.time, **beta
    )


def test_float32_tables_as_people_write_them_pass() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000)
    abar = torch.cumprod(1 - betas, 0)
    log_snr = (abar / (1 - abar)).log()

    def inverse(value: float) -> float:
        return float(np.interp(-value, -log_snr.double().numpy(), np.arange(1000)))

    assert_schedule(
        lambda i: (abar[i].sqrt(), (1 - abar[i]).sqrt()),
        range(1000),
        path="variance-preserving",
        inverse=inverse,
        beta=lambda i: betas[i],
    )


G2: dict[str, tuple[str, Callable[[float], float]]] = {
    "g^2 is -2 f, that of a variance-preserving process": ("flow", lambda t: 2 / (1 - t)),
    "g^2 is d sigma^2 / dt: -2 f sigma^2 is left out": ("flow", lambda t: 2 * t),
    "g^2 is d sigma^2 / dt + 2 f sigma^2, of the other sign": (
        "flow",
        lambda t: 2 * t - 2 * t**2 / (1 - t),
    ),
    "g^2 is sigma^2: its logarithm's derivative is left out": (
        "geometric",
        lambda t: geometric(t)[1] ** 2,
    ),
    "g^2 is d sigma / dt, not that of sigma^2": ("geometric", lambda t: RATIO * geometric(t)[1]),
    "the g^2 is sqrt(its right value)": ("VP", lambda t: math.sqrt(0.1 + 19.9 * t)),
    "the g^2 is its right value / 2": ("VP", lambda t: (0.1 + 19.9 * t) / 2),
}


@pytest.mark.parametrize("name", G2)
def test_a_wrong_diffusion_is_named(name: str) -> None:
    case, g2 = G2[name]
    assert names(SDES[case][0], g2=g2) == [name]


def test_a_wrong_drift_is_named() -> None:
    _, drift, g2 = SDES["VP"]
    assert names(VPLinear(), drift=lambda t: -drift(t), g2=g2) == ["the drift is -its right value"]
    assert names(VPLinear(), drift=lambda t: 2 * drift(t)) == ["the drift is 2 its right value"]


PATHS: dict[str, tuple[str, Callable[[float], tuple[float, float]]]] = {
    "sigma is 1 - alpha^2, the variance, not its root": ("variance-preserving", sub_vp),
    "alpha is abar, not its root": ("variance-preserving", lambda t: (1 - t, math.sqrt(t))),
    "alpha + sigma = 1, the straight path": ("variance-preserving", lambda t: (1 - t, t)),
    "alpha^2 + sigma^2 = 1, the variance-preserving path": (
        "straight",
        lambda t: (math.cos(t), math.sin(t)),
    ),
    "alpha = 1, the variance-exploding path": ("variance-preserving", geometric),
}


@pytest.mark.parametrize("name", PATHS)
def test_another_path_than_claimed_is_named(name: str) -> None:
    path, levels = PATHS[name]
    assert names(levels, path=path) == [name]


INVERSES: dict[str, Callable[[float], float]] = {
    "the inverse takes log(alpha / sigma), half the log-SNR": lambda x: 2 * x,
    "the inverse takes log(sigma^2 / alpha^2), the negative log-SNR": lambda x: -x,
    "the inverse takes log(sigma / alpha), half the negative log-SNR": lambda x: -2 * x,
    "the inverse takes sigma / alpha": lambda x: -2 * math.log(x) if x > 0 else 0.0,
    "the inverse takes alpha^2 / sigma^2, the SNR itself": lambda x: math.log(x) if x > 0 else 0.0,
}


@pytest.mark.parametrize("name", INVERSES)
def test_an_inverse_of_another_argument_is_named(name: str) -> None:
    def inverse(value: float) -> Tensor:
        return RectifiedFlow().time(INVERSES[name](value))

    assert names(RectifiedFlow(), inverse=inverse) == [name]


def test_an_inverse_that_is_off_by_an_index_fails() -> None:
    schedule = Discrete.linear(50)
    with pytest.raises(MistakeError, match="the time differs at 50 of 50 indices"):
        assert_schedule(schedule, range(1, 51), inverse=lambda x: schedule.time(x) - 1)


def test_wrong_betas_are_named() -> None:
    schedule = Discrete.linear(50)
    beta = schedule.betas
    assert names(schedule, range(1, 51), beta=lambda t: 1 - beta[t - 1]) == ["the beta is 1 - beta"]
    assert names(schedule, range(1, 51), beta=lambda t: beta[max(t - 2, 0)]) == [
        "the beta is its right value of index t - 1"
    ]


def test_ends_that_are_not_as_claimed_are_told() -> None:
    with pytest.raises(MistakeError, match=r"the sigma differs .* most at the last time: got 80"):
        assert_schedule(VE(), [0.002, 80.0], first=(1, 0.002), last=(1, 81))
    with pytest.raises(MistakeError, match=r"the sigma differs .* most at the first time"):
        assert_schedule(VE(), [0.002, 80.0], first=(1, 0.0021))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (lambda t: (1.0, 1 - t), "levels: times: wanted a signal-to-noise ratio that falls"),
        (lambda t: (1.0, 0.0), r"levels: levels\(0.01\): wanted finite alpha >= 0 and sigma > 0"),
        (lambda t: (math.inf, 1.0), r"levels: levels\(0.01\): wanted finite"),
        (lambda t: 1.0, r"levels: levels\(0.01\): wanted \(alpha, sigma\), got 1.0"),
        (lambda t: {}[t], "levels: raised KeyError: 0.01"),
    ],
)
def test_levels_that_are_none_are_one_line(levels: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"^{message}"):
        assert_schedule(levels, TIMES)


def test_an_end_that_float32_loses_is_told() -> None:
    def levels(t: Any) -> tuple[Any, Any]:
        t = torch.as_tensor(t, dtype=getattr(t, "dtype", torch.float64))
        alpha = torch.exp(-t * t)
        return alpha, (1 - alpha**2).sqrt()

    with pytest.raises(
        AssertionError, match=r"levels: sigma at t = 0.0001 is .* in float32, 0.0001"
    ):
        assert_schedule(levels, [1e-4, 0.5, 1.0])
    assert_schedule(levels, [1e-2, 0.5, 1.0])
    assert_schedule(lambda t: levels(t.real + 0.0 if isinstance(t, float) else 1 / 0), [1e-4, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "vp"}, "path: wanted one of variance-preserving, variance-exploding, straight"),
        ({"times": []}, "times: wanted at least one time"),
        ({"times": [0.1, 0.9], "g2": lambda t: t}, "times: wanted one between the first and the"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        assert_schedule(VPLinear(), **{"times": TIMES, **options})


@pytest.mark.parametrize("which", ["drift", "g2", "inverse", "beta"])
def test_broken_functions_are_one_line(which: str) -> None:
    def broken(t: float) -> float:
        raise OSError("gone")

    with pytest.raises(AssertionError, match=r": raised OSError: gone$"):
        assert_schedule(VPLinear(), TIMES, **{which: broken})
    with pytest.raises(AssertionError, match=r": wanted an array, got NoneType$"):
        assert_schedule(VPLinear(), TIMES, **{which: lambda t: None})
