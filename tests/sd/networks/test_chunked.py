"""Convolutions strip by strip: what is computed whole, whatever the strips."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sd.config import VAEConfig
from sd.networks import chunked
from sd.networks.attention import FeedForward
from sd.networks.blocks import ResBlock, Upsample
from sd.networks.vae import VAE
from tests.support.chance import pinned

ROUNDING = 64 * torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=pinned(0)).to(dtype)


@pytest.mark.parametrize(
    ("height", "rows", "twice"), [*product((1, 2, 7, 16), (1, 2, 3, 5), (False, True))]
)
def test_strips_of_every_height(
    height: int, rows: int, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = nn.Conv2d(4, 6, 3, padding=1), normal(2, 4, height, 5) + 3
    whole = chunked.chunked_conv(layer, x, torch.tanh, twice)
    monkeypatch.setattr(chunked, "STRIP", rows * x[..., :1, :].numel() * (4 if twice else 1) * 4)
    cut = chunked.chunked_conv(layer, x, torch.tanh, twice)
    torch.testing.assert_close(cut, whole, rtol=0, atol=ROUNDING)
    assert cut.shape[-1] == (10 if twice else 5)
    monkeypatch.setattr(chunked, "STRIP", 0)
    torch.testing.assert_close(
        chunked.chunked_conv(layer, x, torch.tanh, twice), whole, rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_group_norm_by_two_numbers_a_channel(
    dtype: torch.dtype, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean of thirty deviations, rounded once to the map's type in the shift."""
    norm = nn.GroupNorm(4, 8, eps=1e-6)
    norm.weight.copy_(normal(8))
    norm.bias.copy_(normal(8))
    x = (normal(2, 8, 16, 9) + offset).to(dtype)
    exact = torch.nn.functional.silu(norm.double()(x.double()))
    norm = norm.to(dtype)
    monkeypatch.setattr(chunked, "STRIP", 0)
    found = chunked.chunked_norm(norm, x)(x[..., 3:7, :])
    eps = torch.finfo(dtype).eps
    assert found.dtype == dtype
    worst = (found - exact[..., 3:7, :]).abs().max().item()
    assert worst < 8 * eps * (1 + offset), worst


def test_blocks_and_the_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    config = VAEConfig(channels=(8, 16), layers_per_block=1, groups=4)
    vae, block = VAE(config).eval(), ResBlock(8, 12, 4, 1e-6, time_width=5)
    up = Upsample(8)
    z, x, time = normal(2, config.latent_channels, 6, 10), normal(2, 8, 9, 7), normal(1, 5)

    def answers() -> list[Tensor]:
        picture = vae.decode(z)
        return [picture, vae.encode(picture).mean, block(x, time), up(x)]

    whole = answers()
    monkeypatch.setattr(chunked, "STRIP", 2000)
    for cut, one in zip(answers(), whole, strict=True):
        torch.testing.assert_close(cut, one, rtol=0, atol=8 * ROUNDING)


@pytest.mark.parametrize("most", [0, 1000, 20_000])
def test_tokens_some_at_a_time(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = FeedForward(6), normal(2, 80, 6)
    whole = layer(x)
    monkeypatch.setattr(chunked, "STRIP", most)
    torch.testing.assert_close(layer(x), whole, rtol=0, atol=ROUNDING)
    with Held(x) as held:
        layer(x)
    inside = max(1, most // (48 * 4)) if 2 * most < 160 * 48 * 4 else 160
    assert held.most == max(x.numel(), 48 * inside)


class Held(TorchDispatchMode):
    """The largest tensor that any operation makes, in numbers; no view of `x` is one."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.most, self.given = 0, x.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() != self.given:
            self.most = max(self.most, out.numel())
        return out


def test_only_the_answer_is_as_large_as_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 channels to 4: nothing but strips has 64; and with gradients all is whole."""
    layer, norm, x = nn.Conv2d(64, 4, 3, padding=1), nn.GroupNorm(4, 64), normal(1, 64, 64, 8)
    monkeypatch.setattr(chunked, "STRIP", 4 * 64 * 8 * 4)
    for gradients, most in ((False, 6 * 64 * 8), (True, x.numel())):
        with torch.set_grad_enabled(gradients), Held(x) as held:
            chunked.chunked_conv(layer, x, chunked.chunked_norm(norm, x))
        assert held.most == most


@pytest.mark.parametrize(("device", "calls"), [("meta", 1), ("cpu", 4)])
def test_an_accelerator_takes_maps_whole(device: str, calls: int) -> None:
    """64 MiB: four strips on the CPU, one convolution elsewhere (on "meta" nothing is computed)."""
    layer = nn.Conv2d(64, 1, 3, padding=1, device=device)
    x = torch.empty(1, 64, 512, 512, device=device)
    rows: list[int] = []

    def seen(y: Tensor) -> Tensor:
        rows.append(y.shape[-2])
        return y

    assert chunked.chunked_conv(layer, x, seen).shape == (1, 1, 512, 512)
    assert len(rows) == calls
