"""8-bit weights and activations for a U-Net, calibrated on its own sampling trajectories.

A layer computes on integers q = round(x / s) in 8 bits, for which the scale s of its input must be
known before. It is taken from the inputs that the U-Net has on guided trajectories of a few
prompts. What loses most by 8 bits and costs little stays in floating point: see `FLOAT`.
"""

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias, final

from torch import Tensor, nn
from tqdm import tqdm

from diffusion_math.checks import require
from sd.pipeline import TextToImage
from sd.shapes.data import described
from sd.text.prompt import require_texts
from sd.text.tokenizer import Tokenizer

__all__ = ["Inputs", "calibration_prompts", "plain", "quantized", "recorded"]

Inputs: TypeAlias = tuple[Tensor, ...]
"""What a network is called with: x_t, the time and the context, all of float32."""

STEPS = 10
"""Sampling steps of a calibration prompt."""
CAPTIONS = 8
"""Captions of the training data that calibrate the embedded model."""
PROMPTS = (
    "a photograph of a lighthouse on a cliff at sunset",
    "a portrait of an old fisherman, oil on canvas",
    "a red bicycle leaning against a brick wall",
    "an isometric drawing of a small village in winter",
)
"""Prompts that calibrate any other model."""

FLOAT = (
    ".*time_emb.*",
    ".*conv_in/.*",
    ".*conv_out/.*",
    ".*conv_shortcut/.*",
    ".*attentions\\.[0-9]+/.*",
    ".*ff\\.net\\.2/.*",
)
"""Layers that stay in floating point: of the time, the first, the last, those that read the
residual stream unnormalised (shortcuts, a transformer's projections), those behind a gate."""
SMOOTH = 0.5
"""SmoothQuant's alpha (Xiao et al. 2023, arXiv:2211.10438, equation 4), in all layers."""


def calibration_prompts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Prompts for a model that is given none: `PROMPTS`, or captions of the embedded model's data.

    Raises ValueError for a vocabulary that lacks words of both.
    """
    captions = tuple(described(0, index)[1] for index in range(CAPTIONS))
    for prompts in (PROMPTS, captions):
        if not any(map(tokenizer.unknown_words, prompts)):
            return prompts
    raise ValueError("calibration: wanted prompts in the model's own words, got none")


def recorded(
    pipeline: TextToImage, prompts: Sequence[str], steps: int | None = None
) -> list[Inputs]:
    """The inputs of the U-Net in each evaluation, as prompt i is sampled from seed i.

    The model's own solver, size and guidance scale are used.

    Args:
        pipeline: an eager one.
        prompts: one or more.
        steps: the steps of each prompt; default: `STEPS`, or those of a distilled model.

    Raises ValueError for no prompts or one string, and for an inpainting model, whose inputs no
    prompt gives.
    """
    require_texts("calibration", prompts)
    require(len(prompts) > 0, "calibration", "one prompt or more", "none")
    wanted = "another than openvino-int8 with an inpainting model"
    require(not pipeline.config.reads_mask, "engine", wanted, "openvino-int8")
    if steps is None:
        steps = pipeline.config.sampling_steps if pipeline.config.distilled else STEPS
    watched = _Recorder(pipeline.unet)
    own = replace(pipeline, unet=watched)
    for seed, prompt in enumerate(tqdm(prompts, "calibrating", unit="prompt", disable=None)):
        own(prompt, seed=seed, steps=steps, progress=False)
    return watched.inputs


def quantized(model: Any, inputs: Sequence[Inputs]) -> Any:
    """An OpenVINO model whose convolutions and linear layers, but for `FLOAT`, are of 8 bits.

    Args:
        model: an `openvino.Model` of a U-Net.
        inputs: those that it is calibrated on, of the types and ranks that it takes.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else its import sends statistics of use
    import nncf
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    smooth = advanced.AdvancedSmoothQuantParameters(convolution=SMOOTH, matmul=SMOOTH)
    attention = ["ScaledDotProductAttention"]
    with contextlib.redirect_stdout(io.StringIO()):  # its own bars
        return nncf.quantize(
            model,
            nncf.Dataset([[one.numpy() for one in some] for some in inputs]),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(patterns=list(FLOAT), types=attention, validate=False),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                smooth_quant_alphas=smooth,
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


def plain(*arguments: Tensor) -> Inputs:
    """The arguments as OpenVINO takes them: contiguous, of float32, of one dimension or more."""
    return tuple(x.float().reshape(x.shape or (1,)).contiguous() for x in arguments)


@final
class _Recorder(nn.Module):
    """A U-Net that keeps what it is called with."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self._unet = unet
        self.inputs: list[Inputs] = []

    def forward(self, *arguments: Tensor) -> Tensor:
        self.inputs.append(plain(*arguments))
        answer: Tensor = self._unet(*arguments)
        return answer
