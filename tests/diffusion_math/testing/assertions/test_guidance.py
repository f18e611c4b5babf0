"""`assert_guidance` and `assert_guided` pass right code and name what is wrong."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import diffusion_math as dm
from diffusion_math.testing.assertions.guidance import KNOWN, assert_guidance
from diffusion_math.testing.assertions.guided import assert_guided
from diffusion_math.testing.mistakes.diagnosis import MistakeError

FLOATS = [torch.float32, torch.float64]
T = torch.tensor(0.5)


def ours(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
    return dm.cfg(lambda x, t: cond, lambda x, t: uncond, w)(cond, T)


def of_the_paper(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
    return (1 + w) * cond - w * uncond


def rescaled(share: float) -> Callable[..., Tensor]:
    def combine(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        return dm.guidance.rescaled(lambda x, t: (uncond, cond), w, share)(cond, T)

    return combine


def written_out(
    share: float = 0.7, dims: tuple[int, ...] = (1,), power: float = 1.0
) -> Callable[..., Tensor]:
    """Rescaling as it is written in pipelines."""

    def combine(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        guided = uncond + w * (cond - uncond)
        ratio = cond.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return share * guided * ratio**power + (1 - share) * guided

    return combine


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_guidance_passes(dtype: torch.dtype) -> None:
    assert_guidance(ours, dtype=dtype)
    assert_guidance(of_the_paper, convention="1 + w", dtype=dtype)
    assert_guidance(rescaled(0.7), share=0.7, dtype=dtype)
    assert_guidance(written_out(), share=0.7, dtype=dtype)
    assert_guidance(
        lambda cond, uncond, w: (uncond + w * (cond - uncond)).numpy(), (1, 3), dtype=dtype
    )


@given(st.lists(st.floats(0, 30), min_size=1, max_size=4), st.floats(0.0, 1.0))
@example([0.75], 1.0)  # the guided prediction has an entry that is 0
@settings(max_examples=8, deadline=None)
def test_right_guidance_passes_at_any_scale(scales: list[float], share: float) -> None:
    assert_guidance(ours, scales)
    assert_guidance(of_the_paper, scales, convention="1 + w")
    assert_guidance(rescaled(share), scales, share=share)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("convention", ["w", "1 + w"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_each_known_mistake_is_named(name: str, convention: str, dtype: torch.dtype) -> None:
    if convention == "1 + w" and "w <= 1" in name:
        return  # from w = 0 on it is right
    pair, _ = KNOWN[name]

    def planted(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        right = torch.tensor(w + (convention == "1 + w"), dtype=dtype)
        on_cond, on_uncond = pair(right)
        return on_cond * cond + on_uncond * uncond

    with pytest.raises(MistakeError) as caught:
        assert_guidance(planted, convention=convention, dtype=dtype)
    assert [one.name for one in caught.value.mistakes] == [name]


@pytest.mark.parametrize(
    ("combine", "name"),
    [
        (written_out(0.3), "phi and 1 - phi are exchanged"),
        (written_out(0.0), "the guided prediction is not rescaled"),
        (written_out(1.0), "phi is not used: all of it is rescaled"),
        (written_out(power=-1), "the ratio of deviations is inverted"),
        (written_out(power=2), "the ratio is one of variances"),
    ],
)
def test_a_wrong_rescaling_is_named(combine: Callable[..., Tensor], name: str) -> None:
    with pytest.raises(MistakeError) as caught:
        assert_guidance(combine, share=0.7)
    assert [one.name for one in caught.value.mistakes] == [name]


@pytest.mark.parametrize("about_zero", [True, False])
def test_the_deviation_of_something_else_is_named(about_zero: bool) -> None:
    def combine(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        guided = uncond + w * (cond - uncond)
        if about_zero:
            ratio = cond.norm(dim=1, keepdim=True) / guided.norm(dim=1, keepdim=True)
        else:
            ratio = uncond.std(1, keepdim=True) / guided.std(1, keepdim=True)
        return 0.7 * guided * ratio + 0.3 * guided

    with pytest.raises(MistakeError, match="about 0" if about_zero else "uncond's, not cond's"):
        assert_guidance(combine, share=0.7)


def test_events_that_are_mixed_are_told() -> None:
    with pytest.raises(AssertionError, match=r"row 0 of a batch of 2 .* events of a batch"):
        assert_guidance(written_out(dims=(0, 1)), share=0.7)


def test_one_percent_is_an_error_in_float32() -> None:
    with pytest.raises(MistakeError):
        assert_guidance(
            lambda cond, uncond, w: uncond + 1.01 * w * (cond - uncond), dtype=torch.float32
        )


Network = Callable[[Tensor, object], Tensor]


def halves(network: Network, x: Tensor, w: float) -> Tensor:
    """Both halves in one batch, as most pipelines have it."""
    on = torch.cat([torch.zeros(len(x)), torch.ones(len(x))]).bool()
    uncond, cond = network(torch.cat([x, x]), on).chunk(2)
    return uncond + w * (cond - uncond)


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_code_that_evaluates_a_network_passes(dtype: torch.dtype) -> None:
    def guided(network: Network, x: Tensor, w: float) -> Tensor:
        pair = [lambda x, t, c=c: network(x, c) for c in (True, False)]
        return dm.cfg(*pair, w)(x, T)

    assert_guided(guided, dtype=dtype)
    assert_guided(halves, dtype=dtype)
    assert_guided(guided, (0, 1), evaluations=1, dtype=dtype)


def test_halves_in_another_order_than_their_conditions_are_told() -> None:
    def interleaved(network: Network, x: Tensor, w: float) -> Tensor:
        on = torch.cat([torch.zeros(len(x)), torch.ones(len(x))]).bool()
        uncond, cond = network(x.repeat_interleave(2, 0), on).chunk(2)
        return uncond + w * (cond - uncond)

    with pytest.raises(AssertionError, match="in a batch of 2 the coefficient of cond differs"):
        assert_guided(interleaved)

    def exchanged(network: Network, x: Tensor, w: float) -> Tensor:
        return halves(lambda x, on: network(x, ~on), x, w)

    with pytest.raises(MistakeError, match="cond and uncond are exchanged"):
        assert_guided(exchanged)


def test_what_raises_or_has_no_such_shape_is_one_line() -> None:
    def broken(cond: Tensor, uncond: Tensor, w: float) -> Tensor:
        raise KeyError("w")

    with pytest.raises(AssertionError, match="broken: raised KeyError: 'w'"):
        assert_guidance(broken)
    with pytest.raises(AssertionError, match="wanted a result of shape"):
        assert_guidance(lambda cond, uncond, w: cond[:, :3])


def test_bad_arguments_are_value_errors() -> None:
    for bad in ({"scales": ()}, {"scales": (float("nan"),)}, {"convention": "2 w"}, {"share": 2}):
        with pytest.raises(ValueError, match=r"^\w+: wanted .*, got "):
            assert_guidance(ours, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="evaluations: wanted at least 1, got 0"):
        assert_guided(halves, evaluations=0)
