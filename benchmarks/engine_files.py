"""OpenVINO's files of Stable Diffusion v1.5's U-Net with random weights, kept between runs."""

import hashlib
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from sd import quantization
from sd.config import V15
from sd.networks import unet as unet_module
from sd.networks.unet import UNet
from sd.quantization import plain, quantized
from sd.weights import blank

CACHE = Path(__file__).resolve().parents[1] / "runs" / "benchmarks"
FLOAT32, EIGHT = "float32.xml", "int8.xml"
PACKAGES = ("nncf", "openvino", "torch")
TIMES = (999.0, 500.0, 10.0)
"""Times at which the U-Net is calibrated."""


def random_unet() -> UNet:
    """The U-Net; its weights are of one seed."""
    unet: UNet = blank(UNet, V15.unet).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in unet.named_parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 25
        weight.data.normal_(0, fan**-0.5, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weight.data.add_(1)
    return unet


def full_size_files(unet: UNet, given: tuple[Tensor, ...], cache: Path = CACHE) -> Path:
    """The folder with the U-Net's files in float32 and in 8 bits; made where it is missing.

    Its name has a digest of what the files depend on: the versions of the packages, and the code of
    the weights, the networks and the quantisation. It is made under another name, so it is there
    whole or not at all.
    """
    folder = cache / f"full_size_{_key()}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished_", dir=cache) as place:
            made = Path(place, "made")
            made.mkdir()
            _write(made, unet, given)
            made.rename(folder)
    return folder


def _key() -> str:
    digest = hashlib.sha256(repr(([version(name) for name in PACKAGES], V15.unet)).encode())
    networks = sorted(Path(unet_module.__file__).parent.glob("*.py"))
    for source in (*networks, Path(quantization.__file__), Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _write(folder: Path, unet: UNet, given: tuple[Tensor, ...]) -> None:
    import openvino

    model = openvino.convert_model(unet, example_input=plain(*given))
    openvino.save_model(model, folder / FLOAT32, compress_to_fp16=False)
    inputs = [plain(given[0], torch.tensor(t), given[2]) for t in TIMES]
    model = quantized(openvino.Core().read_model(folder / FLOAT32), inputs)
    openvino.save_model(model, folder / EIGHT, compress_to_fp16=False)
