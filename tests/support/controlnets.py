"""Small ControlNets made by diffusers itself; their zero convolutions are random too."""

from functools import cache

import pytest
from torch import Tensor, nn

from sd.checkpoint.key_map import Skeleton, file_key
from sd.config import ControlNetConfig
from tests.support.small_models import scramble

diffusers = pytest.importorskip("diffusers")


def peer_of(config: ControlNetConfig) -> nn.Module:
    """diffusers' ControlNet; its `attention_head_dim` counts heads."""
    encoder = config.encoder
    heads = list(map(encoder.heads_at, encoder.channels)) if encoder.head_width else encoder.heads
    down = [("", "CrossAttn")[attend] + "DownBlock2D" for attend in encoder.attention]
    return diffusers.ControlNetModel(
        in_channels=encoder.in_channels,
        conditioning_channels=config.map_channels,
        down_block_types=tuple(down),
        block_out_channels=encoder.channels,
        layers_per_block=encoder.layers_per_block,
        cross_attention_dim=encoder.context_width,
        attention_head_dim=heads,
        use_linear_projection=encoder.linear_projection,
        norm_num_groups=encoder.groups,
        norm_eps=encoder.eps,
        conditioning_embedding_out_channels=config.hint_channels,
    ).eval()


@cache
def peer_controlnet(config: ControlNetConfig, seed: int = 11) -> nn.Module:
    """The same with random weights; not to be changed."""
    made = peer_of(config)
    scramble(made, seed)
    return made


def original(config: ControlNetConfig, prefix: str = "control_model.") -> dict[str, Tensor]:
    """The tensors of a file in the original layout."""
    encoder = config.encoder
    bones = Skeleton(encoder.layers_per_block, len(encoder.channels), encoder.attention)
    return {
        prefix + file_key("controlnet", "original", name, bones).name: value.clone()
        for name, value in peer_controlnet(config).state_dict().items()
    }
