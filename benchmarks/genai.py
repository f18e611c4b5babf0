"""The U-Net of OpenVINO GenAI, a peer that needs no hub: it reads files that we write."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sd.config import ModelConfig
from sd.quantization import plain

NAMES = ("sample", "timestep", "encoder_hidden_states")


def installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("openvino_genai") is not None


def genai_unet(
    unet: nn.Module, config: ModelConfig, given: tuple[Tensor, ...], folder: Path, precision: str
) -> Callable[..., Tensor]:
    """GenAI's U-Net with these weights, in "f32" or "bf16"; its files are written into `folder`."""
    import openvino
    import openvino_genai

    model = openvino.convert_model(unet, example_input=plain(*given))
    for one, name in zip(model.inputs, NAMES, strict=True):
        one.get_tensor().set_names({name})
    openvino.save_model(model, folder / "unet" / "openvino_model.xml", compress_to_fp16=False)
    latent, channels = config.unet.in_channels, config.vae.channels
    configs = {
        "unet": {"in_channels": latent, "sample_size": config.latent_shape[-1]},
        "vae_decoder": {"latent_channels": latent, "block_out_channels": channels},
    }
    for name, values in configs.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(values), encoding="utf-8")
    peer = openvino_genai.UNet2DConditionModel(folder / "unet")
    words = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    peer.compile("CPU", **words)

    def network(*arguments: Tensor) -> Tensor:
        x, t, context = (openvino.Tensor(one.numpy()) for one in plain(*arguments))
        peer.set_hidden_states(NAMES[2], context)
        return torch.from_numpy(peer.infer(x, t).data.copy())

    return network
