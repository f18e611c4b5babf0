"""`assert_loss` passes right losses and names wrong targets, weights and reductions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import diffusion_math as dm
from diffusion_math.prediction import KINDS
from diffusion_math.schedule import Schedule
from diffusion_math.testing.assertions.loss import assert_loss
from diffusion_math.testing.assertions.weights import WEIGHTS, min_snr
from diffusion_math.testing.draws import drawn
from diffusion_math.testing.mistakes.diagnosis import MistakeError
from diffusion_math.testing.strategies import betas

FLOATS = [torch.float32, torch.float64]
COUNT = 30
ABAR = (1 - torch.linspace(1e-4, 0.2, COUNT, dtype=torch.float64)).cumprod(0)
SCHEDULES: dict[str, tuple[Schedule, list[float]]] = {
    "linear": (dm.Discrete.linear(20), [float(t) for t in range(1, 21)]),
    "cosine": (dm.VPCosine(), [0.01, 0.2, 0.5, 0.9]),
    "ve": (dm.VE(), [0.01, 0.5, 1.0, 20.0]),
    "flow": (dm.RectifiedFlow(), [0.02, 0.3, 0.7, 0.99]),
}
OURS = {
    "min-SNR": dm.loss.min_snr(),
    "simple": dm.loss.snr,
    "x0": dm.loss.uniform,
    "truncated SNR": dm.loss.truncated_snr,
}


def index(t: float) -> float:
    """What a network of a discrete schedule is told of t: indices count from 0."""
    return t - 1


def levels(t: int) -> tuple[Tensor, Tensor]:
    return ABAR[t].sqrt(), (1 - ABAR[t]).sqrt()


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    alpha, sigma = ABAR.sqrt().to(dtype), (1 - ABAR).sqrt().to(dtype)
    return alpha, sigma, (ABAR / (1 - ABAR)).to(dtype)


def plain(
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    weight: Callable[[Tensor], Tensor] = torch.ones_like,
    dtype: torch.dtype = torch.float64,
    reduce: Callable[[Tensor, Tensor], Tensor] = lambda e, w: (e.mean(1) * w).mean(),
) -> Callable[..., Tensor]:
    """A loss as training scripts have it: target(alpha, sigma, x0, noise), weight(SNR)."""
    alpha, sigma, ratio = tensors(dtype)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = alpha[t][:, None], sigma[t][:, None]
        error = target(a, s, x0, noise) - network(a * x0 + s * noise, t)
        return reduce(error.square(), weight(ratio[t]))

    return loss


def eps(a: Tensor, s: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    return noise


def v(a: Tensor, s: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    return a * noise - s * x0


def named(loss: Callable[..., Any], **claims: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        assert_loss(loss, levels, range(COUNT), **claims)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_our_losses_pass(name: str, kind: str, dtype: torch.dtype) -> None:
    schedule, times = SCHEDULES[name]

    def run(weight: str | None) -> None:
        def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            ours = None if weight is None else OURS[weight]
            return dm.training_loss(schedule, network, kind, x0, noise, t.double(), ours)

        told = index if name == "linear" else "t"
        claims = {"predicts": kind, "weight": weight, "told": told, "dtype": dtype}
        assert_loss(loss, schedule, times, event="sum", **claims)

    for weight in (None, *OURS):
        run(weight)


@given(betas(steps=(1, 8), values=(1e-4, 0.9)), st.sampled_from(sorted(KINDS)))
@settings(max_examples=8, deadline=None)
def test_our_losses_pass_on_any_betas(table: Tensor, kind: str) -> None:
    schedule = dm.Discrete(table)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return dm.training_loss(schedule, network, kind, x0, noise, t.double(), dm.loss.min_snr())

    times = range(1, len(table) + 1)
    assert_loss(loss, schedule, times, predicts=kind, weight="min-SNR", event="sum", told=index)


def test_our_bound_is_the_weight_of_ddpm() -> None:
    schedule = dm.Discrete.linear(20)

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return dm.training_loss(
            schedule, network, "eps", x0, noise, t.double(), dm.loss.variational
        ).mean()

    assert_loss(loss, schedule, range(1, 21), weight="ELBO", event="sum", told=index)


@pytest.mark.parametrize("dtype", FLOATS)
def test_plain_losses_pass(dtype: torch.dtype) -> None:
    def check(loss: Callable[..., Any], **claims: Any) -> None:
        assert_loss(loss, levels, range(COUNT), dtype=dtype, **claims)

    check(plain(eps, dtype=dtype))
    check(plain(eps, dtype=dtype, reduce=lambda e, w: e))
    check(plain(eps, dtype=dtype, reduce=lambda e, w: e.sum(1)), event="sum")
    check(plain(eps, lambda r: r.clamp(max=5) / r, dtype), weight="min-SNR")
    check(plain(v, lambda r: r.clamp(max=5) / (r + 1), dtype), predicts="v", weight="min-SNR")
    check(plain(eps, lambda r: r.clamp(max=3) / r, dtype), weight=min_snr(3.0))
    check(plain(eps, lambda r: 1 / (1 + r), dtype), weight="P2")
    check(plain(eps, lambda r: 1 + 4 / r, dtype), weight="EDM")


def test_a_result_of_numpy_passes() -> None:
    loss = plain(eps)
    assert_loss(lambda *given: loss(*given).numpy(), levels, range(COUNT))


def test_a_loss_that_draws_its_noise_passes() -> None:
    loss = plain(eps)
    draws = drawn(lambda network, x0, t: loss(network, x0, t, torch.randn_like(x0)))
    assert_loss(draws, levels, range(COUNT))


GENERATED = {
    "the weight is 0": lambda r: 0 * r,
    "the weight is 2 its right value": lambda r: 2 * r.clamp(max=5) / r,
    "the weight is 1 / (its right value)": lambda r: r / r.clamp(max=5),
    "the weight is 1 / sqrt(its right value)": lambda r: (r / r.clamp(max=5)).sqrt(),
    "the weight is sqrt(2) its right value": lambda r: 2**0.5 * r.clamp(max=5) / r,
    "the weight is log(SNR)": torch.log,
    "the weight is sqrt(SNR)": lambda r: r.sqrt(),
    "the weight is exp(1 - abar)": lambda r: torch.exp(1 / (1 + r)),
}


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("dtype", FLOATS)
def test_generated_weights_are_named(name: str, dtype: torch.dtype) -> None:
    loss = plain(eps, GENERATED[name], dtype=dtype)
    found = named(loss, weight="min-SNR", dtype=dtype)
    assert found == [name]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_another_target_is_named(kind: str, dtype: torch.dtype) -> None:
    def target(a: Tensor, s: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        on_x0, on_noise = KINDS[kind](a, s)
        return on_x0 * x0 + on_noise * noise

    for predicts in KINDS:
        if predicts != kind:
            expected = [f"the target is {kind}, where {predicts} is predicted"]
            assert named(plain(target, dtype=dtype), predicts=predicts, dtype=dtype) == expected


def test_a_wrong_sign_of_v_is_named() -> None:
    def reversed_v(a: Tensor, s: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        return s * x0 - a * noise

    def plus(a: Tensor, s: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
        return a * noise + s * x0

    assert named(plain(reversed_v), predicts="v") == ["the target is v with the sign reversed"]
    assert "plus sign" in named(plain(plus), predicts="v")[0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("kind", "weight", "name"),
    [
        ("v", lambda r: (r + 1).clamp(max=5) / (r + 1), "1 is added to the SNR in the numerator"),
        ("v", lambda r: r.clamp(max=5) / r + 1, "1 is added to the weight of eps"),
        ("v", lambda r: r.clamp(max=5) / r, "the weight is for a network of eps, where v is"),
        ("eps", lambda r: r.clamp(max=5) / (r + 1), "the weight is for a network of v, where eps"),
        ("eps", lambda r: r.clamp(max=5), "the weight is for a network of x0, where eps"),
        ("eps", lambda r: r.clamp(min=5) / r, "max is in the place of min"),
        ("eps", torch.ones_like, "the weight is that of simple"),
        ("eps", lambda r: 1 / (1 + r), "the weight is that of P2"),
        ("eps", lambda r: 4 * r.clamp(max=5) / r, "the event is summed: its mean is wanted"),
        ("eps", lambda r: r.clamp(max=5) / r / 2, "the weight is its right value / 2"),
        ("eps", lambda r: (r.clamp(max=5) / r).sqrt(), "the weight is sqrt(its right value)"),
        ("eps", lambda r: (r.clamp(max=5) / r) ** 2, "the weight is (its right value)^2"),
    ],
)
def test_a_wrong_weight_is_named(
    kind: str, weight: Callable[[Tensor], Tensor], name: str, dtype: torch.dtype
) -> None:
    target = v if kind == "v" else eps
    (found,) = named(
        plain(target, weight, dtype=dtype), predicts=kind, weight="min-SNR", dtype=dtype
    )
    assert found.startswith(name)


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_weight_is_told_from_none(name: str) -> None:
    if name != "simple":
        assert named(plain(eps), weight=name) == ["the weight is that of simple"]


def test_a_wrong_index_of_the_forward_process_is_named() -> None:
    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        at = ABAR[(t - 1).clamp(0)][:, None]
        x_t = at.sqrt() * x0 + (1 - at).sqrt() * noise
        return (noise - network(x_t, t)).square().mean()

    assert named(loss) == ["every coefficient is its right value of index t - 1"]


def test_reductions_of_a_batch_are_named() -> None:
    summed = plain(eps, reduce=lambda e, w: e.mean(1).sum())
    assert named(summed) == ["the losses of a batch are summed"]
    broad = plain(
        eps, lambda r: r.clamp(max=5) / r, reduce=lambda e, w: (e.mean(1) * w[:, None]).mean()
    )
    assert named(broad, weight="min-SNR")[0].startswith("mean weight times mean error")


def test_rows_that_are_mixed_are_told() -> None:
    mixed = plain(eps, reduce=lambda e, w: e.mean(1) * 0 + e.mean())
    with pytest.raises(AssertionError):
        assert_loss(mixed, levels, range(COUNT))


def test_what_is_no_squared_error_is_told() -> None:
    def huber(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s, _ = tensors(torch.float64)
        predicted = network(a[t][:, None] * x0 + s[t][:, None] * noise, t)
        return torch.nn.functional.smooth_l1_loss(predicted, noise)

    with pytest.raises(AssertionError, match="wanted a squared error with minimum 0"):
        assert_loss(huber, levels, range(COUNT))
    with pytest.raises(AssertionError, match="wanted a squared error with minimum 0"):
        assert_loss(plain(eps, reduce=lambda e, w: e.mean() + 0.1), levels, range(COUNT))


def bounded(
    network: Any, x0: Tensor, t: Tensor, noise: Tensor, most: float, delta: float
) -> Tensor:
    """Huber's loss of an x_t that is clamped."""
    a, s, _ = tensors(x0.dtype)
    x_t = (a[t][:, None] * x0 + s[t][:, None] * noise).clamp(-most, most)
    return 2 * torch.nn.functional.huber_loss(network(x_t, t), noise, delta=delta)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_bound_beyond_usual_events_is_told(dtype: torch.dtype) -> None:
    inf = float("inf")
    check = partial(assert_loss, levels=levels, times=range(COUNT), dtype=dtype)
    check(partial(bounded, most=1e4, delta=1e4))
    with pytest.raises(AssertionError, match=r"but not for 192: is one clamped\?$"):
        check(partial(bounded, most=5.0, delta=inf))
    with pytest.raises(AssertionError, match="a squared error near its minimum, but not 64 times"):
        check(partial(bounded, most=inf, delta=10.0))


def test_one_percent_is_an_error_in_float32() -> None:
    loss = plain(eps, lambda r: 1.01 * r.clamp(max=5) / r, dtype=torch.float32)
    assert named(loss, weight="min-SNR", dtype=torch.float32) == []


def test_what_raises_or_evaluates_nothing_is_one_line() -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(AssertionError, match="broken: raised RuntimeError: no"):
        assert_loss(broken, levels, range(COUNT))
    with pytest.raises(AssertionError, match="the network is not evaluated"):
        assert_loss(lambda *_: torch.zeros(()), levels, range(COUNT))


def test_bad_arguments_are_value_errors() -> None:
    for bad in ({"predicts": "z"}, {"event": "max"}, {"weight": "mine"}):
        with pytest.raises(ValueError, match=r"^\w+: wanted .*, got "):
            assert_loss(plain(eps), levels, range(COUNT), **bad)  # type: ignore[arg-type]
