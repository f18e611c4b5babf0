"""Weights on disk: a round trip, and one clear line for whatever can be wrong with a file."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sd import weights
from sd.config import SHAPES_CONFIG, TextConfig, UNetConfig, VAEConfig, to_json
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE

CONFIG = VAEConfig(channels=(4,), layers_per_block=1, groups=2)
SMALL = VAE(CONFIG)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    weights.save_network(tmp_path / "vae.safetensors", SMALL, CONFIG, licence="MIT", seed=3)
    return tmp_path / "vae.safetensors"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "vae.safetensors"
    weights.save_network(path, SMALL, CONFIG, dtype, licence="MIT", seed=3, figures={"psnr": 40.5})
    words = weights.read_metadata(path)
    assert words["licence"] == "MIT" and words["seed"] == "3"
    assert words["figures"] == '{"psnr": 40.5}'
    assert weights.read_config(path, VAEConfig) == CONFIG
    before = torch.get_rng_state()
    found = weights.load_network(path, VAE, VAEConfig)
    assert torch.equal(before, torch.get_rng_state())
    assert found.config == CONFIG and not found.training
    for name, value in found.state_dict().items():
        assert value.dtype == torch.float32 and value.device.type == "cpu"
        assert torch.equal(value, SMALL.state_dict()[name].to(dtype).float()), name
    assert not any(value.requires_grad for value in found.parameters())
    assert found.encode(torch.zeros(1, 3, 4, 4)).mean.shape == (1, 4, 4, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["vae.safetensors"]


def test_a_network_is_in_float32_whatever_the_default(path: Path) -> None:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        found = weights.load_network(path, VAE, VAEConfig).state_dict()
    finally:
        torch.set_default_dtype(before)
    for name, value in SMALL.state_dict().items():
        assert torch.equal(found[name], value.half().float()), name


def test_a_file_without_our_metadata_is_read_too(path: Path) -> None:
    save_file(SMALL.state_dict(), path)
    assert weights.read_metadata(path) == {}
    assert weights.read_tensors(path, SMALL).keys() == SMALL.state_dict().keys()
    with pytest.raises(ValueError, match=r"vae.safetensors does not say what VAEConfig it belongs"):
        weights.load_network(path, VAE, VAEConfig)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    weights.save_network(str(tmp_path / "vae.safetensors"), SMALL, CONFIG)
    assert weights.load_network(str(tmp_path / "vae.safetensors"), VAE, VAEConfig).config == CONFIG
    with pytest.raises(FileNotFoundError, match="missing"):
        weights.read_tensors(str(tmp_path / "other.safetensors"), SMALL)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for call in (weights.read_metadata, lambda path: weights.load_network(path, VAE, VAEConfig)):
        with pytest.raises(
            FileNotFoundError, match=r"^weights file .*none.safetensors is missing$"
        ):
            call(tmp_path / "none.safetensors")


def flip(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 0x40]) + raw[place + 1 :]


@settings(max_examples=60)
@given(st.data())
def test_any_truncation_and_any_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = WHOLE
    place = data.draw(st.integers(0, len(whole) - 1))
    header = 8 + int.from_bytes(whole[:8], "little")
    cut = data.draw(st.booleans())
    # A flip in the header may hit the free words of the metadata, which nothing can check.
    broken = whole[:place] if cut else flip(whole, max(place, header))
    path = tmp_path_factory.getbasetemp() / "broken.safetensors"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"weights file .*broken.safetensors") as caught:
        weights.load_network(path, VAE, VAEConfig)
    assert "\n" not in str(caught.value)


def _whole() -> bytes:
    """One good file's bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vae.safetensors"
        weights.save_network(path, SMALL, CONFIG)
        return path.read_bytes()


WHOLE = _whole()


@pytest.mark.parametrize("raw", [b"", b"\n", b"not weights at all", b"\xff" * 64, b"\x00" * 64])
def test_what_is_no_weights_file_is_named(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    for call in (weights.read_metadata, lambda path: weights.read_tensors(path, SMALL)):
        with pytest.raises(ValueError, match=r"^weights file .* cannot be read: [^\n]*$"):
            call(path)


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        weights.read_metadata(tmp_path)


def test_all_that_does_not_fit_is_named_in_one_line(path: Path) -> None:
    tensors = load_file(path)
    del tensors["quant_conv.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["decoder.conv_out.bias"] = torch.zeros(7)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="does not fit VAE") as caught:
        weights.read_tensors(path, SMALL)
    assert str(caught.value).endswith(
        "does not fit VAE: missing: quant_conv.bias; unexpected: extra; "
        "misshapen: decoder.conv_out.bias is (7,), not (3,)"
    )


def test_a_long_list_is_cut_short(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)
    more = len(SMALL.state_dict()) - weights.SHOWN
    with pytest.raises(ValueError, match=f"missing: [^,]*, [^,]*, [^,]* and {more} more; unexp"):
        weights.read_tensors(path, SMALL)


def test_another_networks_file_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"vae.safetensors: UNetConfig has no field named"):
        weights.load_network(path, UNet, UNetConfig)
    with pytest.raises(ValueError, match=r"vae.safetensors: TextConfig has no field"):
        weights.read_config(path, TextConfig)


def test_the_file_is_checked_before_anything_is_allocated(path: Path) -> None:
    """A configuration that asks for 2 terabytes."""
    huge = VAEConfig(channels=(2**18,), groups=2)
    save_file(load_file(path), path, {"config": to_json(huge)})
    with pytest.raises(ValueError, match="does not fit VAE: missing"):
        weights.load_network(path, VAE, VAEConfig)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e5])
def test_numbers_that_a_file_cannot_hold_are_refused(path: Path, value: float) -> None:
    """1e5 is finite, but not in float16; what stood in the file stays."""
    before = path.read_bytes()
    wild = VAE(CONFIG)
    wild.quant_conv.bias.data[2] = value
    with pytest.raises(ValueError, match=r"not finite: quant_conv.bias$"):
        weights.save_network(path, wild, CONFIG)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    tensors = {**load_file(path), "quant_conv.bias": torch.full((8,), torch.nan)}
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"not finite: quant_conv.bias$"):
        weights.read_tensors(path, SMALL)


def failing(*_: object) -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("name", ["write_bytes", "replace"])
def test_a_write_that_fails_leaves_what_stood_there(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(Path, name, failing)
    with pytest.raises(OSError, match="the disk is full"):
        weights.save_network(path, VAE(CONFIG), CONFIG)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_embedded_networks_fit_in_sixteen_megabytes() -> None:
    parts = (TextEncoder(SHAPES_CONFIG.text), VAE(SHAPES_CONFIG.vae), UNet(SHAPES_CONFIG.unet))
    assert 2 * sum(p.numel() for network in parts for p in network.parameters()) < 16e6


def test_loading_does_not_wake_the_compiler(tmp_path: Path) -> None:
    """torch's, a second of a cold start."""
    config = TextConfig(9, 4, 1, 1, 5, 8)
    weights.save_network(tmp_path / "text.safetensors", TextEncoder(config), config)
    code = (
        "import sys; from pathlib import Path; from sd import weights, config;"
        "from sd.networks import text_encoder as t;"
        "weights.load_network(Path(sys.argv[1]), t.TextEncoder, config.TextConfig);"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "text.safetensors")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
