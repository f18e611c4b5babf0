"""The autoencoder against diffusers' AutoencoderKL, with every wrong wiring shown to be noticed."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sd.config import SHAPES_CONFIG, VAEConfig
from sd.networks.blocks import Downsample
from sd.networks.vae import VAE
from tests.support.measuring import Measured
from tests.support.small_models import peer_vae

diffusers = pytest.importorskip("diffusers")

V1 = VAEConfig(channels=(8, 16, 24, 24), groups=4)  # four levels of two blocks, as in v1.x
CONFIGS = [
    V1,
    VAEConfig(channels=(12,), layers_per_block=1, groups=3, latent_channels=2, in_channels=1),
    VAEConfig(channels=(8, 8), layers_per_block=3, groups=2, scaling_factor=2.0),
    SHAPES_CONFIG.vae,
]
TOLERANCE = 1e-5  # some 100 roundings (6e-8) of float32, over the largest entry


def scramble(model: nn.Module, seed: int = 0) -> None:
    """Random weights in every parameter, so that none is without effect.

    What writes to the stream between the blocks is so small that the stream's variance is near the
    eps of the norms that read it: there, a wrong eps shows.
    """
    generator = torch.Generator().manual_seed(seed)
    writers = ("conv_in", "conv1", "conv2", "to_out.0")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            z = torch.randn(weight.shape, generator=generator)
            fan = weight[0].numel() if weight.ndim > 1 else 1
            if "norm" in name:
                weight.copy_((1.0 if name.endswith("weight") else 0.0) + 0.2 * z)
            elif name.rsplit(".", 1)[0].endswith(writers):
                weight.copy_((0.003 if fan > 1 else 0.001) * z / fan**0.5)
            else:
                weight.copy_(z / fan**0.5 if fan > 1 else 0.001 * z)


def pair(config: VAEConfig, seed: int = 0) -> tuple[VAE, nn.Module]:
    """Our model with the peer's tensors in it, and the peer."""
    theirs, ours = peer_vae(config), VAE(config).eval()
    scramble(theirs, seed)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest entry."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def encoding(ours: VAE, theirs: nn.Module, x: Tensor) -> float:
    """How far apart the two models' means and variances are."""
    wanted = theirs.encode(x).latent_dist
    latent = ours.encode(x)
    scale = theirs.config.scaling_factor
    mean, variance = scale * wanted.mean, scale**2 * wanted.var
    return max(distance(latent.mean, mean), distance(latent.variance, variance))


@torch.no_grad()
def decoding(ours: VAE, theirs: nn.Module, z: Tensor) -> float:
    """How far apart the two models' pictures are."""
    return distance(ours.decode(z), theirs.decode(z / theirs.config.scaling_factor).sample)


@pytest.mark.claim("C32", "sd.networks.vae.VAE")
@pytest.mark.parametrize("config", CONFIGS)
def test_agrees_with_diffusers_after_copying_its_tensors(
    measured: Measured, config: VAEConfig
) -> None:
    ours, theirs = pair(config)
    side = 2 * config.factor
    x, z = normal(2, config.in_channels, side, 2 * side), normal(2, config.latent_channels, 3, 2)
    off = max(encoding(ours, theirs, x), decoding(ours, theirs, z))
    measured(off, TOLERANCE, "relative difference from Stable Diffusion's VAE: float32")


@pytest.mark.parametrize("config", CONFIGS)
def test_diffusers_agrees_after_copying_our_tensors(config: VAEConfig) -> None:
    ours, theirs = pair(config)
    x, z = normal(1, config.in_channels, 16, 8), normal(1, config.latent_channels, 2, 3)
    scramble(ours, seed=7)
    assert min(encoding(ours, theirs, x), decoding(ours, theirs, z)) > 0.01
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert encoding(ours, theirs, x) < TOLERANCE
    assert decoding(ours, theirs, z) < TOLERANCE


@settings(max_examples=15)
@given(st.integers(8, 37), st.integers(8, 37), st.integers(1, 5), st.integers(1, 5))
def test_odd_sizes_agree(height: int, width: int, h: int, w: int) -> None:
    ours, theirs = V1_PAIR
    assert encoding(ours, theirs, normal(1, 3, height, width)) < TOLERANCE
    assert decoding(ours, theirs, normal(1, 4, h, w)) < TOLERANCE


V1_PAIR = pair(V1)


def symmetric(model: VAE) -> None:
    """Pad the encoder's strided convolutions on all sides, as the U-Net's are."""
    for module in model.modules():
        if isinstance(module, Downsample):
            module.symmetric, module.conv.padding = True, (1, 1)


def top_left(model: VAE) -> None:
    """Pad at the top and left."""
    for module in model.modules():
        if isinstance(module, Downsample):
            module.forward = lambda x, m=module: m.conv(F.pad(x, (1, 0, 1, 0)))


def swapped_moments(model: VAE) -> None:
    """Take the log-variance for the mean."""
    for part in (model.quant_conv.weight, model.quant_conv.bias):
        part.data = part.data.roll(model.config.latent_channels, 0)


def unscaled(model: VAE) -> None:
    """Forget the scaling factor."""
    model.config = VAEConfig(channels=V1.channels, groups=V1.groups, scaling_factor=1.0)


def no_attention(model: VAE) -> None:
    """Leave out the middle blocks' attention."""
    for part in (model.encoder, model.decoder):
        part.mid_block.attentions[0] = nn.Identity()


@pytest.mark.parametrize(
    ("break_it", "encoder", "decoder"),
    [
        (symmetric, True, False),
        (top_left, True, False),
        (swapped_moments, True, False),
        (unscaled, True, True),
        (no_attention, True, True),
    ],
)
def test_a_wrong_wiring_is_noticed(
    break_it: Callable[[VAE], None], encoder: bool, decoder: bool
) -> None:
    ours, theirs = pair(V1)
    break_it(ours)
    assert (encoding(ours, theirs, normal(1, 3, 24, 32)) > 10 * TOLERANCE) is encoder
    assert (decoding(ours, theirs, normal(1, 4, 3, 4)) > 10 * TOLERANCE) is decoder


def test_the_eps_of_every_norm_is_noticed() -> None:
    """1e-5, the U-Net's, in place of 1e-6 at any single norm."""
    ours, theirs = pair(V1)
    x, z = normal(1, 3, 16, 16), normal(1, 4, 2, 2)
    norms = {name: m for name, m in ours.named_modules() if isinstance(m, nn.GroupNorm)}
    assert len(norms) == 2 * (2 * 4 * 2 + 2 * 2 + 1 + 1) + 2 * 4  # the decoder has one block more
    for name, norm in norms.items():
        assert norm.eps == 1e-6, name
        norm.eps = 1e-5
        compare = encoding(ours, theirs, x) if "encoder" in name else decoding(ours, theirs, z)
        assert compare > 2 * TOLERANCE, name
        norm.eps = 1e-6


@torch.no_grad()
def test_the_log_variance_is_clamped() -> None:
    ours, theirs = pair(V1)
    with torch.no_grad():
        ours.quant_conv.bias[4:] = torch.tensor([100.0, -100.0, 19.0, -29.0])
        theirs.quant_conv.bias.copy_(ours.quant_conv.bias)
    x = normal(1, 3, 16, 16)
    _, log_variance = ours.moments(x)
    torch.testing.assert_close(log_variance, theirs.encode(x).latent_dist.logvar)
    assert log_variance[:, 0].eq(20.0).all() and log_variance[:, 1].eq(-30.0).all()


@torch.no_grad()
def test_an_empty_batch_keeps_its_shape() -> None:
    ours, _ = V1_PAIR
    latent = ours.encode(torch.zeros(0, 3, 16, 24))
    assert latent.mean.shape == latent.variance.shape == (0, 4, 2, 3)
    assert ours.decode(latent.mean).shape == (0, 3, 16, 24)
