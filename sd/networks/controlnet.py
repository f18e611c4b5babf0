"""ControlNet: residuals for the U-Net from a map over the pixels (ControlNetModel in diffusers)."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sd.config import ControlNetConfig
from sd.networks.attention import Conditioning
from sd.networks.chunked import chunked_conv
from sd.networks.unet import Encoder, UNet, skip_widths

__all__ = ["ControlNet", "HintEncoder", "copy_encoder"]


class HintEncoder(nn.Module):
    """3 x 3 convolutions with SiLU from a map to features of a latent's height and width.

    Each of the `hint_channels` after the first halves height and width. The last convolution starts
    at zero. Source: arXiv:2302.05543, section 3.2.
    """

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        widths = config.hint_channels
        self.conv_in = nn.Conv2d(config.map_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, wider in pairwise(widths):
            self.blocks.append(nn.Conv2d(width, width, 3, padding=1))
            self.blocks.append(nn.Conv2d(width, wider, 3, padding=1, stride=2))
        self.conv_out = _zero(nn.Conv2d(widths[-1], config.encoder.channels[0], 3, padding=1))

    def forward(
        self, hint: Float[Tensor, "batch map height width"]
    ) -> Float[Tensor, "batch channel latent_height latent_width"]:
        """The features of a map with values in [0, 1]."""
        x = chunked_conv(self.conv_in, hint, lambda x: x)
        for layer in self.blocks:
            x = chunked_conv(layer, x, F.silu) if layer.stride == (1, 1) else layer(F.silu(x))
        return self.conv_out(F.silu(x))


class ControlNet(Encoder):
    """A copy of the U-Net's downward half and middle block, conditioned on a map over the pixels.

    Each of its outputs goes through a 1 x 1 convolution that starts at zero:

        r_i = Z_i(F_i(conv_in(x_t) + H(map), t, context))

    F_i are the skip connections and the output of the middle block, H is the hint encoder, Z_i the
    zero convolutions. The U-Net adds r_i to its own F_i. Source: Zhang et al. 2023,
    arXiv:2302.05543, eq. 2 and section 3.2.
    """

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__(config.encoder)
        self.settings = config
        self.controlnet_cond_embedding = HintEncoder(config)
        self.controlnet_down_blocks = nn.ModuleList(map(_pointwise, skip_widths(config.encoder)))
        self.controlnet_mid_block = _pointwise(config.encoder.channels[-1])

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        t: Float[Tensor, " batch"] | Float[Tensor, ""],
        context: Float[Tensor, "batch token context_width"] | Conditioning,
        features: Float[Tensor, "rows own_width height width"],
    ) -> list[Tensor]:
        """The residuals r_i for the skip connections, in order, and last for the middle block.

        Args:
            x, t, context: as those of the U-Net.
            features: `self.controlnet_cond_embedding(map)`, one row for all of the batch or one
                each. They depend on neither x_t nor t, so that one sampling computes them once.
        """
        maps = self.encode(self.conv_in(x) + features, self.time(x, t), context)
        layers = [*self.controlnet_down_blocks, self.controlnet_mid_block]
        return [layer(one) for layer, one in zip(layers, maps, strict=True)]


def copy_encoder(unet: UNet, config: ControlNetConfig) -> ControlNet:
    """A new ControlNet whose encoder starts as the U-Net's; its residuals are zero at first.

    The weights of the hint encoder before its last convolution are N(0, 2 / fan_in), so that a
    map's differences do not vanish on the way. Sources: Zhang et al. 2023, arXiv:2302.05543,
    section 3.1; He et al. 2015, arXiv:1502.01852, eq. 10.
    """
    network = ControlNet(config)
    hint = network.controlnet_cond_embedding
    for layer in (hint.conv_in, *hint.blocks):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    own = network.state_dict()
    copied = {name: value for name, value in unet.state_dict().items() if name in own}
    network.load_state_dict({**own, **copied})
    return network


def _pointwise(width: int) -> nn.Conv2d:
    return _zero(nn.Conv2d(width, width, 1))


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all its weights at zero."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer
