"""Small ControlNets made by diffusers itself; their zero convolutions are random too."""

from functools import cache

import pytest
from torch import Tensor, nn

from sd.checkpoint.key_map import Skeleton, file_key
from sd.config import ControlNetConfig
from tests.support.small_models import encoder_arguments, scramble

diffusers = pytest.importorskip("diffusers")


def peer_of(config: ControlNetConfig) -> nn.Module:
    """diffusers' ControlNet."""
    return diffusers.ControlNetModel(
        conditioning_channels=config.map_channels,
        conditioning_embedding_out_channels=config.hint_channels,
        **encoder_arguments(config.encoder),
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
