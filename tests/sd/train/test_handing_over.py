"""What the trainings of the convolutional networks hand to the loop, and what they start from."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sd import weights
from sd.config import UNetConfig, VAEConfig
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE, Latent
from sd.shapes.scene import Scene, Thing
from sd.text.tokenizer import Tokenizer
from sd.train import source, unet, vae
from sd.train.shard import WHOLE, Shard
from tests.support.network_stand_ins import SCHEDULE
from tests.support.tiny_training import CONFIG

TINY = replace(
    CONFIG,
    unet=UNetConfig(
        channels=(8,), layers_per_block=1, heads=1, context_width=16, attention=(False,), groups=4
    ),
    vae=VAEConfig(channels=(8,), layers_per_block=1, groups=4, scaling_factor=1.0),
    prediction="v_prediction",
    image_size=64,
)
THING = Thing("ring", "red", "large", -0.5, 0.1, 0.35)


def described(seed: int, index: int) -> tuple[Scene, str]:
    """One thing and two by turns."""
    two = index % 2 == 1
    scene = Scene((THING,) * (1 + two), "left of" if two else None, "gray")
    return scene, ""


class Fit:
    """Stands for the loop: keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    def __call__(self, module: nn.Module, *rest: Any) -> dict[str, Tensor]:
        self.given.append((module, *rest))
        return {"the": torch.ones(1)}


def filled(path: Path, network: nn.Module, config: VAEConfig | UNetConfig) -> nn.Module:
    """A network all of whose weights are 1/4, saved."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.25)
    weights.save_network(path, network, config, dtype=torch.float32)
    return network


def train_unet(
    patch: pytest.MonkeyPatch, training: unet.UNetTraining
) -> tuple[tuple[Any, ...], list[Any], tuple[VAE, TextEncoder]]:
    """What the loop was given, where and what was encoded, and the other networks."""
    fit, encoded = Fit(), []

    def encode(network: VAE, made: source.Shapes, device: torch.device, shard: Shard) -> Latent:
        encoded.append((network, made.seed, made.count, device))
        zero = torch.zeros(made.count, 4, 1, 1)
        return Latent(zero, zero)

    patch.setattr(unet, "fit", fit)
    patch.setattr(unet, "encode", encode)
    patch.setattr(source, "described", described)
    patch.setattr(unet, "unet_loss", lambda *given: given)
    networks = VAE(TINY.vae), TextEncoder(TINY.text)
    found = unet.train_unet(training, TINY, *networks, Tokenizer.embedded(), SCHEDULE)
    assert found.keys() == {"the"}
    return fit.given[0], encoded, networks


def test_the_u_net_is_trained_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts with the given weights; nothing is evaluated during the training."""
    first = tmp_path / "unet.safetensors"
    wanted = filled(first, UNet(TINY.unet), TINY.unet).state_dict()
    training = unet.UNetTraining(latents=100, seed=4, initial=first, out=tmp_path, cpu=True)
    given, encoded, (autoencoder, text) = train_unet(monkeypatch, training)
    network, batch, loss, settings, evaluate, context, preview, blocks = given
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    assert callable(batch) and preview is None and blocks == ()
    assert loss == (SCHEDULE, "v_prediction", WHOLE)
    assert settings is training and evaluate is None
    assert context == unet.context(TINY, autoencoder, text)
    assert encoded == [(autoencoder, 4, 100, torch.device("cpu"))]


@pytest.mark.parametrize(
    ("gpu", "cpu", "device"),
    [(True, False, "cuda"), (True, True, "cpu"), (False, False, "cpu"), (False, True, "cpu")],
)
def test_images_are_encoded_on_a_gpu_if_there_is_one(
    gpu: bool, cpu: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not where the CPU is asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    training = unet.UNetTraining(latents=100, out=tmp_path, cpu=cpu)
    _, encoded, _ = train_unet(monkeypatch, training)
    assert [one[-1] for one in encoded] == [torch.device(device)]


class Flat(VAE):
    """Encodes an image to one number, 1/2, on the CPU; the class keeps where all was."""

    places: ClassVar[list[set[str]]] = []

    def encode(self, x: Tensor) -> Latent:
        assert not self.training
        self.places.append({one.device.type for one in (x, *self.parameters())})
        number = torch.full((len(x), 1, 1, 1), 0.5)
        return Latent(number, number)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_images_are_encoded_where_asked_and_shown_as_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device without numbers stands for a GPU; latents and the network are on the CPU."""
    shown = Terminal()
    monkeypatch.setattr(unet, "tqdm", partial(tqdm, file=shown, ncols=80))
    monkeypatch.setattr(source.Shapes, "images", lambda self, some: torch.zeros(len(some), 3, 8, 8))
    monkeypatch.setattr(unet, "signed", lambda x: x)
    network = Flat(TINY.vae)
    monkeypatch.setattr(Flat, "places", [])
    found = unet.encode(network, source.Shapes(0, 250), torch.device("meta"))
    assert found.mean.shape == found.variance.shape == (250, 1, 1, 1)
    assert network.places == 3 * [{"meta"}]
    assert {one.device.type for one in network.parameters()} == {"cpu"}
    assert shown.getvalue().startswith("\rencode:   0%|") and " 0/3 " in shown.getvalue()
    assert "?batch/s]" in shown.getvalue()


def train_vae(patch: pytest.MonkeyPatch, training: vae.VAETraining) -> tuple[Any, ...]:
    """What the loop was given."""
    fit = Fit()
    patch.setattr(vae, "fit", fit)
    patch.setattr(
        source.Shapes,
        "images",
        lambda self, some: torch.tensor([self.seed, some.start, some.stop]),
    )
    patch.setattr(source.Shapes, "fresh", lambda self, count: torch.zeros(count, 3, 8, 8))
    assert vae.train_vae(training, TINY.vae).keys() == {"the"}
    return fit.given[0]


@pytest.mark.parametrize("alone", [False, True])
def test_the_autoencoder_is_trained_as_asked(
    alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts with the given weights; of a decoder alone, the encoder's need no gradient."""
    first = tmp_path / "vae.safetensors"
    wanted = filled(first, VAE(TINY.vae), TINY.vae).state_dict()
    training = vae.VAETraining(
        batch_size=3, seed=4, noise=0.3, initial=first, decoder_only=alone, out=tmp_path
    )
    network, batch, loss, settings, evaluate, context = train_vae(monkeypatch, training)
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    frozen = {name for name, value in network.named_parameters() if not value.requires_grad}
    encoding = {key for key in wanted if key.startswith(("encoder.", "quant_conv."))}
    assert frozen == (encoding if alone else set())
    assert batch(2).tolist() == [4, 6, 9]
    assert settings is training
    assert context == vae.context(TINY.vae)
    monkeypatch.setattr(vae, "psnr", lambda module, image: torch.tensor([20.0, 30.0]))
    judge: Callable[[nn.Module], dict[str, float]] = evaluate
    assert judge(network) == {"psnr_db": 25.0}
    mean, x = torch.zeros(1, 4, 1, 1), torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    drawn: list[Tensor] = []
    network.moments = lambda image: (mean, mean - 30.0)
    network.decode = lambda z: drawn.append(z) or image_of(z)
    loss(network, x, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 4, 1, 1, generator=generator)
    widths = 0.3 * torch.rand(1, 1, 1, 1, generator=generator)
    torch.testing.assert_close(drawn[0], widths * z, rtol=1e-5, atol=1e-5)


def image_of(z: Tensor) -> Tensor:
    return z[:, :3]
