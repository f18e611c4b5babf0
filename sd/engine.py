"""Engines: run the same networks in PyTorch, OpenVINO or torch.compile.

`eager` is plain PyTorch, the reference. `openvino` is Intel's runtime for x86 and ARM processors,
`openvino-int8` the same with a U-Net of 8-bit weights and activations (see `sd.quantization`).
`compile` is torch.compile, with CUDA graphs on a GPU. An engine runs the U-Net and the decoder,
which take nearly all the time. It compiles them at the first call, for all sizes at once.
"""

import copy
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor, nn

from diffusion_math.checks import require
from sd.digest import model_digest
from sd.networks.vae import Autoencoder, Latent
from sd.pipeline import TextToImage
from sd.quantization import Inputs, calibration_prompts, plain, quantized, recorded
from sd.text.prompt import require_texts

__all__ = ["Engine", "require_engine", "with_engine"]

Engine: TypeAlias = Literal["eager", "openvino", "openvino-int8", "compile"]

PACKAGES = {"openvino": ("openvino",), "openvino-int8": ("openvino", "nncf")}
"""What an engine imports, by its name; each is of the extra of that name."""


def require_engine(
    engine: str, device: torch.device, dtype: torch.dtype, low_memory: bool = False
) -> None:
    """Raise ValueError for an unknown engine, or one without support for the device or dtype.

    OpenVINO must be installed and needs a CPU and float32 or bfloat16; `openvino-int8` needs NNCF,
    and computes in that dtype what is not of 8 bits. `compile` needs a C++ compiler on a CPU, the
    one that `CXX` names or the system's. Only `eager` supports
    offloading (`low_memory`): compiled networks hold their weights.
    """
    require(engine in get_args(Engine), "engine", f"one of {get_args(Engine)}", repr(engine))
    valid = engine == "eager" or not low_memory
    require(valid, "engine", "eager with low_memory", repr(engine))
    if engine in PACKAGES:
        require(device.type == "cpu", "engine", f"device cpu with {engine}", str(device))
        valid = dtype in (torch.float32, torch.bfloat16)
        require(valid, "engine", f"float32 or bfloat16 with {engine}", str(dtype))
        for name in PACKAGES[engine]:
            there = importlib.util.find_spec(name) is not None
            wanted = f"{name}, by pip install diffusion-math[{engine}]"
            require(there, "engine", wanted, "no such package")
    if engine == "compile" and device.type == "cpu" and os.name == "posix":
        usual = "clang++" if sys.platform == "darwin" else "g++"  # as torch.compile looks for it
        name = os.environ.get("CXX", usual)
        there = shutil.which((shlex.split(name) or [""])[0]) is not None
        require(there, "engine", "a C++ compiler with compile, CXX or the system's", repr(name))


def with_engine(pipeline: TextToImage, engine: str, calibration: Sequence[str] = ()) -> TextToImage:
    """The pipeline with its U-Net and its decoder run by this engine.

    Args:
        pipeline: an eager one, after all merges into its weights. Do not use it after `openvino`,
            which takes its weights over.
        engine: one of `Engine`.
        calibration: prompts from which `openvino-int8` samples, eagerly, to calibrate the U-Net;
            default: `sd.quantization.calibration_prompts`.

    Raises:
        ValueError: see `require_engine` and `sd.quantization.recorded`; or `calibration` with
            another engine, or one string.
    """
    require_texts("calibration", calibration)
    eight_bits = engine == "openvino-int8"
    require(eight_bits or not calibration, "calibration", "openvino-int8 with it", repr(engine))
    require_engine(engine, pipeline.device, pipeline.dtype, pipeline.offload is not None)
    if engine == "eager":
        return pipeline
    vae, known = pipeline.vae, model_digest(pipeline)
    if engine == "compile":
        mode = "reduce-overhead" if pipeline.device.type == "cuda" else "default"
        unet, decoder = (torch.compile(one, mode=mode) for one in (pipeline.unet, _Decoding(vae)))
    else:
        inputs: Sequence[Inputs] = ()
        if eight_bits:
            prompts = calibration or calibration_prompts(pipeline.tokenizer)
            inputs = recorded(pipeline, prompts)
        unet = OpenVINO(pipeline.unet, pipeline.dtype, inputs)
        decoder = OpenVINO(_Decoding(copy.deepcopy(vae)), pipeline.vae_dtype)
    return replace(pipeline, unet=unet, vae=_Decoded(vae, decoder), digest=known)


@final
class OpenVINO(nn.Module):
    """A network compiled by OpenVINO for the CPU, with float32 inputs and outputs.

    The first call compiles it for that many arguments. With bfloat16, OpenVINO chooses which
    operations use it; sums are in float32. Arguments of other types are converted to float32.
    With `inputs` it is quantised to 8 bits, calibrated on them.
    """

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, inputs: Sequence[Inputs] = ()
    ) -> None:
        super().__init__()
        # Until it is compiled; no submodule.
        self._source: tuple[Any, ...] = (network, inputs)
        self._precision = "bf16" if dtype == torch.bfloat16 else "f32"
        self.request: Any = None

    def forward(self, *arguments: Tensor) -> Tensor:
        """The output of the network, in the dtype of the first argument."""
        given = plain(*arguments)
        if self.request is None:
            self.request = _compiled(*self._source, given, self._precision)
            self._source = ()  # not before: a first call may fail, or be interrupted
        (answer,) = self.request.infer([x.numpy() for x in given]).values()
        return torch.from_numpy(answer.copy()).to(arguments[0].dtype)


@torch.no_grad()
def _compiled(network: nn.Module, inputs: Sequence[Inputs], example: Inputs, precision: str) -> Any:
    import openvino

    model = openvino.convert_model(network.float(), example_input=example)
    return compiled(quantized(model, inputs) if inputs else model, precision)


def compiled(model: Any, precision: str) -> Any:
    """An inference request of an `openvino.Model` or its file, on the CPU in "f32" or "bf16"."""
    import openvino

    words = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(model, "CPU", words).create_infer_request()


class _Decoding(nn.Module):
    """The decoder of a VAE as a module."""

    def __init__(self, vae: Autoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(z)


@final
class _Decoded:
    """A VAE whose decoder is run by an engine; its encoder stays eager."""

    def __init__(self, vae: Autoencoder, decoder: nn.Module) -> None:
        self._vae, self._decoder = vae, decoder

    def encode(self, x: Tensor) -> Latent:
        return self._vae.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        image: Tensor = self._decoder(z)
        return image
