"""The class-conditional U-Net against diffusers', and the labels that it must refuse."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sd.checkpoint import load, load_unet
from sd.checkpoint.key_map import Skeleton, file_key
from sd.config import ControlNetConfig, ModelConfig, UNetConfig
from sd.networks.unet import UNet
from sd.weights import save_network
from tests.support import small_models
from tests.support.measuring import Measured
from tests.support.small_models import V1, V2, peer_unet, scramble
from tests.support.tensors import far, normal

utils = pytest.importorskip("diffusers.loaders.single_file_utils")

CONFIGS = {
    "v1 with labels": replace(V1.unet, num_class_embeds=11),
    "v2 with labels": replace(V2.unet, num_class_embeds=3),
    "labels alone": UNetConfig(
        in_channels=1, out_channels=1, channels=(32, 64), layers_per_block=2, context_width=0,
        attention=(False, False), num_class_embeds=11,
    ),
    "nothing": UNetConfig(
        in_channels=3, out_channels=3, channels=(32,), layers_per_block=1, context_width=0,
        attention=(False,),
    ),
}  # fmt: skip
ALONE, BOTH, NEITHER = (CONFIGS[name] for name in ("labels alone", "v1 with labels", "nothing"))
TOLERANCE = 1e-5  # some 100 roundings (6e-8) of float32, over the largest entry
TIMES = torch.tensor([3.0, 981.0, 40.0])


@cache
def peer(config: UNetConfig) -> nn.Module:
    """diffusers' U-Net with random weights; not to be changed."""
    made = peer_unet(config)
    scramble(made, 3)
    return made


def unet_of(config: UNetConfig) -> UNet:
    ours = UNet(config).eval()
    ours.load_state_dict(peer(config).state_dict(), strict=True)
    return ours


def inputs(config: UNetConfig) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """x_t, the context and the labels; the first label is 0, the last the null class."""
    last = config.num_class_embeds - 1
    labels = torch.tensor([0, last, 1]) if config.num_class_embeds else None
    context = normal(3, 5, config.context_width, seed=2) if config.context_width else None
    return normal(3, config.in_channels, 6, 10), context, labels


@torch.no_grad()
def predicted(unet: UNet) -> Tensor:
    x, context, labels = inputs(unet.config)
    return unet(x, TIMES, context, labels=labels)


@cache
@torch.no_grad()
def wanted(config: UNetConfig) -> Tensor:
    x, context, labels = inputs(config)
    found: Tensor = peer(config)(x, TIMES, context, class_labels=labels).sample
    return found


@pytest.mark.claim("C27", "sd.networks.unet.UNet")
@pytest.mark.parametrize("name", CONFIGS)
def test_c27_a_label_is_a_condition_as_in_diffusers(measured: Measured, name: str) -> None:
    off = far(predicted(unet_of(CONFIGS[name])), wanted(CONFIGS[name]))
    measured(off, TOLERANCE, "relative difference from diffusers' class-conditional U-Net: float32")


def label_ignored(unet: UNet) -> None:
    nn.init.zeros_(unet.class_embedding.weight)


def next_label(unet: UNet) -> None:
    unet.class_embedding.weight.data = unet.class_embedding.weight.data.roll(1, 0)


def without_time(unet: UNet) -> None:
    """Leave out the time where there is a label."""
    unet.time_embedding.register_forward_hook(lambda module, given, y: 0 * y)


@pytest.mark.parametrize("name", ["v1 with labels", "labels alone"])
@pytest.mark.parametrize("wrong", [label_ignored, next_label, without_time])
def test_a_wrong_wiring_is_noticed(name: str, wrong: Callable[[UNet], object]) -> None:
    unet = unet_of(CONFIGS[name])
    wrong(unet)
    assert far(predicted(unet), wanted(CONFIGS[name])) > 10 * TOLERANCE


@torch.no_grad()
def test_one_label_for_all_or_one_for_each() -> None:
    unet, (x, _, _) = unet_of(ALONE), inputs(ALONE)
    for t in (TIMES, TIMES[0]):
        each = unet(x, t, labels=torch.full((3,), 7))
        torch.testing.assert_close(unet(x, t, labels=torch.tensor(7)), each)
        torch.testing.assert_close(unet(x, t, labels=torch.full((3,), 7, dtype=torch.int32)), each)
    assert unet(x[:0], TIMES[:0], labels=torch.full((0,), 7)).shape == (0, 1, 6, 10)
    mixed = unet(x, TIMES[0], labels=torch.tensor([7, 2, 7]))
    torch.testing.assert_close(mixed[::2], unet(x, TIMES[0], labels=torch.tensor(7))[::2])
    assert far(mixed[1], unet(x, TIMES[0], labels=torch.tensor(7))[1]) > 0.01


REFUSED: dict[str, tuple[UNetConfig, Tensor | None, str]] = {
    "none": (ALONE, None, "one integer, or one for each of 3: the U-Net is class-conditional"),
    "none, with a prompt": (BOTH, None, "the U-Net is class-conditional, got NoneType"),
    "labels": (NEITHER, torch.tensor([1, 2, 3]), "none: the U-Net has no class embedding"),
    "too few": (ALONE, torch.tensor([1, 2]), r"got torch.int64 of shape \(2,\)"),
    "one column": (ALONE, torch.tensor([[1], [2], [3]]), r"shape \(3, 1\)"),
    "fractions": (ALONE, torch.tensor([1.0, 2.0, 3.0]), "got torch.float32"),
    "booleans": (ALONE, torch.tensor([True, False, True]), "got torch.bool"),
    "above": (ALONE, torch.tensor([0, 11, 3]), r"integers in 0\.\.10, got 0\.\.11"),
    "below": (BOTH, torch.tensor(-1), r"integers in 0\.\.10, got -1\.\.-1"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", REFUSED)
def test_labels_that_do_not_fit_are_refused(name: str) -> None:
    config, labels, line = REFUSED[name]
    x, context, _ = inputs(config)
    with pytest.raises(ValueError, match=f"^labels: wanted .*{line}"):
        UNet(config)(x, TIMES, context, labels=labels)


def test_a_prompt_that_has_no_reader_is_refused() -> None:
    x, _, labels = inputs(ALONE)
    with pytest.raises(ValueError, match="context: wanted none: the U-Net takes no prompt"):
        UNet(ALONE)(x, TIMES, normal(3, 5, 8), labels=labels)
    x, _, labels = inputs(BOTH)
    with pytest.raises(ValueError, match="context: wanted a context 64 wide, got none"):
        UNet(BOTH)(x, TIMES, labels=labels)


def tensors_of(config: UNetConfig, prefix: str = "model.diffusion_model.") -> dict[str, Tensor]:
    """In the original layout."""
    bones = Skeleton(config.layers_per_block, len(config.channels), config.attention)
    return {
        prefix + file_key("unet", "original", name, bones).name: value.clone()
        for name, value in peer(config).state_dict().items()
    }


def folder(path: Path, config: UNetConfig) -> Path:
    peer(config).save_pretrained(path / "folder")
    return path / "folder"


def in_folder(path: Path, config: UNetConfig) -> Path:
    return folder(path, config) / "diffusion_pytorch_model.safetensors"


def original(path: Path, config: UNetConfig) -> Path:
    save_file(tensors_of(config), path / "one.safetensors")
    return path / "one.safetensors"


def zipped(path: Path, config: UNetConfig) -> Path:
    torch.save({"state_dict": tensors_of(config)}, path / "one.ckpt")
    return path / "one.ckpt"


def whole(path: Path, config: UNetConfig) -> Path:
    """Beside an autoencoder."""
    save_file({**tensors_of(config), **small_models.single(V1, "vae")}, path / "all.safetensors")
    return path / "all.safetensors"


def own(path: Path, config: UNetConfig) -> Path:
    save_network(path / "own.safetensors", unet_of(config), config, torch.float32)
    return path / "own.safetensors"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("write", [folder, in_folder, original, zipped, whole, own])
def test_a_file_loads_with_every_bit(
    write: Callable[[Path, UNetConfig], Path], name: str, tmp_path: Path
) -> None:
    config = CONFIGS[name]
    found = load_unet(write(tmp_path, config))
    assert found.config == config and not found.training
    state, right = found.state_dict(), peer(config).state_dict()
    assert state.keys() == right.keys()
    assert all(torch.equal(state[key], value) for key, value in right.items())
    assert far(predicted(found), wanted(config)) < TOLERANCE


def test_the_label_has_its_name_in_latent_diffusion() -> None:
    """`label_emb` beside `time_embed`, which diffusers' own conversion reads as ours."""
    tensors = tensors_of(BOTH)
    assert tensors["model.diffusion_model.label_emb.weight"].shape == (11, 128)
    words = {"layers_per_block": BOTH.layers_per_block, "num_class_embeds": 11}
    found = utils.convert_ldm_unet_checkpoint(tensors, words)
    right = peer(BOTH).state_dict()
    assert found.keys() == right.keys()
    assert all(torch.equal(found[key], value) for key, value in right.items())


def test_a_prompt_model_takes_no_labels(tmp_path: Path) -> None:
    line = "UNetConfig.num_class_embeds: wanted 0, in a {}, got 11"
    with pytest.raises(ValueError, match=line.format("text-to-image model")):
        replace(V1, unet=BOTH)
    with pytest.raises(ValueError, match=line.format("ControlNet")):
        ControlNetConfig(BOTH)
    with pytest.raises(ValueError, match=r"UNetConfig\.context_width: wanted a whole number"):
        ModelConfig(unet=NEITHER)
    tensors = {**small_models.single(V1), **tensors_of(BOTH)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="num_class_embeds: wanted 0, in a text-to-image model"):
        load(tmp_path / "model.safetensors")


def test_an_upscaler_is_named(tmp_path: Path) -> None:
    tensors = tensors_of(replace(BOTH, in_channels=7))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"an upscaler's checkpoint \(7 input channels\)"):
        load_unet(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"num_class_embeds": -1}, "UNetConfig.num_class_embeds: wanted"),
        ({"context_width": -1}, "UNetConfig.context_width: wanted"),
        ({"context_width": 0}, "UNetConfig.attention: wanted False at every level, with context_"),
    ],
)
def test_a_bad_configuration_is_refused(words: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(V1.unet, **words)
