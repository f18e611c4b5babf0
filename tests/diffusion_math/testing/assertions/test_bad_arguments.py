"""A bad argument of an assertion is a ValueError of one line that names it; none is ignored."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_math import testing
from tests.support.diffusions import Buffers
from tests.support.right_diffusion import ABAR, TIMES, levels, loss, q_sample

pytestmark = pytest.mark.usefixtures("unchecked")  # the assertions look at their own arguments


def combine(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
    return uncond + w * (cond - uncond)


def start(w: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda w: w


BARE: Any = SimpleNamespace(alphas_cumprod=ABAR)
BAD: dict[str, tuple[str, Any]] = {
    "no function": ("q_sample", lambda: testing.assert_forward(None, levels, TIMES)),
    "no levels": ("levels", lambda: testing.assert_forward(q_sample, None, TIMES)),
    "levels of three": ("levels", lambda: testing.assert_forward(q_sample, q_sample, TIMES)),
    "a number of times": ("times", lambda: testing.assert_forward(q_sample, levels, 10)),
    "a text of times": ("times", lambda: testing.assert_forward(q_sample, levels, "abc")),
    "texts of times": ("times", lambda: testing.assert_forward(q_sample, levels, ["a"])),
    "lists of times": ("times", lambda: testing.assert_forward(q_sample, levels, [[1], [2]])),
    "a matrix of times": ("times", lambda: testing.assert_forward(q_sample, levels, torch.eye(2))),
    "dtype's name": ("dtype", lambda: testing.assert_loss(loss, levels, TIMES, dtype="float32")),
    "whole numbers": ("dtype", lambda: testing.assert_loss(loss, levels, TIMES, dtype=torch.int64)),
    "batched": ("batched", lambda: testing.assert_forward(q_sample, levels, TIMES, batched="no")),
    "predicts": ("predicts", lambda: testing.assert_loss(loss, levels, TIMES, predicts=["eps"])),
    "weight": ("weight", lambda: testing.assert_loss(loss, levels, TIMES, weight=1.0)),
    "spread": ("spread", lambda: testing.assert_posterior(loss, levels, TIMES, spread=[1])),
    "first": ("first", lambda: testing.assert_posterior(loss, levels, TIMES, first=None)),
    "pairs": ("pairs", lambda: testing.assert_transition(loss, levels, TIMES, pairs=3)),
    "one of pairs": ("pairs", lambda: testing.assert_transition(loss, levels, TIMES, pairs=[3])),
    "maps": ("maps", lambda: testing.assert_prediction_maps([loss], levels, TIMES)),
    "a map": ("maps", lambda: testing.assert_prediction_maps({"x0_from_v": 1}, levels, TIMES)),
    "a map's name": ("maps", lambda: testing.assert_prediction_maps({1: loss}, levels, TIMES)),
    "ends": ("ends", lambda: testing.assert_learned_variance(loss, levels, TIMES, ends=(1,))),
    "a schedule's end": ("last", lambda: testing.assert_schedule(levels, TIMES, last=(1, "a"))),
    "half an end": ("first", lambda: testing.assert_schedule(levels, TIMES, first=(1,))),
    "one scale": ("scales", lambda: testing.assert_guidance(combine, 7.5)),
    "no scale": ("scales", lambda: testing.assert_guidance(combine, ["a"])),
    "a nested scale": ("scales", lambda: testing.assert_guidance(combine, [[1.0], [2.0]])),
    "share": ("share", lambda: testing.assert_guidance(combine, share="a")),
    "evaluations": ("evaluations", lambda: testing.assert_guided(combine, evaluations="a")),
    "decay": ("decay", lambda: testing.assert_average(start, None)),
    "a decay of None": ("decay", lambda: testing.assert_average(start, lambda n: None)),
    "a decay that raises": ("decay", lambda: testing.assert_average(start, lambda n: [0.9][n])),
    "steps": ("steps", lambda: testing.assert_average(start, 0.9, steps="3")),
    "mean": ("mean", lambda: testing.assert_stationary(start, [0.0], [[1.0]])),
    "no levels at 0": ("levels", lambda: testing.assert_likelihood(loss, lambda t: None, 0, 1)),
    "skip": ("skip", lambda: testing.of(BARE, skip=["nope"])),
    "a text to skip": ("skip", lambda: testing.of(BARE, skip="betas")),
    "first and levels": ("first", lambda: testing.of(BARE, levels=levels, times=TIMES, first=7)),
    "predicts without a loss": ("predicts", lambda: testing.of(BARE, predicts="epsilonn")),
    "whole samples": ("dtype", lambda: testing.of(BARE, dtype=torch.int32)),
    "an object's times": ("times", lambda: testing.of(BARE, levels=levels, times=10)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_named(name: str) -> None:
    argument, run = BAD[name]
    with pytest.raises(ValueError, match=rf"^{argument}(\(\w+\))?: wanted [^\n]+, got [^\n]+$"):
        run()


@pytest.mark.parametrize(("kind", "said"), [("l1", "its loss_type is l1"), ("l2", "")])
def test_a_loss_that_is_l1_by_a_default(kind: str, said: str) -> None:
    class Plain(Buffers):
        def p_losses(
            self, model: Any, x_start: Tensor, t: Tensor, noise: Tensor, loss_type: str = kind
        ) -> Tensor:
            out = model(self.q_sample(x_start, t, noise), t)
            of = {"l1": F.l1_loss, "l2": F.mse_loss}[loss_type]
            return of(out, self.predict_v(x_start, t, noise))

    (check,) = (check for check in testing.of(Plain()) if check.name == "p_losses")
    assert check.reason == said
    if not said:
        check()


def test_zero_terminal_snr() -> None:
    """At the last time alpha is 0, and weights on the error in x0 are 0 / 0."""
    root = ABAR.sqrt()
    abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2

    def zero(t: Any) -> tuple[Tensor, Tensor]:
        return abar[t].sqrt(), (1 - abar[t]).sqrt()

    def of(factor: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            alpha, sigma = zero(t[:, None])
            error = (noise - network(alpha * x0 + sigma * noise, t)).square()
            return (factor(abar[t] / (1 - abar[t])) * error.mean(1)).mean()

        return loss

    def p2(snr: Tensor) -> Tensor:
        return 1 / (1 + snr)

    def min_snr(snr: Tensor) -> Tensor:
        return (5 / snr).clamp(max=1)

    testing.assert_loss(of(torch.ones_like), zero, TIMES)
    testing.assert_loss(of(p2), zero, TIMES, weight="P2")
    testing.assert_loss(of(min_snr), zero, TIMES, weight="min-SNR")
    with pytest.raises(testing.MistakeError, match="the weight is that of P2"):
        testing.assert_loss(of(p2), zero, TIMES)
    whole = SimpleNamespace(alphas_cumprod=abar, training_loss=of(torch.ones_like))
    testing.assert_diffusion(whole, dtype=torch.float64)


def test_float32_is_named_where_there_is_some() -> None:
    def average(decay: float) -> Callable[..., Any]:
        def begin(w: Tensor) -> Callable[[Tensor], Tensor]:
            kept = [w.clone()]

            def update(w: Tensor) -> Tensor:
                kept[0] = decay * kept[0] + (1 - decay) * w
                return kept[0]

            return update

        return begin

    with pytest.raises(testing.MistakeError, match="right to float32's rounding, as where"):
        testing.assert_average(average(float(torch.tensor(0.999))), 0.999)
    with pytest.raises(testing.MistakeError) as caught:
        testing.assert_average(average(0.9990001), 0.999)
    assert caught.value.mistakes == ()
