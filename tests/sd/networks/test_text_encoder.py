"""The text encoder against transformers' CLIPTextModel, and against what a causal model must do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sd.config import SHAPES_CONFIG, TextConfig
from sd.networks.text_encoder import TextEncoder
from tests.support.chance import Mean, rare, shifted
from tests.support.distribution import line
from tests.support.measuring import Measured
from tests.support.small_models import peer_text

transformers = pytest.importorskip("transformers")

CONFIGS = [
    TextConfig(vocab_size=40, width=32, layers=1, heads=4, context_length=12, intermediate=64),
    TextConfig(vocab_size=99, width=48, layers=3, heads=2, context_length=77, intermediate=160),
    TextConfig(
        vocab_size=50,
        width=24,
        layers=2,
        heads=3,
        context_length=9,
        intermediate=40,
        activation="gelu",
        eps=1e-3,
    ),
    SHAPES_CONFIG.text,
]
# Both sides sum up to 160 products of float32 in different orders: a few roundings (6e-8 each) of
# numbers near 1, through at most three layers.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def peer(config: TextConfig) -> torch.nn.Module:
    """transformers' model of the same shape, every weight random (its start has zero biases)."""
    model = peer_text(config)
    scramble(model)
    return model


def scramble(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights of an ordinary size in every parameter, so that none is without effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(around + 0.2 * torch.randn(weight.shape, generator=generator))


def rows(config: TextConfig, batch: int = 5, seed: int = 1) -> torch.Tensor:
    """Start token, words, end token at a different place in each row, end again as padding."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, config.context_length)
    tokens = torch.randint(0, config.start_token, shape, generator=generator)
    tokens[:, 0] = config.start_token
    for i, row in enumerate(tokens):
        row[1 + i * (config.context_length - 2) // batch :] = config.end_token
    return tokens


def condition(
    model: torch.nn.Module, tokens: torch.Tensor, config: TextConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The peer's normalised states, `config.skip` layers before the last, and its summary."""
    found = model(tokens, output_hidden_states=True)
    states = model.final_layer_norm(found.hidden_states[-1 - config.skip])
    return states, found.pooler_output


@pytest.mark.claim("C30", "sd.networks.text_encoder.TextEncoder")
@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_agrees_with_transformers_after_copying_its_tensors(
    measured: Measured, config: TextConfig
) -> None:
    model, ours, tokens = peer(config), TextEncoder(config).eval(), rows(config)
    ours.load_state_dict(model.state_dict(), strict=True)
    states, summary = condition(model, tokens, config)
    off = (ours(tokens) - states).abs() / (1 + states.abs())
    measured(off.max().item(), 1e-5, "difference from CLIP's own encoder: float32 over 3 layers")
    torch.testing.assert_close(ours.pooled(tokens), summary, **TOLERANCE)


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_transformers_agrees_after_copying_our_tensors(config: TextConfig) -> None:
    model, ours, tokens = peer(config), TextEncoder(config).eval(), rows(config)
    scramble(ours, seed=7)
    before, _ = condition(model, tokens, config)
    model.load_state_dict(ours.state_dict(), strict=True)
    wanted, _ = condition(model, tokens, config)
    assert (wanted - before).abs().max() > 0.1  # the copy changed the peer at all
    torch.testing.assert_close(ours(tokens), wanted, **TOLERANCE)


@torch.no_grad()
def test_wrong_variants_are_told_apart() -> None:
    """Each option moves the output by far more than the tolerance of the parity tests."""
    config = CONFIGS[1]
    ours, tokens = TextEncoder(config), rows(config)
    scramble(ours)
    states = ours(tokens)
    for change in ({"activation": "gelu"}, {"heads": 4}, {"eps": 1e-2}, {"skip": 1}):
        other = TextEncoder(TextConfig(**{**vars(config), **change}))
        other.load_state_dict(ours.state_dict())
        assert (other(tokens) - states).abs().max() > 1e-3, change


@settings(max_examples=25)
@given(st.integers(0, 22), st.integers(0, 2**31))
@torch.no_grad()
def test_a_state_depends_on_its_own_and_earlier_tokens_only(place: int, seed: int) -> None:
    config = SHAPES_CONFIG.text
    ours = TextEncoder(config)
    scramble(ours)
    tokens = rows(config, batch=1, seed=seed % 1000)
    other = tokens.clone()
    other[:, place + 1 :] = (other[:, place + 1 :] + 1 + seed % 7) % config.vocab_size
    first, second = ours(tokens), ours(other)
    torch.testing.assert_close(first[:, : place + 1], second[:, : place + 1], **TOLERANCE)
    assert (first[:, place + 1 :] - second[:, place + 1 :]).abs().max() > 1e-3


@settings(max_examples=25)
@given(st.integers(0, 4), st.integers(1, 24))
@torch.no_grad()
def test_a_row_depends_neither_on_its_batch_nor_on_what_follows(row: int, length: int) -> None:
    ours = TextEncoder(SHAPES_CONFIG.text)
    scramble(ours)
    tokens = rows(SHAPES_CONFIG.text)
    alone = ours(tokens[row : row + 1, :length])
    torch.testing.assert_close(alone[0], ours(tokens)[row, :length], **TOLERANCE)


def test_the_empty_batch_has_the_right_shape() -> None:
    tokens = torch.zeros(0, 24, dtype=torch.long)
    ours = TextEncoder(SHAPES_CONFIG.text)
    assert ours(tokens).shape == (0, 24, 96)
    assert ours.pooled(tokens).shape == (0, 96)


def test_pooled_takes_the_first_end_token() -> None:
    ours = TextEncoder(CONFIGS[0]).requires_grad_(False)
    scramble(ours)
    tokens = torch.tensor([[38, 5, 39, 39, 39], [38, 39, 4, 39, 39]])
    states = ours(tokens)
    assert torch.equal(ours.pooled(tokens), torch.stack([states[0, 2], states[1, 1]]))


def test_bad_tokens_are_named() -> None:
    ours = TextEncoder(CONFIGS[0])
    with pytest.raises(ValueError, match="at most context_length = 12, got 13"):
        ours(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="end token 39"):
        ours.pooled(torch.zeros(1, 3, dtype=torch.long))


@pytest.mark.chance(2e-9, "a deviation a seventh too large")
def test_fresh_weights_follow_the_generator() -> None:
    one, two = TextEncoder(SHAPES_CONFIG.text), TextEncoder(SHAPES_CONFIG.text)
    seed = shifted(3)
    one.initialize(torch.Generator().manual_seed(seed))
    two.initialize(torch.Generator().manual_seed(seed))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    weight = one.state_dict()["encoder.layers.1.mlp.fc2.weight"].double()
    law = line().of(lambda z: z.square() / (96 * 4))
    bound = Mean(law, weight.numel(), 1e-9)
    assert bound.holds(weight.square().mean())
    assert rare(bound.misses(law.of(lambda value: value * (8 / 7) ** 2)))
