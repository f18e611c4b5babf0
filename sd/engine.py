"""Engines: the same networks, run by a compiler instead of operation by operation.

`eager` is PyTorch as it is, and the reference. `openvino` is Intel's runtime for x86 and ARM
processors; `compile` is torch.compile, with CUDA graphs on a GPU. An engine takes the U-Net and the
decoder, where nearly all the time goes. It compiles at the first call, for all sizes at once.
"""

import copy
import importlib.util
from dataclasses import replace
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor, nn

from diffusion_math.checks import require
from sd.digest import model_digest
from sd.networks.vae import Autoencoder, Latent
from sd.pipeline import TextToImage

__all__ = ["Engine", "require_engine", "with_engine"]

Engine: TypeAlias = Literal["eager", "openvino", "compile"]


def require_engine(
    engine: str, device: torch.device, dtype: torch.dtype, low_memory: bool = False
) -> None:
    """Raise ValueError where there is no such engine, or it can't have the device or dtype.

    OpenVINO needs to be installed, a CPU, and float32 or bfloat16. Only `eager` has networks that
    take turns in memory: what the others compile holds the weights.
    """
    require(engine in get_args(Engine), "engine", f"one of {get_args(Engine)}", repr(engine))
    valid = engine == "eager" or not low_memory
    require(valid, "engine", "eager beside low_memory", repr(engine))
    if engine == "openvino":
        require(device.type == "cpu", "engine", "device cpu beside openvino", str(device))
        valid = dtype in (torch.float32, torch.bfloat16)
        require(valid, "engine", "float32 or bfloat16 beside openvino", str(dtype))
        there = importlib.util.find_spec("openvino") is not None
        wanted = "openvino, by pip install diffusion-math[openvino]"
        require(there, "engine", wanted, "no such package")


def with_engine(pipeline: TextToImage, engine: str) -> TextToImage:
    """The pipeline with its U-Net and its decoder run by this engine.

    Args:
        pipeline: eager, with all that is to be merged into its weights. OpenVINO takes them over:
            the pipeline that was given is used up.
        engine: one of `Engine`.

    Raises:
        ValueError: as `require_engine` does.
    """
    require_engine(engine, pipeline.device, pipeline.dtype, pipeline.offload is not None)
    if engine == "eager":
        return pipeline
    vae, known = pipeline.vae, model_digest(pipeline)
    if engine == "compile":
        mode = "reduce-overhead" if pipeline.device.type == "cuda" else "default"
        unet, decoder = (torch.compile(one, mode=mode) for one in (pipeline.unet, _Decoding(vae)))
    else:
        unet = OpenVINO(pipeline.unet, pipeline.dtype)
        decoder = OpenVINO(_Decoding(copy.deepcopy(vae)), pipeline.vae_dtype)
    return replace(pipeline, unet=unet, vae=_Decoded(vae, decoder), digest=known)


@final
class OpenVINO(nn.Module):
    """A network compiled by OpenVINO for the CPU: float32 tensors in and out, in their order.

    The network's own arguments of the first call tell how many there are. What computes in bfloat16
    is the engine's choice; sums are in float32. Numbers of a type other than float32 are converted.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._network: list[nn.Module] = [network]  # until it is compiled; no submodule
        self._precision = "bf16" if dtype == torch.bfloat16 else "f32"
        self.request: Any = None

    def forward(self, *arguments: Tensor) -> Tensor:
        """The network's answer, in the type of the first argument."""
        plain = tuple(x.float().reshape(x.shape or (1,)).contiguous() for x in arguments)
        if self.request is None:
            self.request = _compiled(self._network.pop(), plain, self._precision)
        (answer,) = self.request.infer([x.numpy() for x in plain]).values()
        return torch.from_numpy(answer.copy()).to(arguments[0].dtype)


@torch.no_grad()
def _compiled(network: nn.Module, example: tuple[Tensor, ...], precision: str) -> Any:
    import openvino

    traced = openvino.convert_model(network.float(), example_input=example)
    words = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(traced, "CPU", words).create_infer_request()


class _Decoding(nn.Module):
    """The decoder of a VAE as a network of its own."""

    def __init__(self, vae: Autoencoder) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(z)


@final
class _Decoded:
    """A VAE with a decoder run by an engine; images are encoded as ever."""

    def __init__(self, vae: Autoencoder, decoder: nn.Module) -> None:
        self._vae, self._decoder = vae, decoder

    def encode(self, x: Tensor) -> Latent:
        return self._vae.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        answer: Tensor = self._decoder(z)
        return answer
