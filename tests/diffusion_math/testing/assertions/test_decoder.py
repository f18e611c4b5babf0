"""`assert_decoder` passes right decoders and names what is wrong."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import diffusion_math as dm
from diffusion_math.testing.assertions.decoder import assert_decoder
from diffusion_math.testing.mistakes.diagnosis import MistakeError

FLOATS = [torch.float32, torch.float64]


def discretized(
    half: float = 1 / 255,
    ends: bool = True,
    cdf: Callable[[Tensor], Tensor] = torch.special.ndtr,
    read: Callable[[Tensor], Tensor] = torch.exp,
    factor: float = 1.0,
) -> Callable[..., Tensor]:
    """As in DDPM's code: each entry's log-probability by a difference of distribution functions."""

    def log_probability(x: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        std = read(spread)
        high, low = cdf((x - mean + half) / std), cdf((x - mean - half) / std)
        if ends:
            high = torch.where(x > 0.999, torch.ones_like(x), high)
            low = torch.where(x < -0.999, torch.zeros_like(x), low)
        return factor * (high - low).clamp(min=1e-12).log()

    return log_probability


def tanh(z: Tensor) -> Tensor:
    """The usual approximation of a normal's distribution function."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, std).log_prob(x).sum(1)


def named(decoder: Callable[..., Any], **claims: Any) -> list[str]:
    with pytest.raises(MistakeError) as caught:
        assert_decoder(decoder, **claims)
    return [one.name for one in caught.value.mistakes]


@pytest.mark.parametrize("dtype", FLOATS)
def test_right_decoders_pass(dtype: torch.dtype) -> None:
    def ours(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return dm.elbo.quantized_log_probability(dm.gaussian.Gaussian(mean, variance), x)

    assert_decoder(ours, spread="variance", dtype=dtype)
    assert_decoder(discretized(), dtype=dtype)
    assert_decoder(discretized(cdf=tanh), tolerance=5e-3, dtype=dtype)
    assert_decoder(discretized(factor=-1 / 4 / math.log(2)), unit="bits/dim", dtype=dtype)
    assert_decoder(density, quantized=False, spread="deviation", dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (discretized(ends=False), "the bins of the first and the last level are not open"),
        (discretized(1 / 510), "the bins are half as wide: 1/510 to each side"),
        (discretized(2 / 255), "the bins are twice as wide: 2/255 to each side"),
        (discretized(1 / 256), "the bins are of 256 levels: 1/256 to each side"),
        (discretized(cdf=torch.sigmoid), "the distribution is logistic"),
        (
            discretized(read=lambda s: (s / 2).exp()),
            "the log-deviation is taken for a log-variance",
        ),
        (discretized(factor=0.25), "the unit is nats/dim: nats is wanted"),
        (discretized(factor=-1.0), "the log-probability is -its right value"),
    ],
)
def test_a_wrong_decoder_is_named(
    wrong: Callable[..., Tensor], name: str, dtype: torch.dtype
) -> None:
    assert named(wrong, dtype=dtype) == [name]


def test_a_misread_spread_is_named() -> None:
    root = discretized(read=lambda s: s)
    assert named(root, spread="variance") == ["the variance is taken for a deviation"]
    square = discretized(read=torch.sqrt)
    assert named(square, spread="deviation") == ["the deviation is taken for a variance"]
    assert named(discretized(), spread="log-variance") == [
        "the log-variance is taken for a log-deviation"
    ]


def test_densities_and_probabilities_are_told_apart() -> None:
    assert named(density, spread="deviation") == ["it is the density, not the probability of a bin"]
    bins = discretized(read=lambda s: s)
    found = named(bins, quantized=False, spread="deviation")
    assert found == ["it is the probability of an 8-bit bin, not the density"]

    def bare(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return density(x, mean, std) + 2 * math.log(2 * math.pi)

    found = named(bare, quantized=False, spread="deviation")
    assert found == ["log(2 pi) / 2 is left out"]


def test_one_percent_is_an_error_in_float32() -> None:
    assert named(discretized(factor=1.01), dtype=torch.float32) == []


def test_bad_arguments_are_value_errors() -> None:
    for bad in ({"spread": "scale"}, {"unit": "bits"}, {"tolerance": 1.0}):
        with pytest.raises(ValueError, match=r"^\w+: wanted .*, got "):
            assert_decoder(discretized(), **bad)  # type: ignore[arg-type]
