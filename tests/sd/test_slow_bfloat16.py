"""Bfloat16 on a CPU without instructions for it: who asks for it is warned before any work."""

import pytest
import torch

from sd.device import BFLOAT16, slow_bfloat16  # the function itself, which conftest replaces
from sd.pipeline import TextToImage
from sd.train.lora import LoRATraining
from sd.train.settings import Training
from sd.train.shard import startable
from sd.train.unet import UNetTraining

CPU = torch.device("cpu")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd.device.slow_bfloat16", lambda where: where.type == "cpu")


@pytest.mark.parametrize(
    ("found", "device", "expected"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False}, CPU, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, CPU, False),
        ({"architecture": "x86_64", "amx_bf16": True}, CPU, False),
        ({"architecture": "x86_64"}, torch.device("cuda"), False),
        ({"architecture": "aarch64"}, CPU, False),
    ],
)
def test_slow_is_an_x86_processor_without_the_instructions(
    found: dict[str, object],
    device: torch.device,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert slow_bfloat16(device) is expected


def test_nothing_is_said_where_pytorch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not slow_bfloat16(CPU)


def test_pytorch_tells_by_the_names_that_are_read() -> None:
    """A name that it does not know would never be found."""
    found = torch.cpu.get_capabilities()
    if found["architecture"] == "x86_64":
        assert set(BFLOAT16) <= set(found)


def test_a_pipeline_in_slow_bfloat16_warns(slow: None) -> None:
    with pytest.warns(UserWarning, match=r"^dtype: bfloat16 is several times slower"):
        TextToImage.load(device="cpu", dtype=torch.bfloat16)
    TextToImage.load(device="cpu")


@pytest.mark.parametrize("kind", [UNetTraining, LoRATraining])
def test_a_training_in_slow_bfloat16_warns(kind: type[Training], slow: None) -> None:
    name = f"--{kind.prefix}"
    with pytest.warns(UserWarning, match=f"^{name}bfloat16: .*; give {name}no-bfloat16$"):
        startable([kind()], 1)
    startable([kind(bfloat16=False)], 1)
