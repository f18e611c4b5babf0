"""Training of a ControlNet: on its own maps, with the U-Net frozen, from the U-Net's encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_math.schedule import Discrete
from sd import weights
from sd.networks.controlnet import ControlNet, copy_encoder
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE, Latent
from sd.shapes.data import described
from sd.shapes.semantic import class_map, classes
from sd.text.tokenizer import Tokenizer
from sd.train import control, unet
from sd.train.control import ControlTraining, control_config, control_loss, train_control
from tests.support.chance import seeded
from tests.support.small_models import scramble
from tests.support.tensors import normal
from tests.support.tiny_training import CONFIG

SCHEDULE = Discrete.scaled_linear(1000)
COUNT = 100


def networks() -> tuple[UNet, ControlNet]:
    base = UNet(CONFIG.unet).requires_grad_(False).eval()
    scramble(base, 1)
    return base, copy_encoder(base, control_config(CONFIG))


def batch(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return normal(count, 4, 8, 8), normal(count, 24, 16, seed=2), normal(count, 3, 64, 64).sigmoid()


def test_at_first_the_loss_is_that_of_the_u_net() -> None:
    """Bit for bit, with the same times and noise; not so once the residuals are there."""
    base, net = networks()
    loss, examples = control_loss(base, SCHEDULE, CONFIG.prediction), batch()
    plain = unet.unet_loss(SCHEDULE, CONFIG.prediction)(base, examples[:2], seeded(3))["loss"]
    assert torch.equal(loss(net, examples, seeded(3))["loss"], plain)
    scramble(net, 4)
    found = loss(net, examples, seeded(3))["loss"]
    assert not torch.equal(found, plain)
    other = (*examples[:2], 1 - examples[2])
    assert not torch.equal(loss(net, other, seeded(3))["loss"], found)


def test_the_residuals_alone_learn() -> None:
    base, net = networks()
    scramble(net, 4)
    control_loss(base, SCHEDULE, CONFIG.prediction)(net, batch(), seeded(3))["loss"].backward()
    assert all(weight.grad is None for weight in base.parameters())
    assert all(weight.grad is not None for weight in net.parameters())


def trained(out: Path, **settings: Any) -> tuple[UNet, dict[str, Tensor]]:
    base = UNet(CONFIG.unet)
    scramble(base, 1)
    training = ControlTraining(
        steps=6, batch_size=4, warmup=1, latents=COUNT, out=out, cpu=True, **settings
    )
    torch.manual_seed(0)
    before = VAE(CONFIG.vae), TextEncoder(CONFIG.text)
    parts = (*before, base, Tokenizer.embedded(CONFIG.text.context_length), SCHEDULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "encode", lambda *_, **__: numbered(COUNT))
        return base, train_control(training, CONFIG, *parts)


def numbered(count: int) -> Latent:
    """Latents that are the image's number, without spread."""
    mean = torch.arange(float(count)).reshape(-1, 1, 1, 1).expand(-1, 4, 8, 8) / count
    return Latent(mean, torch.zeros_like(mean))


def test_the_u_net_stays_and_the_controlnet_moves(tmp_path: Path) -> None:
    base, state = trained(tmp_path)
    same, new = networks()
    kept = base.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in same.state_dict().items())
    assert state.keys() == new.state_dict().keys()
    zeros = [name for name in state if name.startswith("controlnet_") and "embedding" not in name]
    assert zeros and all(bool(state[name].any()) for name in zeros)
    assert any(not torch.equal(state[name], kept[name]) for name in state if name in kept)


def test_a_map_is_that_of_its_own_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A latent is its image's number; each map has the classes of that image's scene."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []

    def take(module: nn.Module, batch: Callable[[int], Any], *_: Any) -> dict[str, Tensor]:
        found.extend(batch(step) for step in range(3))
        return {}

    monkeypatch.setattr(control, "fit", take)
    trained(tmp_path, drop=0.0)
    for x0, words, hint in found:
        assert words.shape == (4, 24, 16) and hint.shape == (4, 3, 64, 64)
        for latent, one in zip(x0, hint, strict=True):
            scene, _ = described(0, round(float(latent[0, 0, 0]) * COUNT))
            pixels = (one.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            assert np.array_equal(classes(pixels), class_map(scene))


def test_the_u_net_stays_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The training uses a copy on its own device, of which "meta" is one without numbers."""
    used: list[nn.Module] = []
    monkeypatch.setattr(unet, "device_of", lambda _: torch.device("meta"))
    monkeypatch.setattr(control, "control_loss", lambda unet, *_: used.append(unet))
    monkeypatch.setattr(control, "fit", lambda *_: {})
    base, _ = trained(tmp_path)
    assert [one.device.type for one in used[0].parameters()] == ["meta"] * len(base.state_dict())
    assert {one.device.type for one in base.parameters()} == {"cpu"}


def test_it_starts_from_the_u_nets_encoder_or_from_given_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[nn.Module] = []
    monkeypatch.setattr(control, "fit", lambda module, *_: given.append(module) or {})
    base, _ = trained(tmp_path)
    _, other = networks()
    scramble(other, 9)
    path = tmp_path / "control.safetensors"
    weights.save_network(path, other, control_config(CONFIG), dtype=torch.float32)
    trained(tmp_path, initial=path)
    first, second = (one.state_dict() for one in given)
    kept = base.state_dict()
    assert all(torch.equal(first[name], kept[name]) for name in first if name in kept)
    assert all(torch.equal(second[name], value) for name, value in other.state_dict().items())


def test_a_controlnet_depends_on_all_three_networks() -> None:
    def context(seed: int) -> dict[str, str]:
        parts = VAE(CONFIG.vae), TextEncoder(CONFIG.text), UNet(CONFIG.unet)
        for place, one in enumerate(parts):
            scramble(one, seed * (place + 1))
        return control.context(CONFIG, *parts)

    first, second = context(1), context(2)
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"vae", "text_encoder", "unet"}
    assert {"config", "data", "control"} <= first.keys()
