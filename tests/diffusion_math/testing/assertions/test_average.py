"""`assert_average` passes right averages and names what is wrong."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffusion_math.testing.assertions.average import KNOWN, assert_average
from diffusion_math.testing.mistakes.coarse import UncheckedWarning
from diffusion_math.testing.mistakes.diagnosis import MistakeError

FLOATS = [torch.float32, torch.float64]
BETA = 0.9
Start = Callable[[Tensor], Callable[[Tensor], Tensor]]


def warm(n: int) -> float:
    """The warm-up that most trainers use."""
    return min(BETA, (1 + n) / (10 + n))


def plain(
    decay: Callable[[int], float] = lambda n: BETA,
    every: int = 1,
    after: int = 0,
    zero: bool = False,
    divisor: Callable[[int], float] = lambda n: 1.0,
    times: int = 1,
) -> Start:
    """An average as trainers have it: a counter of steps, one of updates."""

    def start(w: Tensor) -> Callable[[Tensor], Tensor]:
        kept, step = (torch.zeros_like(w) if zero else w.clone()), 0

        def update(w: Tensor) -> Tensor:
            nonlocal kept, step
            step += 1
            if step <= after:
                kept = w.clone()
            elif step % every == 0:
                d = decay(step // every)
                for _ in range(times):
                    kept = d * kept + (1 - d) * w
            return kept / divisor(step)

        return update

    return start


def of_torch(w: Tensor) -> Callable[[Tensor], Tensor]:
    """PyTorch's own class, on a module."""
    module = torch.nn.Linear(len(w), 1, bias=False).to(w.dtype)
    module.weight.data[:] = w
    average = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(BETA)
    )
    average.update_parameters(module)  # the first call copies

    def update(w: Tensor) -> Tensor:
        module.weight.data[:] = w
        average.update_parameters(module)
        return average.module.weight

    return update


def of_ours(w: Tensor) -> Callable[[Tensor], Tensor]:
    """The trainer's recursion: decay n / (n + 10) limited, in place."""
    kept, step = copy.deepcopy(w), 0

    def update(w: Tensor) -> Tensor:
        nonlocal step
        step += 1
        return kept.lerp_(w, 1 - min(BETA, step / (step + 10.0)))

    return update


def named(start: Start, *claims: Any, **more: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        assert_average(start, *claims, **more)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_averages_pass(dtype: torch.dtype) -> None:
    assert_average(of_torch, BETA, dtype=dtype)
    assert_average(of_ours, lambda n: min(BETA, n / (n + 10)), dtype=dtype)
    assert_average(plain(), BETA, dtype=dtype)
    assert_average(plain(warm), warm, dtype=dtype)
    assert_average(plain(warm, every=3), warm, every=3, dtype=dtype)
    copied = lambda n: 0.0 if n <= 4 else warm(n)  # noqa: E731
    assert_average(plain(warm, after=4), copied, dtype=dtype)
    assert_average(from_zero, BETA, every=3, first=1, dtype=dtype)
    power = lambda n: (1 - 1 / n) ** 7.94  # noqa: E731
    assert_average(plain(power), power, dtype=dtype)
    for beta in (0.9, 0.999):
        corrected = plain(lambda n, b=beta: b, zero=True, divisor=lambda n, b=beta: 1 - b**n)
        assert_average(corrected, beta, debiased=True, dtype=dtype)
    assert_average(plain(lambda n: 0.9999), 0.9999, dtype=dtype)


@given(
    st.lists(st.floats(0.01, 1) | st.just(0.0), min_size=13, max_size=13),
    st.integers(1, 5),
    st.sampled_from(FLOATS),
)
@settings(max_examples=8, deadline=None)
def test_right_averages_of_any_decays_pass(
    decays: list[float], every: int, dtype: torch.dtype
) -> None:
    def decay(n: int) -> float:
        return decays[n % 13]

    assert_average(plain(decay, every=every), decay, steps=12, every=every, dtype=dtype)


PLANTED: dict[str, tuple[Start, dict[str, Any]]] = {
    "the decay is that of the update before": (
        plain(lambda n: warm(max(n - 1, 1))), {"decay": warm}),
    "the decay is that of the next update": (plain(lambda n: warm(n + 1)), {"decay": warm}),
    "there is no warm-up: the decay of late updates is used at every step": (
        plain(), {"decay": warm}),
    "the decay never rises again: its least value so far is kept": (
        plain(lambda n: warm(1)), {"decay": warm}),
    "d and 1 - d are exchanged": (plain(lambda n: 1 - warm(n)), {"decay": warm}),
    "every step is an update": (plain(warm), {"decay": warm, "every": 3}),
    "the warm-up counts training steps, not updates": (
        plain(lambda n: warm(3 * n), every=3), {"decay": warm, "every": 3}),
    "the first update is at step `every`": (
        plain(every=3), {"decay": BETA, "every": 3, "first": 1}),
    "the average is updated twice a step": (plain(warm, times=2), {"decay": warm}),
    "the first update copies the parameters, as if its decay were 0": (
        plain(lambda n: 0.0 if n == 1 else BETA), {"decay": BETA}),
    "the average starts at 0, and its bias is not corrected": (
        plain(zero=True), {"decay": BETA, "debiased": True}),
    "the bias is corrected where there is none": (
        plain(zero=True, divisor=lambda n: 1 - BETA**n), {"decay": BETA}),
    "the average starts at W_0, and no bias is corrected": (
        plain(), {"decay": BETA, "debiased": True}),
    "the correction of the bias is that of the next step: 1 - d^(n + 1)": (
        plain(zero=True, divisor=lambda n: 1 - BETA ** (n + 1)),
        {"decay": BETA, "debiased": True}),
}  # fmt: skip


def late(w: Tensor) -> Callable[[Tensor], Tensor]:
    """Updated before the training step, so with the parameters before it."""
    kept, last = w.clone(), w.clone()

    def update(w: Tensor) -> Tensor:
        nonlocal kept, last
        kept, last = BETA * kept + (1 - BETA) * last, w.clone()
        return kept

    return update


def from_zero(w: Tensor) -> Callable[[Tensor], Tensor]:
    """Steps counted from 0, and an update where the count is a multiple of 3."""
    kept, step = w.clone(), 0

    def update(w: Tensor) -> Tensor:
        nonlocal kept, step
        if step % 3 == 0:
            kept = BETA * kept + (1 - BETA) * w
        step += 1
        return kept

    return update


PLANTED["the update comes before the training step"] = (late, {"decay": BETA})
PLANTED["the first update is at step 1: steps are counted from 0"] = (
    from_zero, {"decay": BETA, "every": 3},
)  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("dtype", FLOATS)
def test_each_known_mistake_is_named(name: str, dtype: torch.dtype) -> None:
    start, claims = PLANTED[name]
    assert named(start, **claims, dtype=dtype) == [name]


def test_one_percent_is_an_error_in_float32() -> None:
    found = named(plain(lambda n: 0.899), BETA, dtype=torch.float32)
    assert found == []
    start = plain(zero=True, divisor=lambda n: 1 - 0.9991**n, decay=lambda n: 0.999)
    with pytest.raises(MistakeError):
        assert_average(start, 0.999, debiased=True, dtype=torch.float32)


def test_what_is_no_average_is_told() -> None:
    def start(w: Tensor) -> Callable[[Tensor], Tensor]:
        seen = [w]

        def update(w: Tensor) -> Tensor:
            seen.append(w)
            return torch.stack(seen[-3:]).mean(0)

        return update

    with pytest.raises(AssertionError, match="the average is no d A"):
        assert_average(start, BETA)
    with pytest.raises(AssertionError, match="wanted a result of shape"):
        assert_average(lambda w: lambda w: w[:3], BETA)


def test_bad_arguments_are_value_errors() -> None:
    with pytest.raises(ValueError, match="first: wanted 1, and a decay below 1"):
        assert_average(plain(zero=True), BETA, every=3, debiased=True)
    for bad in ({"decay": 1.5}, {"decay": BETA, "every": 0}, {"decay": BETA, "steps": 1}):
        with pytest.raises(ValueError, match=r"^\w+: wanted .*, got "):
            assert_average(plain(), **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", FLOATS)
def test_decay_is_known_to_the_rounding_of_one(dtype: torch.dtype) -> None:
    """Code that moves by 1 - d in the parameters' dtype, as `lerp_` does, rounds d to that of 1."""

    def start(w: Tensor) -> Callable[[Tensor], Tensor]:
        kept, count = w.clone(), 0

        def update(w: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return kept.lerp_(w, 1 - profile(count))

        return update

    def profile(n: int) -> float:
        return float((1 - 10 / (10 * n - 9)) ** 7.94) if n > 1 else 0.0

    assert_average(start, profile, dtype=dtype)


def test_a_decay_is_followed_to_its_last_value() -> None:
    """Right in its warm-up, and wrong after it: update 80 is the first of the last decay."""
    assert_average(plain(warm), warm)
    capped = plain(lambda n: min(0.89, warm(n)))
    with pytest.raises(MistakeError, match="at 11 of 82 indices"):
        assert_average(capped, warm)
    with pytest.raises(MistakeError):
        assert_average(plain(lambda n: min(0.89, warm(n)), every=3), warm, every=3)
    with pytest.warns(UncheckedWarning, match="the decay is 0.9 from update 80 on: steps=82 looks"):
        assert_average(capped, warm, steps=30)


def test_a_long_warm_up_is_told() -> None:
    slow = lambda n: min(0.999, (1 + n) / (10 + n))  # noqa: E731
    with pytest.warns(UncheckedWarning, match="start: the decay is 0.999 from update 8990 on"):
        assert_average(plain(slow), slow)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("dtype", FLOATS)
def test_more_steps_than_parameters(every: int, dtype: torch.dtype) -> None:
    """Each parameter is 1 again and again."""
    middle = lambda n: min(0.99, (1 + n) / (10 + n))  # noqa: E731
    steps = 400 * every if every == 1 else 1000
    constant = lambda n: 0.99  # noqa: E731
    for decay in (constant, lambda n: n / (n + 10)):
        assert_average(plain(decay, every=every), decay, steps=steps, every=every, dtype=dtype)
    if every == 1:
        with pytest.raises(MistakeError):
            assert_average(plain(lambda n: min(0.989, middle(n))), constant, steps=steps)


def test_live_parameters_that_are_changed_are_told() -> None:
    def shared(w: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda new: w.mul_(BETA).add_((1 - BETA) * new)  # W_0's own memory

    def copied(w: Tensor) -> Callable[[Tensor], Tensor]:
        kept: list[Tensor] = []

        def update(w: Tensor) -> Tensor:
            kept[:] = [kept[0].mul_(BETA).add_((1 - BETA) * w)] if kept else [w]
            return kept[0]

        return update

    def live(w: Tensor) -> Callable[[Tensor], Tensor]:
        kept = w.clone()

        def update(w: Tensor) -> Tensor:
            w.mul_(1 - BETA)
            return kept.mul_(BETA).add_(w)

        return update

    for start in (shared, live):
        with pytest.raises(AssertionError, match=r"parameters .* changed in place.* \(step 1\)"):
            assert_average(start, BETA)
    with pytest.raises(AssertionError, match=r"parameters .* changed in place.* \(step 2\)"):
        assert_average(copied, lambda n: 0.0 if n == 1 else BETA)


def test_live_parameters_that_are_trained_further_pass() -> None:
    def start(w: Tensor) -> Callable[[Tensor], Tensor]:
        weights, kept = torch.nn.Parameter(w), w.clone()

        def update(w: Tensor) -> Tensor:
            weights.data.copy_(w)  # the training step
            return kept.lerp_(weights.detach(), 1 - BETA)

        return update

    assert_average(start, BETA)
