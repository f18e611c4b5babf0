"""The time that the network is told, the loss's gradient in its output, and rows that are mixed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_math.testing import (
    MistakeError,
    adaptors,
    assert_bound,
    assert_diffusion,
    assert_forward,
    assert_learned_variance,
    assert_loss,
    assert_posterior,
    assert_prediction_maps,
    assert_stationary,
)
from tests.support.diffusions import Buffers
from tests.support.right_diffusion import ABAR, BEFORE, TIMES, levels, posterior, q_sample

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

MIXED = "rows of the batch are mixed"


def one(x: Tensor) -> Tensor:
    """Another row in each row's place: the first of the batch."""
    return x[:1].expand_as(x)


def loss_of(*told: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    """The simple loss, whose network is told these beside x_t."""

    def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return (noise - network(q_sample(x0, t, noise), *(of(t) for of in told))).square().mean()

    return loss


class TestTold:
    @pytest.mark.parametrize(
        ("told", "name"),
        [
            (lambda t: t + 1, "the network is told t + 1; if that is meant, told=lambda t: t + 1"),
            (lambda t: (t - 1).clamp(0), ""),
            (lambda t: 0 * t, "every row of the network is told the time of the first row"),
            (lambda t: 0, "every row of the network is told the time of the first row"),
            (lambda t: t.flip(0), "a row of the network is told the time of another row"),
            (lambda t: 1000.0 * t, "the network is told 1000 * t; if that is meant, told="),
            (lambda t: t / 30, "the network is told t / 30; if that is meant, told="),
            (lambda t: 7 * t + 2, ""),
        ],
    )
    def test_another_time_is_a_mistake(self, told: Callable[[Tensor], Any], name: str) -> None:
        with pytest.raises(MistakeError, match="the time told to the network differs") as caught:
            assert_loss(loss_of(told), levels, TIMES)
        found = [mistake.name for mistake in caught.value.mistakes]
        assert [each[: len(name)] for each in found] == ([name] if name else [])

    def test_a_clock_of_one_s_own_is_declared(self) -> None:
        def c_noise(t: Any) -> Tensor:
            alpha, sigma = levels(t)
            return (sigma / alpha).log() / 4

        assert_loss(loss_of(lambda t: 1000 * t), levels, TIMES, told=lambda t: 1000 * t)
        assert_loss(loss_of(lambda t: c_noise(t).float()), levels, TIMES, told=c_noise)
        with pytest.raises(MistakeError, match=r"the network is told log\(sigma / alpha"):
            assert_loss(loss_of(c_noise), levels, TIMES)
        with pytest.raises(MistakeError, match="diagnosis: the network is told t itself"):
            assert_loss(loss_of(lambda t: t), levels, TIMES, told=c_noise)

    @pytest.mark.parametrize(
        "told",
        [
            [lambda t: t],
            [lambda t: t.float()],
            [lambda t: t[:, None, None]],
            [lambda t: t.numpy()],
            [lambda t: None, lambda t: torch.zeros_like(t), lambda t: True, lambda t: t],
            [lambda t: torch.zeros(len(t), 8), lambda t: {"y": 1}, lambda t: t],
        ],
    )
    def test_right_code_of_many_habits_passes(self, told: list[Callable[[Tensor], Any]]) -> None:
        assert_loss(loss_of(*told), levels, TIMES)

    def test_no_time_is_told(self) -> None:
        with pytest.raises(AssertionError, match=r"told no time beside x_t \(told='nothing'"):
            assert_loss(loss_of(), levels, TIMES)
        assert_loss(loss_of(), levels, TIMES, told="nothing")
        with pytest.raises(AssertionError, match="is told no time"):
            assert_loss(loss_of(lambda t: torch.zeros(len(t), 8)), levels, TIMES)

    def test_what_is_no_clock_is_a_value_error(self) -> None:
        for bad in ("time", 3, lambda t: None):
            with pytest.raises(ValueError, match=r"^told: wanted "):
                assert_loss(loss_of(lambda t: t), levels, TIMES, told=bad)  # type: ignore[arg-type]

    def test_of_an_object_s_loss(self) -> None:
        class Late(Buffers):
            def p_losses(self, model: Any, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
                x_t = self.q_sample(x_start, t, noise)
                return (model(x_t, t + 1) - self.predict_v(x_start, t, noise)).square().mean()

        with pytest.raises(MistakeError, match=r"the network is told t \+ 1"):
            assert_diffusion(Late())

    def test_of_a_bound(self) -> None:
        def term(late: int, mixed: bool, network: Any, *given: Tensor) -> Tensor:
            x0, t, noise = given
            x_t = q_sample(x0, t, noise)
            error = network(x_t, t + late) - (one(x0) if mixed else x0)
            variance = posterior(x0, x_t, t)[1][:, 0]
            c = (BEFORE.sqrt() * (1 - ABAR / BEFORE) / (1 - ABAR))[t]
            return (c[:, None] * error).square().sum(1) / (2 * variance)

        def of(late: int, mixed: bool, **more: Any) -> None:
            run: Callable[..., Any] = lambda *given: term(late, mixed, *given)  # noqa: E731
            assert_bound(run, levels, TIMES, predicts="x0", **more)

        of(0, False)
        of(1, False, told=lambda t: t + 1)
        with pytest.raises(MistakeError, match=r"the network is told t \+ 1"):
            of(1, False)
        with pytest.raises(AssertionError, match=MIXED):
            of(0, True)


class TestGradient:
    @pytest.mark.parametrize("each", [False, True])
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (lambda y: y.detach(), "there is no gradient in the network's output: it is detached"),
            (lambda y: (y + y.detach()) / 2, "over its error is its right value / 2"),
        ],
    )
    def test_another_gradient_is_a_mistake(self, wrong: Any, said: str, each: bool) -> None:
        def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            error = (noise - wrong(network(q_sample(x0, t, noise), t))).square()
            return error.mean(1) if each else error.mean()

        with pytest.raises(MistakeError, match=said):
            assert_loss(loss, levels, TIMES)

    def test_a_gradient_of_some_entries(self) -> None:
        def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            y = network(q_sample(x0, t, noise), t)
            return (noise - torch.cat([y[:, :2].detach(), y[:, 2:]], 1)).square().mean()

        with pytest.raises(AssertionError, match="output is no multiple of its error"):
            assert_loss(loss, levels, TIMES)

    def test_a_loss_without_gradients(self) -> None:
        with pytest.raises(MistakeError, match="there is no gradient"):
            assert_loss(torch.no_grad()(loss_of(lambda t: t)), levels, TIMES)

    def test_right_gradients_pass(self) -> None:
        def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Any:
            error = network(q_sample(x0, t, noise), t).sub_(noise).square_()
            return {"loss": error.mean(), "log": float(error.mean())}

        assert_loss(loss, levels, TIMES)
        with torch.no_grad():  # of whoever calls
            assert_loss(loss, levels, TIMES)

    def test_a_loss_of_another_library_has_none_that_is_looked_at(self) -> None:
        def of_numpy(network: Any, x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> Any:
            abar = ABAR.numpy()[t][:, None]
            x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
            return np.square(network(x_t, t) - noise).mean()

        assert_loss(adaptors.arrays(of_numpy), levels, TIMES)
        assert_loss(lambda *given: loss_of(lambda t: t)(*given).numpy(), levels, TIMES)


class TestMixedRows:
    @pytest.mark.parametrize("wrong", [one, lambda x: x.mean(0).expand_as(x), lambda x: x.flip(0)])
    def test_of_coefficients(self, wrong: Callable[[Tensor], Tensor]) -> None:
        def q(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return q_sample(x0, t, wrong(noise))

        with pytest.raises(AssertionError, match=f"^q: {MIXED}"):
            assert_forward(q, levels, TIMES)
        with pytest.raises(AssertionError, match=MIXED):
            assert_posterior(lambda x0, x, t: posterior(wrong(x0), x, t), levels, TIMES)

    def test_of_a_map(self) -> None:
        def x0_from_eps(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = levels(t[:, None])
            return (x_t.flip(0) - sigma * eps) / alpha

        with pytest.raises(AssertionError, match=f"^x0_from_eps: {MIXED}"):
            assert_prediction_maps({"x0_from_eps": x0_from_eps}, levels, TIMES)

    def test_of_a_product_that_is_none(self) -> None:
        with pytest.raises(AssertionError, match="wanted a sum of multiples"):
            assert_forward(lambda x0, t, z: q_sample(x0, t, z) + x0 * z, levels, TIMES)

    @pytest.mark.parametrize("each", [False, True])
    def test_of_a_loss(self, each: bool) -> None:
        def loss(network: Any, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            error = (one(noise) - network(q_sample(x0, t, noise), t)).square()
            return error.mean(1) if each else error.mean()

        with pytest.raises(MistakeError, match=f"diagnosis: {MIXED}"):
            assert_loss(loss, levels, TIMES)
        with pytest.raises(AssertionError, match=MIXED):
            assert_loss(
                lambda net, x0, t, z: (z - net(q_sample(x0, t, one(z)), t)).square().mean(),
                levels,
                TIMES,
            )

    def test_of_a_variance_and_a_kernel(self) -> None:
        large = 1 - ABAR / BEFORE
        small = large * (1 - BEFORE) / (1 - ABAR)
        small[0] = small[1]

        def variance(v: Tensor, t: Tensor) -> Tensor:
            f = (one(v) + 1) / 2
            return f * large.log()[t, None] + (1 - f) * small.log()[t, None]

        with pytest.raises(AssertionError, match=MIXED):
            assert_learned_variance(variance, levels, TIMES)
        mean, covariance = torch.zeros(3), torch.eye(3)
        with pytest.raises(AssertionError, match=MIXED):
            assert_stationary(lambda x, z: 0.6 * x + 0.8 * z.flip(0), mean, covariance)
