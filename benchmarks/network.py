"""A pass of the embedded model's U-Net beside diffusers', with the same weights."""

import torch
from torch import Tensor, nn

from benchmarks.compare import Row, compare
from sd.config import SHAPES_CONFIG, UNetConfig
from sd.networks.unet import UNet


def network_rows(rounds: int) -> list[Row]:
    """One pass of the embedded model's U-Net beside diffusers', with the same random weights."""
    model = SHAPES_CONFIG
    config = model.unet
    torch.manual_seed(0)
    mine = UNet(config).eval()
    peer = diffusers_unet(mine)
    rows = []
    for batch in (2, 16):  # one guided picture, eight guided pictures
        x = torch.randn(batch, *model.latent_shape)
        t = torch.full((batch,), 500.0)
        context = torch.randn(batch, model.text.context_length, config.context_width)

        def ours(x: Tensor = x, t: Tensor = t, context: Tensor = context) -> Tensor:
            return mine(x, t, context)

        def theirs(x: Tensor = x, t: Tensor = t, context: Tensor = context) -> Tensor:
            return peer(x, t, context).sample

        # The same float32 sums, taken in another order.
        name = f"a pass of the embedded U-Net, batch {batch}"
        rows.append(compare(name, "diffusers", ours, theirs, rounds, 1, 1e-4))
    return rows


def diffusers_unet(mine: UNet) -> nn.Module:
    """diffusers' U-Net with the configuration and the weights, shared, of this one."""
    from diffusers import UNet2DConditionModel

    config: UNetConfig = mine.config
    with torch.device("meta"):
        peer = UNet2DConditionModel(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=config.channels,
            layers_per_block=config.layers_per_block,
            attention_head_dim=config.heads,
            cross_attention_dim=config.context_width,
            norm_num_groups=config.groups,
            norm_eps=config.eps,
            down_block_types=_blocks("Down", config.attention),
            up_block_types=_blocks("Up", config.attention[::-1]),
        )
    peer.load_state_dict(mine.state_dict(), strict=True, assign=True)
    return peer.eval()


def _blocks(half: str, attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(f"CrossAttn{half}Block2D" if attend else f"{half}Block2D" for attend in attention)
