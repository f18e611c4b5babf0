"""`assert_forward` and `assert_transition`: right code passes, mistakes are named."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPCosine, VPLinear
from diffusion_math.testing.assertions.forward import assert_forward
from diffusion_math.testing.assertions.transition import KNOWN, assert_transition
from diffusion_math.testing.draws import drawn
from diffusion_math.testing.mistakes.diagnosis import MistakeError

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

T = 30
SCHEDULE = Discrete.linear(T, 1e-3, 0.1)
TIMES = range(1, T + 1)
CASES: dict[str, tuple[Schedule, list[float]]] = {
    "linear": (Discrete.linear(), list(range(1, 1001))),
    "SD": (Discrete.scaled_linear(), list(range(1, 1001))),
    "cosine": (Discrete.cosine(100), list(range(1, 101))),
    "VP": (VPLinear(), [0.001, 0.01, 0.1, 0.5, 0.9, 1.0]),
    "VP cosine": (VPCosine(), [0.001, 0.01, 0.1, 0.5, 0.9, 1.0]),
    "EDM": (VE(), [0.002, 0.1, 1.0, 80.0]),
    "flow": (RectifiedFlow(), [0.01, 0.3, 0.7, 1.0]),
}


def columns(schedule: Schedule, t: Tensor, dtype: torch.dtype) -> list[Tensor]:
    return [each.to(dtype)[:, None] for each in schedule(t)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_our_forward_process_passes(case: str, dtype: torch.dtype) -> None:
    schedule, times = CASES[case]

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return gaussian.marginal(schedule, x0, t).sample(noise)

    def q(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return gaussian.transition(schedule, x, s, t).sample(noise)

    assert_forward(q_sample, schedule, times, dtype=dtype)
    assert_transition(q, schedule, times, dtype=dtype)


@pytest.mark.parametrize("betas", [SCHEDULE.betas, Discrete.linear().betas], ids=len)
def test_tables_as_people_write_them_pass_in_float32(betas: Tensor) -> None:
    abar = torch.cumprod(1 - betas.float(), 0)
    signal, noise = abar.sqrt(), (1 - abar).sqrt()

    def q_sample(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return signal[t, None] * x0 + noise[t, None] * eps

    def q(x: Tensor, s: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        ratio = abar[t, None] / abar[s, None]
        return ratio.sqrt() * x + (1 - ratio).sqrt() * eps

    levels = lambda i: (signal[i], noise[i])  # noqa: E731
    assert_forward(q_sample, levels, range(len(betas)), dtype=torch.float32)
    assert_transition(q, levels, range(len(betas)), dtype=torch.float32)


@pytest.mark.parametrize("schedule", [Discrete.linear(), Discrete.cosine()], ids=repr)
def test_a_slightly_wrong_alpha_is_seen_in_float32(schedule: Schedule) -> None:
    """At the first time it is off by 1e-4, which is 1000 roundings.

    sigma^2 = 1 - alpha^2 may be off by as much there: 10^4 roundings, relatively.
    """
    times = range(1, 1001)

    def q_sample(x0: Tensor, t: Tensor, noise: Tensor, wrong: float = 1e-4) -> Tensor:
        alpha, sigma = columns(schedule, t, torch.float32)
        return torch.where(t[:, None] == 1, 1 - wrong, 1.0) * alpha * x0 + sigma * noise

    assert_forward(partial(q_sample, wrong=0.0), schedule, times, dtype=torch.float32)
    with pytest.raises(MistakeError, match="the coefficient of x0 differs at 1 of 1000"):
        assert_forward(q_sample, schedule, times, dtype=torch.float32)


def test_one_time_at_a_time_passes() -> None:
    assert_forward(
        lambda x0, t, noise: SCHEDULE(t)[0] * x0 + SCHEDULE(t)[1] * noise,
        SCHEDULE,
        TIMES,
        batched=False,
    )


def test_a_single_time_is_checked() -> None:
    for factor in (1.0, 1.01):
        q_sample = lambda x0, t, n, f=factor: x0 * SCHEDULE(9)[0] + f * SCHEDULE(9)[1] * n  # noqa: E731
        if factor == 1:
            assert_forward(q_sample, SCHEDULE, [9])
        else:
            with pytest.raises(MistakeError, match="the coefficient of noise differs at 1 of 1"):
                assert_forward(q_sample, SCHEDULE, [9])


FORWARD: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "the coefficient of noise is sigma^2, the variance": lambda a, s, x, n: a * x + s**2 * n,
    "alpha and sigma are both squared: abar x0 + (1 - abar) noise": (
        lambda a, s, x, n: a**2 * x + s**2 * n
    ),
    "x0 and noise are exchanged": lambda a, s, x, n: s * x + a * n,
    "x0 is not scaled by alpha: x0 + sigma / alpha noise": lambda a, s, x, n: x + s / a * n,
    "x0 is not scaled by alpha: x0 + sigma noise": lambda a, s, x, n: x + s * n,
    "the coefficient of noise is 0": lambda a, s, x, n: a * x,
    "the coefficient of noise is -its right value": lambda a, s, x, n: a * x - s * n,
    "the coefficient of x0 is (its right value)^2": lambda a, s, x, n: a**2 * x + s * n,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FORWARD)
def test_a_wrong_forward_process_is_named(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(MistakeError) as caught:
        assert_forward(
            lambda x0, t, n: FORWARD[name](*columns(SCHEDULE, t, dtype), x0, n),
            SCHEDULE,
            TIMES,
            dtype=dtype,
        )
    assert [one.name for one in caught.value.mistakes] == [name]


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (lambda t: t - 1, "every coefficient is its right value of index t - 1"),
        (lambda t: t + 1, "every coefficient is its right value of index t + 1"),
        (lambda t: T + 1 - t, "every coefficient is its right value of the index counted from"),
        (lambda t: torch.where(t > 1, t - 1, T), "of index t - 1, where -1 is the last"),
        (lambda t: 0 * t + T, "every coefficient is its right value of the last index"),
    ],
)
def test_levels_of_another_index_are_named(index: Callable[[Tensor], Tensor], name: str) -> None:
    def q_sample(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = columns(SCHEDULE, index(t).clamp(1, T), torch.float64)
        return alpha * x0 + sigma * noise

    with pytest.raises(MistakeError, match=re.escape(name)):
        assert_forward(q_sample, SCHEDULE, TIMES)


def test_one_step_of_the_chain_is_named() -> None:
    beta = SCHEDULE.betas[:, None]
    with pytest.raises(MistakeError, match="diagnosis: one step of the chain"):
        assert_forward(
            lambda x0, t, n: (1 - beta[t - 1]).sqrt() * x0 + beta[t - 1].sqrt() * n, SCHEDULE, TIMES
        )


def test_noise_that_x0_scales_is_told() -> None:
    """twisted_diffusion_sampler's deviation, of October 2024, was sigma times x0."""
    with pytest.raises(AssertionError, match=r"^q_sample: wanted a sum of multiples of x0, noise$"):
        assert_forward(lambda x0, t, n: x0 + SCHEDULE(t)[1][:, None] * x0 * n, SCHEDULE, TIMES)


TRANSITIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "sigma_t - sigma_s, a difference": lambda at, st, as_, ss: (at / as_, st - ss),
    "sqrt(sigma_t^2 - sigma_s^2)": lambda at, st, as_, ss: (at / as_, (st**2 - ss**2).sqrt()),
    "sigma_s^2 is scaled by alpha_t / alpha_s,": lambda at, st, as_, ss: (
        at / as_,
        (st**2 - at / as_ * ss**2).sqrt(),
    ),
    "the coefficient of noise is sigma_{t|s}^2": lambda at, st, as_, ss: (
        at / as_,
        st**2 - (at / as_ * ss) ** 2,
    ),
    "the coefficients are those of q(x_t | x_0)": lambda at, st, as_, ss: (at, st),
    "x is not scaled": lambda at, st, as_, ss: (1.0, (st**2 - (at / as_ * ss) ** 2).sqrt()),
    "x is scaled by (alpha_t / alpha_s)^2": lambda at, st, as_, ss: (
        (at / as_) ** 2,
        (st**2 - (at / as_ * ss) ** 2).sqrt(),
    ),
}


def test_each_known_transition_is_planted() -> None:
    assert len(TRANSITIONS) == len(KNOWN)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_wrong_transition_is_named(name: str) -> None:
    def q(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        both = [*columns(SCHEDULE, t, x.dtype), *columns(SCHEDULE, s, x.dtype)]
        signal, deviation = TRANSITIONS[name](*both)
        return signal * x + deviation * noise

    with pytest.raises(MistakeError) as caught:
        assert_transition(q, SCHEDULE, TIMES)
    (one,) = caught.value.mistakes
    assert one.name.startswith(name)


def test_pairs_are_those_that_are_given() -> None:
    seen = []

    def q(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        seen.append((t.tolist(), s.tolist()))
        return gaussian.transition(SCHEDULE, x, s, t).sample(noise)

    assert_transition(q, SCHEDULE, TIMES, pairs=[(9, 3), (30, 1)])
    assert seen[0] == ([9, 30], [3, 1])
    with pytest.raises(ValueError, match="times: wanted two times or more"):
        assert_transition(q, SCHEDULE, [3])
    assert_transition(q, SCHEDULE, [3, 4])


def test_a_transition_that_remembers_its_last_call_does_not_compose() -> None:
    """Right from a start that it has not seen; after that the levels of the first start stay."""
    calls = []

    def q(x: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        calls.append(s)
        start = s if len(calls) <= 5 or len(calls) % 2 == 0 else calls[0][: len(s)]
        start = torch.minimum(start, t - 1)
        return gaussian.transition(SCHEDULE, x, start, t).sample(noise)

    with pytest.raises(MistakeError, match=r"^q, from s to t by way of the time before t: wrong"):
        assert_transition(q, SCHEDULE, TIMES, pairs=[(t, 1) for t in range(3, T + 1)])


@pytest.mark.parametrize("assertion", [assert_forward, assert_transition])
def test_broken_code_is_one_line(assertion: Callable[..., None]) -> None:
    def broken(*arguments: Any) -> Tensor:
        raise RuntimeError("no such index")

    with pytest.raises(AssertionError, match=r"^broken: raised RuntimeError: no such index"):
        assertion(broken, SCHEDULE, TIMES)


def test_code_that_draws_its_noise_is_checked() -> None:
    def right(x0: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = columns(SCHEDULE, t, x0.dtype)
        return alpha * x0 + sigma * torch.randn_like(x0)

    def wrong(x0: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = columns(SCHEDULE, t, x0.dtype)
        return alpha * x0 + sigma * torch.randn_like(x0[:, :1])

    def uniform(x0: Tensor, t: Tensor) -> Tensor:
        return x0 + torch.zeros_like(x0)

    assert_forward(drawn(right), SCHEDULE, TIMES)
    assert_forward(
        drawn(lambda x0, t: right(x0, torch.tensor([t]))), SCHEDULE, TIMES, batched=False
    )
    with pytest.raises(AssertionError, match=r"wrong: .*wanted a normal of shape \(30, 4\), got"):
        assert_forward(drawn(wrong), SCHEDULE, TIMES)
    with pytest.raises(AssertionError, match=r"uniform: .*wanted one draw of a normal, got 0"):
        assert_forward(drawn(uniform), SCHEDULE, TIMES)
