"""Training losses: one error in five targets (C19), each against its definition.

Rounding: a prediction made from x0_hat carries EPS (norm(x_0) + norm(eps) sigma / alpha) of it in
units of x_0, so a ratio of losses is known to `rounding` below, relative to the error's size.
"""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffusion_math import gaussian, prediction
from diffusion_math.loss import (
    WEIGHTS,
    min_snr,
    snr,
    stratified_times,
    training_loss,
    truncated_snr,
    uniform,
    uniform_times,
    variational,
    x0_weight,
)
from diffusion_math.schedule import VE, Discrete, RectifiedFlow, Schedule, VPLinear
from diffusion_math.testing.strategies import betas
from tests.support.measuring import Measured
from tests.support.mixtures import EVENTS, SCHEDULES, normal, seeded, time_at
from tests.support.schedules import continuous
from tests.support.scores import KINDS, LINE, noisy_samples, saying, tensor

EPS = torch.finfo(torch.float64).eps
FACTORS = {  # norm(y - y_hat)^2 / norm(x0 - x0_hat)^2, as the docstring states it
    "x0": lambda a, s: 1.0,
    "eps": lambda a, s: (a / s) ** 2,
    "v": lambda a, s: ((a**2 + s**2) / s) ** 2,
    "flow": lambda a, s: ((a + s) / s) ** 2,
    "score": lambda a, s: a**2 / s**4,
}
numbers = st.lists(st.floats(-5, 5), min_size=2, max_size=2).map(lambda v: tensor(v))
tables = betas(steps=(1, 20), values=(1e-6, 0.99)).map(Discrete)
by_lot = given(
    schedule=st.one_of(continuous, tables), share=st.floats(0, 1), x0=numbers, eps=numbers,
    x0_hat=numbers,
)  # fmt: skip


def legal_time(schedule: Schedule, share: float) -> Tensor:
    """A time with finite log-SNR at which x_t still holds a millionth of x_0."""
    t = time_at(schedule, share)
    t = tensor(min(max(t, schedule.t_min), schedule.t_max))[0]
    alpha_t, sigma_t = schedule(t)
    assume(bool(sigma_t < 1e6 * alpha_t))
    return t


def rounding(schedule: Schedule, t: Tensor, error: float) -> float:
    assume(error >= 0.1)
    alpha_t, sigma_t = schedule(t)
    return 64 * EPS * 20 * (1 + (sigma_t / alpha_t).item()) / error


@by_lot
def test_the_targets_are_the_definitions(
    schedule: Schedule, share: float, x0: Tensor, eps: Tensor, x0_hat: Tensor
) -> None:
    """`prediction.of` and the maps from eps agree, and a network that says it has no loss."""
    t = legal_time(schedule, share)
    alpha_t, sigma_t = schedule(t)
    x_t = alpha_t * x0 + sigma_t * eps
    bound = 64 * EPS * 10 * (1 + sigma_t + alpha_t) ** 2 / alpha_t
    for kind in KINDS:
        target = prediction.target(schedule, kind, x0, eps, t)
        known = eps
        if kind != "eps":
            known = getattr(prediction, f"{kind}_from_eps")(schedule, x_t, eps, t)
        size = bound / sigma_t if kind == "score" else bound
        assert bool(((target - known).abs() <= size).all())
        assert training_loss(schedule, lambda x, time, y=target: y, kind, x0, eps, t).item() == 0


@by_lot
def test_all_targets_have_one_loss_up_to_the_stated_weight(
    schedule: Schedule, share: float, x0: Tensor, eps: Tensor, x0_hat: Tensor
) -> None:
    """For an arbitrary wrong x0_hat: each target's loss is the table's factor times x0's."""
    t = legal_time(schedule, share)
    exact = (x0 - x0_hat).square().sum().item()
    rtol = rounding(schedule, t, math.sqrt(exact))
    alpha, sigma = (c.item() for c in schedule(t))
    for kind in KINDS:
        factor = FACTORS[kind](alpha, sigma)
        assert x0_weight(schedule, kind, t).item() == pytest.approx(factor, rel=16 * EPS)
        own = training_loss(schedule, saying(schedule, kind, x0_hat, t), kind, x0, eps, t)
        assert own.item() == pytest.approx(factor * exact, rel=rtol)


@by_lot
@settings(max_examples=30)
def test_a_weight_means_the_same_for_every_target(
    schedule: Schedule, share: float, x0: Tensor, eps: Tensor, x0_hat: Tensor
) -> None:
    """training_loss(weight) = w(t) norm(x0 - x0_hat)^2, whatever the network predicts."""
    t = legal_time(schedule, share)
    exact = (x0 - x0_hat).square().sum().item()
    rtol = rounding(schedule, t, math.sqrt(exact))
    if isinstance(schedule, Discrete):
        t = t.round()
    for weight in WEIGHTS.values():
        w = weight(schedule, t).item()
        for kind in KINDS:
            network = saying(schedule, kind, x0_hat, t)
            got = training_loss(schedule, network, kind, x0, eps, t, weight)
            assert got.item() == pytest.approx(w * exact, rel=rtol, abs=1e-300)


WRONG_FACTORS = {
    "SNR upside down": ("eps", lambda a, s: (s / a) ** 2),
    "a root of SNR": ("eps", lambda a, s: a / s),
    "SNR for SNR + 1": ("v", lambda a, s: (a / s) ** 2),
    "SNR + 1 without variance preserved": ("v", lambda a, s: (a / s) ** 2 + 1),
    "no square": ("flow", lambda a, s: (a + s) / s),
    "1 / t^2 without a straight path": ("flow", lambda a, s: 1 / s**2),
    "sigma^2 for sigma^4": ("score", lambda a, s: a**2 / s**2),
    "eps's inverse": ("score", lambda a, s: 1 / s**2),
}


@pytest.mark.parametrize("name", WRONG_FACTORS)
def test_wrong_factors_are_rejected(name: str) -> None:
    """Somewhere among the schedules each wrong factor is off by more than a tenth."""
    kind, wrong = WRONG_FACTORS[name]
    x0, eps, x0_hat = (normal(seeded(i), 1, 2) for i in range(3))
    off = []
    for schedule in SCHEDULES:
        t = tensor(time_at(schedule, 0.3))[0]
        own = training_loss(schedule, saying(schedule, kind, x0_hat, t), kind, x0, eps, t)
        ratio = (own / (x0 - x0_hat).square().sum()).item()
        off.append(abs(wrong(*(c.item() for c in schedule(t))) / ratio - 1))
    assert max(off) > 0.1


def test_two_parametrisations_have_one_gradient() -> None:
    """One function in five words: equal gradients in its parameters under a weight, not without."""
    schedule, t = VPLinear(), tensor(0.2, 0.5, 0.9)
    x0, eps = normal(seeded(0), 3, 2), normal(seeded(1), 3, 2)
    theta = normal(seeded(2), 2, 2).requires_grad_()

    def gradient(kind: str, weight: object) -> Tensor:
        def network(x_t: Tensor, time: Tensor) -> Tensor:
            return saying(schedule, kind, torch.tanh(x_t @ theta), t)(x_t, time)

        value = training_loss(schedule, network, kind, x0, eps, t, weight).sum()
        return torch.autograd.grad(value, theta)[0]

    for weight in WEIGHTS.values():
        known = gradient("x0", weight)
        for kind in KINDS[1:]:
            torch.testing.assert_close(gradient(kind, weight), known, rtol=1e-11, atol=1e-12)
    bare = [gradient(kind, None) for kind in KINDS]
    assert all((bare[i] - bare[0]).abs().max() > 0.1 for i in range(1, 5))


@pytest.mark.claim("C19", "diffusion_math.loss.training_loss")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_posterior_mean_is_the_minimiser(
    measured: Measured, kind: str, schedule: Schedule
) -> None:
    """C19 by quadrature on a mixture: E loss at E[x_0 | x_t] + c p is its least + c^2 w E p^2.

    No term linear in c, for a p that correlates with everything in sight; with the mean shrunk by
    a tenth there is one.
    """
    x0, eps, w = noisy_samples(LINE)
    t = tensor(1.0 if isinstance(schedule, VE) else time_at(schedule, 0.4))[0]
    x_t = gaussian.marginal(schedule, x0, t).sample(eps)
    mean, p = LINE.posterior_mean(schedule, x_t, t), torch.sin(x_t) + 0.5 * x_t

    def expected(x0_hat: Tensor) -> Tensor:
        return w @ training_loss(schedule, saying(schedule, kind, x0_hat, t), kind, x0, eps, t)

    least, curved = expected(mean), x0_weight(schedule, kind, t) * (w @ p.square())
    for c in (-0.3, 0.2, 1.0):
        off = expected(mean + c * p) / (least + c**2 * curved) - 1
        measured(abs(off.item()), 1e-9, "relative error of E loss beside its least: quadrature")
    slope = (expected(0.9 * mean + 0.1 * p) - expected(0.9 * mean - 0.1 * p)) / 0.2
    assert abs(slope) > 0.01 * curved


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_network_gets_its_time_and_x_t(schedule: Schedule, event: tuple[int, ...]) -> None:
    """x_t = alpha_t x_0 + sigma_t eps and, if discrete, t - 1; t for all or for each example."""
    x0, eps = normal(seeded(0), 3, *event).float(), normal(seeded(1), 3, *event).float()
    t = torch.tensor([time_at(schedule, p) for p in (0.1, 0.9, 0.5)], dtype=torch.float64)
    seen: list[Tensor] = []

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        seen.append(time)
        return x_t.bfloat16()

    together = training_loss(schedule, network, "eps", x0, eps, t, snr)
    fed = t - 1 if isinstance(schedule, Discrete) else t
    assert seen[0].equal(fed.float())
    assert together.shape == (3,) and together.dtype == torch.float32
    for i in range(3):
        one = training_loss(schedule, network, "eps", x0[i : i + 1], eps[i : i + 1], t[i], snr)
        torch.testing.assert_close(one, together[i : i + 1], rtol=1e-6, atol=1e-6)
    alpha_t, sigma_t = (c.float().reshape(-1, *(1,) * len(event)) for c in schedule(t))
    x_t = (alpha_t * x0 + sigma_t * eps).bfloat16()
    exact = (x_t - eps).square().reshape(3, -1).sum(1)
    # bfloat16 may round the last bit of x_t another way: 2^-8 of it.
    torch.testing.assert_close(together, exact, rtol=0.05, atol=0.05)
    assert training_loss(schedule, network, "v", x0[:0], eps[:0], t[:0]).shape == (0,)


@pytest.mark.usefixtures("unchecked")
def test_ends_and_bad_input() -> None:
    x, half = torch.ones(3, 2, dtype=torch.float64), tensor(0.5)[0]
    flow, table, end = RectifiedFlow(), Discrete.linear(5), tensor(1.0)[0]

    def echo(x_t: Tensor, time: Tensor) -> Tensor:
        return x_t

    # At alpha_T = 0 every target has a loss of its own, and all but eps and score a weighted one.
    for kind in KINDS:
        assert training_loss(flow, echo, kind, x, x, end).isfinite().all()
    for kind in ("x0", "v", "flow"):
        assert training_loss(flow, echo, kind, x, x, end, uniform).isfinite().all()
    assert truncated_snr(flow, end) == 1 and variational(flow, end) == 0
    cases = [
        (lambda: training_loss(flow, echo, "eps", x, x, end, snr), r"^t: wanted alpha_t > 0: x_t"),
        (lambda: training_loss(flow, echo, "noise", x, x, half), r"^kind: wanted one of x0, eps"),
        (lambda: training_loss(flow, echo, "score", x, x, 0 * end), r"^t: wanted sigma_t > 0"),
        (lambda: training_loss(table, echo, "eps", x, x, 0 * end), r"^t: wanted"),
        (lambda: training_loss(flow, lambda x, t: x[0], "v", x, x, half), r"^the network's output"),
        (lambda: training_loss(flow, echo, "v", x, x[0], half), r"^eps: wanted shape"),
        (
            lambda: training_loss(flow, echo, "v", x, x, tensor(0.5, 0.5)),
            r"^t or a coefficient: wanted",
        ),
        (lambda: x0_weight(flow, "x0", 0.0), r"^t: wanted sigma_t > 0"),
        (lambda: x0_weight(flow, "noise", 0.5), r"^kind: wanted one of x0, eps, v, flow, score"),
        (lambda: prediction.target(flow, "v", x, x[0], 0.5), r"^eps: wanted shape"),
        (lambda: variational(flow, 0.0), r"^t: wanted sigma_t > 0"),
        (lambda: variational(table, 1.5), r"^t: wanted whole times"),
        (lambda: min_snr(0.0), r"^gamma: wanted a positive finite number"),
        (lambda: min_snr(math.inf), r"^gamma: wanted"),
        (lambda: uniform_times(flow, seeded(0), -1), r"^batch: wanted a whole number"),
        (lambda: stratified_times(flow, seeded(0), 0), r"^batch: wanted a whole number"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
