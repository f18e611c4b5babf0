"""ControlNet against diffusers' ControlNetModel, with wrong wirings shown to be noticed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sd.config import ControlNetConfig, UNetConfig
from sd.networks.controlnet import ControlNet, copy_encoder
from sd.networks.unet import UNet
from tests.support.controlnets import peer_controlnet
from tests.support.measuring import Measured
from tests.support.small_models import V1, V2, peer_unet, scramble
from tests.support.tensors import far, normal

pytest.importorskip("diffusers")

CONFIGS = {
    "v1": ControlNetConfig(V1.unet),
    "v2": ControlNetConfig(V2.unet, map_channels=4, hint_channels=(8, 12)),
    "flat": ControlNetConfig(
        UNetConfig(channels=(8,), heads=2, context_width=6, attention=(False,), groups=4),
        hint_channels=(6,),
    ),
}
TOLERANCE = 1e-5  # some 100 roundings (6e-8) of float32, over the largest entry
TIMES = (3.0, 981.0)


@torch.no_grad()
def distances(
    config: ControlNetConfig, change: Callable[[ControlNet], object] = bool
) -> list[float]:
    """Of each residual, and of the U-Net's output with them, after a change of ours."""
    theirs, ours = peer_controlnet(config), ControlNet(config).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    change(ours)
    unet, our_unet = peer_unet(config.encoder), UNet(config.encoder).eval()
    scramble(unet, 5)
    our_unet.load_state_dict(unet.state_dict())
    height, width = 6 * config.factor, 10 * config.factor
    x, t = normal(2, config.encoder.in_channels, 6, 10), torch.tensor(TIMES)
    context = normal(2, 5, config.encoder.context_width, seed=2)
    hint = normal(2, config.map_channels, height, width, seed=3).sigmoid()
    down, middle = theirs(x, t, context, hint, return_dict=False)
    wanted = unet(
        x, t, context,
        down_block_additional_residuals=down, mid_block_additional_residual=middle,
    ).sample  # fmt: skip
    residuals = ours(x, t, context, ours.controlnet_cond_embedding(hint))
    found = our_unet(x, t, context, residuals)
    pairs = zip([*residuals, found], [*down, middle, wanted], strict=True)
    return [far(one, other) for one, other in pairs]


@pytest.mark.claim("C27", "sd.networks.controlnet.ControlNet")
@pytest.mark.parametrize("name", CONFIGS)
def test_c27_every_residual_is_diffusers(measured: Measured, name: str) -> None:
    off = max(distances(CONFIGS[name]))
    measured(off, TOLERANCE, "relative difference from diffusers' ControlNet: float32")


def other_activation(net: ControlNet) -> None:
    first = net.controlnet_cond_embedding.conv_in
    first.register_forward_hook(lambda module, given, y: torch.where(y < 0, 3 * y, y))


def hint_twice(net: ControlNet) -> None:
    net.controlnet_cond_embedding.register_forward_hook(lambda module, given, y: 2 * y)


def other_order(net: ControlNet) -> None:
    """The convolutions of the first two skip connections, which have the same shapes."""
    layers = net.controlnet_down_blocks
    layers[0], layers[1] = layers[1], layers[0]


def middle_left_out(net: ControlNet) -> None:
    net.controlnet_mid_block.register_forward_hook(lambda module, given, y: torch.zeros_like(y))


@pytest.mark.parametrize("wrong", [other_activation, hint_twice, other_order, middle_left_out])
def test_a_wrong_wiring_is_noticed(wrong: Callable[[ControlNet], object]) -> None:
    assert max(distances(CONFIGS["v1"], wrong)[:-1]) > 10 * TOLERANCE
    assert distances(CONFIGS["v1"], wrong)[-1] > 10 * TOLERANCE


@torch.no_grad()
def test_a_new_controlnet_changes_nothing() -> None:
    """Its zero convolutions: the U-Net's output keeps its bits, eq. 3 of the paper."""
    config = CONFIGS["v1"]
    net, unet = ControlNet(config).eval(), UNet(config.encoder).eval()
    x, t, context = normal(1, 4, 8, 8), torch.tensor(9.0), normal(1, 5, 64, seed=2)
    features = net.controlnet_cond_embedding(normal(1, 3, 64, 64, seed=3))
    residuals = net(x, t, context, features)
    assert all(not bool(one.any()) for one in (features, *residuals))
    assert torch.equal(unet(x, t, context, residuals), unet(x, t, context))


@torch.no_grad()
def test_a_copied_encoder_is_the_u_nets() -> None:
    """Its skip connections are the U-Net's, and a map still differs before the last layer."""
    config = CONFIGS["v1"]
    unet = UNet(config.encoder).eval()
    scramble(unet, 5)
    net = copy_encoder(unet, config).eval()
    x, t, context = normal(1, 4, 8, 8), torch.tensor([9.0]), normal(1, 5, 64, seed=2)
    for one, same in zip(
        *(n.encode(n.conv_in(x), n.time(x, t), context) for n in (net, unet)), strict=True
    ):
        assert torch.equal(one, same)
    image, spreads = normal(1, 3, 64, 64, seed=3).sigmoid(), []
    for hint in (net.controlnet_cond_embedding, ControlNet(config).controlnet_cond_embedding):
        hint.conv_out.register_forward_hook(
            lambda module, given, y: spreads.append(float(given[0].std(dim=(2, 3)).mean()))
        )
        assert not bool(hint(image).any())
    assert spreads[0] > 0.01 > 2 * spreads[1]  # torch's own weights keep a tenth of that


@torch.no_grad()
def test_one_row_of_features_serves_the_batch() -> None:
    config = CONFIGS["v1"]
    net = ControlNet(config).eval()
    scramble(net, 4)
    x, t, context = normal(3, 4, 8, 8), torch.tensor(9.0), normal(3, 5, 64, seed=2)
    hint = normal(1, 3, 64, 64, seed=3)

    def residuals(rows: int) -> list[Tensor]:
        return net(x, t, context, net.controlnet_cond_embedding(hint.expand(rows, -1, -1, -1)))

    for one, each in zip(residuals(1), residuals(3), strict=True):
        assert far(one, each) < TOLERANCE
