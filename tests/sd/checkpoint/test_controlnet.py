"""ControlNet files in every layout: every bit of them, and a line for those that do not fit."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sd.checkpoint import load, load_controlnet
from sd.config import SHAPES_CONFIG, ControlNetConfig
from sd.networks.controlnet import ControlNet
from sd.weights import save_network
from tests.support import small_models
from tests.support.controlnets import original, peer_controlnet
from tests.support.small_models import V1, V2

utils = pytest.importorskip("diffusers.loaders.single_file_utils")
CONFIGS = {"v1": ControlNetConfig(V1.unet), "v2": ControlNetConfig(V2.unet)}
Tensors = dict[str, Tensor]


def single(path: Path, config: ControlNetConfig, prefix: str = "control_model.") -> Path:
    save_file(original(config, prefix), path / "control.safetensors")
    return path / "control.safetensors"


def bare(path: Path, config: ControlNetConfig) -> Path:
    return single(path, config, "")


def zipped(path: Path, config: ControlNetConfig) -> Path:
    torch.save(original(config), path / "control.pth")
    return path / "control.pth"


def whole(path: Path, config: ControlNetConfig) -> Path:
    """With the model that it was trained beside, as the first ControlNets were published."""
    model = {"v1": V1, "v2": V2}[next(n for n, one in CONFIGS.items() if one == config)]
    save_file({**original(config), **small_models.single(model)}, path / "all.safetensors")
    return path / "all.safetensors"


def folder(path: Path, config: ControlNetConfig) -> Path:
    peer_controlnet(config).save_pretrained(path / "folder")
    return path / "folder"


def in_folder(path: Path, config: ControlNetConfig) -> Path:
    return folder(path, config) / "diffusion_pytorch_model.safetensors"


def own(path: Path, config: ControlNetConfig) -> Path:
    net = ControlNet(config)
    net.load_state_dict(peer_controlnet(config).state_dict())
    save_network(path / "own.safetensors", net, config, torch.float32)
    return path / "own.safetensors"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("write", [single, bare, zipped, whole, folder, in_folder, own])
def test_a_file_loads_with_every_bit(
    write: Callable[[Path, ControlNetConfig], Path], name: str, tmp_path: Path
) -> None:
    config = CONFIGS[name]
    found = load_controlnet(write(tmp_path, config))
    assert found.settings == config and not found.training
    wanted = peer_controlnet(config).state_dict()
    state = found.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[key], value) for key, value in wanted.items())


def test_other_dtypes(tmp_path: Path) -> None:
    found = load_controlnet(single(tmp_path, CONFIGS["v1"]), dtype=torch.bfloat16)
    assert {one.dtype for one in found.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_reads_its_own_tensors_from_our_names(name: str) -> None:
    config = CONFIGS[name]
    words = {"layers_per_block": config.encoder.layers_per_block}
    found = utils.convert_controlnet_checkpoint(original(config), words)
    wanted = peer_controlnet(config).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def changed(change: Callable[[Tensors], object]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        tensors = original(CONFIGS["v1"])
        change(tensors)
        save_file(tensors, path / "bad.safetensors")
        return path / "bad.safetensors"

    return write


def said(**words: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        at = folder(path, CONFIGS["v1"])
        values = json.loads((at / "config.json").read_text())
        (at / "config.json").write_text(json.dumps({**values, **words}))
        return at

    return write


def unet_alone(path: Path) -> Path:
    save_file(small_models.single(V1, "unet"), path / "unet.safetensors")
    return path / "unet.safetensors"


def without_configuration(path: Path) -> Path:
    return small_models.write_folder(path / "model", V1) / "unet"


def not_finite(tensors: Tensors) -> None:
    tensors["control_model.zero_convs.1.0.weight"][0, 0] = torch.inf


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "U-Net": (unet_alone, "no ControlNet is in it, by its names"),
    "folder": (without_configuration, "of UNet2DConditionModel, none of ControlNetModel"),
    "missing": (
        changed(lambda t: t.pop("control_model.zero_convs.3.0.bias")),
        "does not fit: 1 missing",
    ),
    "unexpected": (
        changed(lambda t: t.update({"control_model.task_embedding": torch.zeros(3)})),
        "does not fit: 1 unexpected",
    ),
    "LoRA": (
        changed(lambda t: t.update({"lora_unet_a.lora_down.weight": torch.zeros(3)})),
        "a LoRA file, not a ControlNet of v1 or v2",
    ),
    "SDXL": (
        changed(lambda t: t.update({"control_model.label_emb.0.0.weight": torch.zeros(3)})),
        "an SDXL checkpoint, not a ControlNet of v1 or v2",
    ),
    "infinite": (changed(not_finite), "control_model.zero_convs.1.0.weight is not finite"),
    "BGR": (
        said(controlnet_conditioning_channel_order="bgr"),
        "controlnet_conditioning_channel_order is 'bgr'; supported is 'rgb'",
    ),
    "pooled": (said(global_pool_conditions=True), "global_pool_conditions is True"),
    "other widths": (
        said(conditioning_embedding_out_channels=[16, 32]),
        "conditioning_embedding_out_channels is [16, 32], the tensors say",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write, words = BAD[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        load_controlnet(write(tmp_path))


def test_a_controlnet_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a ControlNet checkpoint, not a text-to-image one"):
        load(single(tmp_path, CONFIGS["v1"]))
    with pytest.raises(FileNotFoundError):
        load_controlnet(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="variant is 'fp16', which only a folder can have"):
        load_controlnet(single(tmp_path, CONFIGS["v1"]), variant="fp16")


def test_a_controlnet_of_the_embedded_model_keeps_its_configuration(tmp_path: Path) -> None:
    """Heads and groups that no shape determines."""
    config = ControlNetConfig(SHAPES_CONFIG.unet, hint_channels=(8, 8, 8, 8))
    save_network(tmp_path / "own.safetensors", ControlNet(config), config)
    assert load_controlnet(tmp_path / "own.safetensors").settings == config
    tensors = load_file(tmp_path / "own.safetensors")
    save_file(tensors, tmp_path / "own.safetensors", {"config": "{}x"})
    with pytest.raises(ValueError, match="the config in its metadata"):
        load_controlnet(tmp_path / "own.safetensors")
