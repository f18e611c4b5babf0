"""A result in a coarser dtype than is asked for fails; a dtype that is too coarse to tell warns."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion_math.testing import (
    MistakeError,
    UncheckedWarning,
    assert_forward,
    assert_guidance,
    assert_guided,
    assert_learned_variance,
    assert_loss,
    assert_posterior,
    assert_prediction_maps,
    assert_table,
)
from tests.support.right_diffusion import ABAR, TIMES, levels, loss, q_sample

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

NARROW = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", NARROW)
def test_a_narrower_result_fails(dtype: torch.dtype) -> None:
    name = str(dtype)[6:]

    def to(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *given: function(*given).to(dtype)

    def x0_from_eps(x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = levels(t[:, None])
        return (x_t - sigma * eps) / alpha

    runs: list[Callable[[], None]] = [
        lambda: assert_forward(to(q_sample), levels, TIMES),
        lambda: assert_loss(to(loss), levels, TIMES),
        lambda: assert_prediction_maps({"x0_from_eps": to(x0_from_eps)}, levels, TIMES),
        lambda: assert_guidance(to(lambda cond, uncond, w: uncond + w * (cond - uncond))),
        lambda: assert_guided(lambda net, x, w: net(x, True).to(dtype)),
        lambda: assert_posterior(lambda x0, x, t: (x0, x.to(dtype)), levels, TIMES),
        lambda: assert_learned_variance(to(lambda v, t: v), levels, TIMES),
    ]
    for run in runs:
        with pytest.raises(AssertionError, match=f"wanted a result in float64, got {name} .dtype="):
            run()


def test_a_result_as_coarse_as_the_levels_is_right() -> None:
    abar = ABAR.float()
    single = lambda t: (abar[t].sqrt(), (1 - abar[t]).sqrt())  # noqa: E731

    def own(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = single(t[:, None])
        return (alpha * x0 + sigma * noise).float()

    assert_forward(own, single, TIMES)
    assert_table(abar, levels, TIMES, "alphas_cumprod")
    with pytest.raises(AssertionError, match="wanted a result in float32, got bfloat16"):
        assert_table(ABAR.bfloat16(), levels, TIMES, "alphas_cumprod")


@pytest.mark.parametrize(("dtype", "part"), [(torch.bfloat16, "12%"), (torch.float16, "1.6%")])
def test_a_dtype_that_is_too_coarse_warns(dtype: torch.dtype, part: str) -> None:
    with pytest.warns(
        UncheckedWarning, match=f"combine: .* too coarse to tell errors below {part}"
    ):
        assert_guidance(lambda cond, uncond, w: uncond + 1.01 * w * (cond - uncond), dtype=dtype)
    with pytest.warns(UncheckedWarning, match=f"q_sample: .* errors below {part}"):
        assert_forward(q_sample, levels, TIMES, dtype=dtype)
    with pytest.raises(MistakeError, match=r"1 \+ w is in the place of w"):
        assert_guidance(lambda cond, uncond, w: cond + w * (cond - uncond), dtype=dtype)


def test_a_mistake_that_would_pass_is_named() -> None:
    few = range(2)
    tiny = (1 - torch.linspace(1e-6, 2e-6, 2, dtype=torch.float64)).cumprod(0)
    slight = lambda t: (tiny[t].sqrt(), (1 - tiny[t]).sqrt())  # noqa: E731

    def own(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = slight(t[:, None])
        return (alpha * x0 + sigma * noise).to(x0.dtype)

    with pytest.warns(UncheckedWarning, match="it would pass where x0 is not scaled by alpha"):
        assert_forward(own, slight, few, dtype=torch.bfloat16)
