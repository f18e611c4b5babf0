"""The U-Net against diffusers' UNet2DConditionModel, with wrong wirings shown to be noticed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sd.networks.unet
from sd.config import SHAPES_CONFIG, UNetConfig
from sd.networks.attention import Attention, Conditioning, FeedForward, SpatialTransformer
from sd.networks.blocks import Downsample
from sd.networks.unet import UNet, time_features
from tests.support.measuring import Measured
from tests.support.small_models import peer_unet

diffusers = pytest.importorskip("diffusers")

# Four levels of two blocks, attention at the first three and in the middle, as in v1.x.
V1 = UNetConfig(channels=(16, 24, 32, 32), heads=4, context_width=12, groups=8)
CONFIGS = [
    V1,
    UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=(8,),
        layers_per_block=1,
        heads=2,
        context_width=6,
        attention=(False,),
        groups=4,
    ),
    UNetConfig(
        channels=(8, 16),
        layers_per_block=3,
        heads=8,
        context_width=20,
        attention=(False, True),
        groups=2,
    ),
    UNetConfig(  # as v2.x: a head's width is given, and the maps around attention are linear
        channels=(8, 16),
        layers_per_block=1,
        heads=0,
        head_width=4,
        context_width=6,
        attention=(True, True),
        groups=4,
        linear_projection=True,
    ),
    SHAPES_CONFIG.unet,
]
TOLERANCE = 1e-5  # some 100 roundings (6e-8) of float32, over the largest entry


def scramble(model: nn.Module, seed: int = 0) -> None:
    """Random weights in every parameter, so that none is without effect.

    What writes to a stream between blocks is so small that the stream's variance is near the eps of
    the norms that read it: there, a wrong eps shows.
    """
    generator = torch.Generator().manual_seed(seed)
    writers = ("conv_in", "conv1", "conv2", "proj_in", "to_out.0")
    writers += ("time_emb_proj", "ff.net.2")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            z = torch.randn(weight.shape, generator=generator)
            fan = weight[0].numel() if weight.ndim > 1 else 1
            if "norm" in name:
                weight.copy_((1.0 if name.endswith("weight") else 0.0) + 0.2 * z)
            elif fan == 1:
                weight.copy_(0.003 * z)
            else:
                scale = 0.004 if name.endswith(tuple(f"{w}.weight" for w in writers)) else 1.0
                weight.copy_((2.0 if "to_q" in name else scale) * z / fan**0.5)


def pair(config: UNetConfig, seed: int = 0) -> tuple[UNet, nn.Module]:
    """Our model with the peer's tensors in it, and the peer."""
    theirs, ours = peer_unet(config), UNet(config).eval()
    scramble(theirs, seed)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def distance(
    ours: UNet, theirs: nn.Module, h: int = 8, w: int = 16, t: tuple[float, ...] = (0.0, 981.0)
) -> float:
    """The largest difference over the largest entry, on one input of that size and those times."""
    config = ours.config
    x, context = normal(len(t), config.in_channels, h, w), normal(len(t), 5, config.context_width)
    time = torch.tensor(t)
    found, wanted = ours(x, time, context), theirs(x, time, context).sample
    assert found.shape == wanted.shape == (len(t), config.out_channels, h, w)
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.claim("C32", "sd.networks.unet.UNet")
@pytest.mark.parametrize("config", CONFIGS)
def test_agrees_with_diffusers_after_copying_its_tensors(
    measured: Measured, config: UNetConfig
) -> None:
    off = distance(*pair(config))
    measured(off, TOLERANCE, "relative difference from Stable Diffusion's U-Net: float32")


@pytest.mark.parametrize("config", CONFIGS)
def test_diffusers_agrees_after_copying_our_tensors(config: UNetConfig) -> None:
    ours, theirs = pair(config)
    scramble(ours, seed=7)
    assert distance(ours, theirs) > 0.01
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert distance(ours, theirs) < TOLERANCE


V1_PAIR = pair(V1)


@settings(max_examples=15)
@given(st.integers(1, 19), st.integers(1, 19), st.floats(0, 999, width=32))
def test_odd_sizes_and_any_time_agree(h: int, w: int, t: float) -> None:
    assert distance(*V1_PAIR, h, w, (t,)) < TOLERANCE


def sines_first(t: Tensor, width: int) -> Tensor:
    return time_features(t, width).roll(width // 2, dims=1)


def other_spacing(t: Tensor, width: int) -> Tensor:
    """Frequencies that reach 1 / 10000, by half - 1 in place of half."""
    i = torch.arange(width // 2) / (width // 2 - 1)
    angle = t[:, None] * 10_000.0**-i
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def one_later(t: Tensor, width: int) -> Tensor:
    return time_features(t + 1, width)


@pytest.mark.parametrize("wrong", [sines_first, other_spacing, one_later])
def test_a_wrong_time_embedding_is_noticed(
    wrong: Callable[[Tensor, int], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sd.networks.unet, "time_features", wrong)
    assert distance(*V1_PAIR) > 10 * TOLERANCE


def other_heads(model: UNet) -> None:
    """Eight channels a head instead of so many heads: what diffusers' name for it says."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.heads = module.to_q.out_features // 8


def bottom_right(model: UNet) -> None:
    """Pad the strided convolutions as the VAE's encoder does."""
    for module in model.modules():
        if isinstance(module, Downsample):
            module.symmetric, module.conv.padding = False, (0, 0)


def gate_first(model: UNet) -> None:
    """Swap the two halves of the gated layer."""
    for module in model.modules():
        if isinstance(module, FeedForward):
            for part in module.net[0]["proj"].parameters():
                part.data = part.data.roll(len(part) // 2, 0)


def one_level_blind(model: UNet) -> None:
    """No attention at the third level of the descending half."""
    model.down_blocks[2].attend = False


def blind_middle(model: UNet) -> None:
    """No attention in the middle."""
    model.mid_block.attentions[0].forward = lambda x, context: x


def linear_time(model: UNet) -> None:
    """Leave out the SiLU between the time embedding's two linear maps."""
    embedding = model.time_embedding
    embedding.forward = lambda features: embedding.linear_2(embedding.linear_1(features))


def in_order_across(model: UNet) -> None:
    """Hand the maps across oldest first at the last level, where all are of one shape."""
    level = model.up_blocks[-1]
    forward = level.forward
    level.forward = lambda x, maps, time, context: forward(x, maps[::-1], time, context)


@pytest.mark.parametrize(
    "break_it",
    [
        other_heads,
        bottom_right,
        gate_first,
        one_level_blind,
        blind_middle,
        linear_time,
        in_order_across,
    ],
)
def test_a_wrong_wiring_is_noticed(break_it: Callable[[UNet], None]) -> None:
    ours, theirs = pair(V1)
    break_it(ours)
    assert distance(ours, theirs) > 10 * TOLERANCE


def test_the_tanh_form_of_gelu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair(V1)
    exact = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x: exact(x, approximate="tanh"))
    with torch.no_grad():
        for name, weight in [*ours.named_parameters(), *theirs.named_parameters()]:
            if "ff.net.2" in name or "proj_out" in name:  # let the gates' small error through
                weight.mul_(100.0)
    broken = distance(ours, peer_without_patch(theirs, exact))
    assert broken > TOLERANCE


def peer_without_patch(theirs: nn.Module, exact: Callable[..., Tensor]) -> nn.Module:
    """diffusers' gated layers with the exact gelu bound to them."""
    for module in theirs.modules():
        if type(module).__name__ == "GEGLU":
            module.gelu = exact
    return theirs


def test_the_eps_of_every_norm_is_noticed() -> None:
    """Residual blocks 1e-5, transformers' group norms 1e-6, layer norms 1e-5; each one swapped."""
    config = replace(V1, channels=(16, 24), attention=(True, False), layers_per_block=1)
    ours, theirs = pair(config)
    assert distance(ours, theirs) < TOLERANCE
    outer = {m.norm for m in ours.modules() if isinstance(m, SpatialTransformer)}
    norms = [m for m in ours.named_modules() if isinstance(m[1], (nn.GroupNorm, nn.LayerNorm))]
    assert len(norms) == 2 * (2 + 2 + 4) + 1 + 4 * (1 + 3)  # 8 ResBlocks, 4 transformers
    for name, norm in norms:
        right, wrong = (1e-6, 1e-5) if norm in outer else (1e-5, 1e-6)
        assert norm.eps == right, name
        norm.eps = wrong
        assert distance(ours, theirs) > 2 * TOLERANCE, name
        norm.eps = right


@torch.no_grad()
def test_one_time_for_all_or_one_for_each() -> None:
    ours, _ = V1_PAIR
    x, context = normal(3, 4, 8, 8), normal(3, 5, 12)
    each = ours(x, torch.full((3,), 37.0), context)
    one = ours(x, torch.tensor(37.0), context)
    torch.testing.assert_close(one, each, rtol=1e-5, atol=1e-5)
    kept = Conditioning(context)
    for _ in range(2):  # made, then kept
        assert torch.equal(ours(x, torch.tensor(37.0), kept), one)
    kept.states.zero_()
    assert torch.equal(ours(x, torch.tensor(37.0), kept), one)


def test_kept_keys_take_no_gradient_away() -> None:
    """A call without gradients, which keeps the keys, leaves those of a later one as they are."""
    ours, _ = V1_PAIR
    x, context = normal(2, 4, 8, 8), Conditioning(normal(2, 5, 12).requires_grad_())
    with torch.no_grad():
        ours(x, torch.tensor(37.0), context)
    for _ in range(2):
        (slope,) = torch.autograd.grad(ours(x, torch.tensor(37.0), context).sum(), context.states)
        assert slope.abs().max() > 0


@torch.no_grad()
def test_kept_keys_are_of_the_weights_of_now() -> None:
    """Changed in place, as an optimizer does, or other ones in their place."""
    layer, x, states = Attention(8, 12, 2), normal(2, 4, 8), normal(2, 5, 12)
    kept = Conditioning(states)

    def agree() -> None:
        assert torch.equal(layer(x, kept), layer(x, states))

    agree()
    layer.to_k.weight.add_(1.0)
    agree()
    layer.to_v.weight = torch.nn.Parameter(normal(8, 12))
    agree()
    layer.to_k.weight.data = normal(8, 12)
    agree()


@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch() -> None:
    ours, _ = V1_PAIR
    x, t, context = normal(3, 4, 8, 8), torch.tensor([0.0, 500.0, 999.0]), normal(3, 5, 12)
    together = ours(x, t, context)
    for i in range(3):
        alone = ours(x[i : i + 1], t[i : i + 1], context[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=TOLERANCE, atol=TOLERANCE)
    assert ours(x[:0], t[:0], context[:0]).shape == (0, 4, 8, 8)
