"""The table of names against diffusers' own conversion of original files."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sd.checkpoint import key_map
from sd.checkpoint.key_map import Skeleton, ema_key, file_key
from sd.checkpoint.saver import config_skeleton, original_tensors
from sd.config import SHAPES_CONFIG, V15, V20, ModelConfig
from sd.weights import blank
from tests.support import small_models
from tests.support.small_models import KINDS, OURS, V1, V2

utils = pytest.importorskip("diffusers.loaders.single_file_utils")

ODD = replace(  # one level without a change of resolution, and attention at the lowest level alone
    V1,
    unet=replace(V1.unet, channels=(32, 64), attention=(False, True), layers_per_block=3),
    vae=replace(V1.vae, channels=(32,)),
)
FLAT = replace(V1, unet=replace(V1.unet, channels=(32,), attention=(True,), layers_per_block=1))
CONFIGS = {"v1": V1, "v2": V2, "odd": ODD, "flat": FLAT}


def converted(kind: str, tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """What diffusers makes of an original file's tensors: its own names and shapes."""
    if kind == "unet":
        layers = {"layers_per_block": config.unet.layers_per_block}
        return utils.convert_ldm_unet_checkpoint(dict(tensors), layers)
    if kind == "vae":
        levels = len(config.vae.channels)
        blocks = {"down_block_types": [""] * levels, "up_block_types": [""] * levels}
        return utils.convert_ldm_vae_checkpoint(dict(tensors), blocks)
    if config.text.activation == "quick_gelu":
        found = utils.convert_ldm_clip_checkpoint(dict(tensors))
    else:
        text = nn.Module()
        text.config = type("Config", (), {"hidden_size": config.text.width})()
        found = utils.convert_open_clip_checkpoint(text, dict(tensors))
    return {name.removeprefix("text_model."): value for name, value in found.items()}


def differs(kind: str, config: ModelConfig) -> bool:
    """Whether diffusers reads anything else from our original names than is in its own model."""
    found, wanted = (
        converted(kind, small_models.single(config), config),
        small_models.truth(config)[kind],
    )
    return found.keys() != wanted.keys() or any(
        not torch.equal(found[name], value) for name, value in wanted.items()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_reads_its_own_tensors_from_our_names(name: str, kind: str) -> None:
    assert not differs(kind, CONFIGS[name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [V15, V20, SHAPES_CONFIG], ids=["V15", "V20", "SHAPES"])
def test_at_full_size_the_names_and_shapes_are_the_same(kind: str, config: ModelConfig) -> None:
    """On the meta device, where there is nothing to compare but those."""
    field = "text" if kind == "text_encoder" else kind
    network = blank(OURS[kind], getattr(config, field))
    tensors = original_tensors(kind, stand_in(network), config)
    found = converted(kind, {n: v.to("meta") for n, v in tensors.items()}, config)
    assert {n: v.shape for n, v in found.items()} == {
        n: v.shape for n, v in network.state_dict().items()
    }


def stand_in(network: nn.Module) -> nn.Module:
    """The network with weights that take no memory: all numbers of one are one and the same."""
    for name, value in list(network.state_dict().items()):
        owner, _, leaf = name.rpartition(".")
        weight = nn.Parameter(torch.zeros(1).expand(value.shape), requires_grad=False)
        setattr(network.get_submodule(owner), leaf, weight)
    return network


@pytest.mark.parametrize(
    ("table", "kind", "first", "second"),
    [
        ("RESNET", "unet", "norm1", "norm2"),
        ("RESNET", "unet", "conv1", "conv2"),
        ("VAE_ATTENTION", "vae", "to_q", "to_k"),
        ("OPENCLIP_LAYER", "text_encoder", "layer_norm1", "layer_norm2"),
    ],
)
def test_swapped_names_are_noticed(
    table: str, kind: str, first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = getattr(key_map, table)
    one, two = values[first], values[second]
    monkeypatch.setitem(values, first, two)
    monkeypatch.setitem(values, second, one)
    assert differs(kind, V2)


def test_swapped_thirds_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_map, "THIRDS", {"q_proj": 1, "k_proj": 0, "v_proj": 2})
    assert differs("text_encoder", V2)


@pytest.mark.parametrize("wrong", ["layers", "attention", "levels"])
def test_a_wrong_skeleton_is_noticed(wrong: str) -> None:
    right = config_skeleton("unet", V1)
    bones = {
        "layers": replace(right, layers=right.layers + 1),
        "attention": replace(right, attention=right.attention[::-1]),
        "levels": Skeleton(right.layers, 2, right.attention[:2]),
    }[wrong]
    state = small_models.truth(V1)["unet"]
    assert any(
        file_key("unet", "original", name, bones) != file_key("unet", "original", name, right)
        for name in state
    )


@pytest.mark.parametrize("name", [*CONFIGS, "V15", "V20"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_one_to_one(kind: str, name: str) -> None:
    config = {**CONFIGS, "V15": V15, "V20": V20}[name]
    field = "text" if kind == "text_encoder" else kind
    state = blank(OURS[kind], getattr(config, field)).state_dict()
    layouts = [layout for known, layout in key_map.LAYOUTS if known == kind]
    for layout in layouts:
        places = [file_key(kind, layout, name, config_skeleton(kind, config)) for name in state]
        assert len(set(places)) == len(places)
        if kind == "unet":
            assert len({ema_key(found.name) for found in places}) == len(places)
