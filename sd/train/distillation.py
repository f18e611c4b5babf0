"""Distillation of the guided U-Net into one that needs few network calls.

The student learns the path of the guided probability flow between the nodes of a coarse grid
(`diffusion_math.distillation`). It starts as a copy of the U-Net, and takes no guidance: the scale
is in what it learns. A trained student can be trained further, from states that it reaches itself,
which are not on the teacher's path (on-policy distillation).
Source: Ross et al. (arXiv:1011.0686), learning from the states that the learner meets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_math import distillation
from diffusion_math import prediction as predict
from diffusion_math.loss import training_loss
from diffusion_math.schedule import Discrete, Schedule
from sd import weights
from sd.command_line.flags import Range
from sd.config import PREDICTIONS, ModelConfig
from sd.device import placed
from sd.digest import weights_digest
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.text.tokenizer import Tokenizer
from sd.train import unet as base_training
from sd.train.settings import Rate, Share, Size, Steps, Warmup
from sd.train.shard import WHOLE, Shard, joined
from sd.train.teacher import Teaching, step_times, taught
from sd.train.trainer import fit


@dataclass(frozen=True)
class Distillation(Teaching):
    """Flags of the distillation."""

    prefix = "distilled."

    steps: Steps = 4000
    batch_size: Size = 96
    learning_rate: Rate = 5e-4
    out: Path = Path("runs/distilled")
    warmup: Warmup = 100
    ema: Share = 0.998
    sampling_eta: Annotated[float | None, Range(0, 1)] = None
    """Of `ddim` with the finished student; default: `--distilled.eta`, which it learns with."""

    @property
    def own_eta(self) -> float:
        """The eta of the finished student's solver."""
        return self.eta if self.sampling_eta is None else self.sampling_eta

    def check(self) -> None:
        """As for every training; a student that leads must be given."""
        super().check()
        if self.on_policy and self.initial is None:
            raise ValueError("--distilled.on-policy: wanted a student, --distilled.initial FILE")

    def fit_schedule(self, schedule: Discrete) -> None:
        """Raise ValueError for times that the schedule does not have: those below t = 1."""
        steps = len(schedule.betas)
        if self.calls * self.substeps > steps:
            said = f"at most {steps} steps of the teacher, got {self.calls} x {self.substeps}"
            raise ValueError(f"--distilled.calls, --distilled.substeps: wanted {said}")
        try:
            step_times(self, schedule)
        except ValueError as error:
            said = f"steps that end at t = 1 or above, got {self.calls} calls, eta = {self.eta:g}"
            raise ValueError(f"--distilled.calls, --distilled.eta: wanted {said}") from error


def student_loss(schedule: Schedule, prediction: str) -> Callable[..., dict[str, Tensor]]:
    """The loss (loss.3) of the pair (x_0, eps) that leads the student along the teacher's path.

    An example is x_t, x_s, t, s and its encoded prompt. It draws no random number.
    """

    def loss(
        unet: nn.Module,
        examples: Sequence[Tensor],
        generator: torch.Generator,
        shard: Shard = WHOLE,
    ) -> dict[str, Tensor]:
        x_t, x_s, t, s, words = examples
        x0 = distillation.target(schedule, x_t, x_s, t, s)
        eps = predict.eps_from_x0(schedule, x_t, x0, t)

        def network(x: Tensor, time: Tensor) -> Tensor:
            y: Tensor = unet(x, time, words).float()
            return y

        with base_training.attention_kernels(x_t.device):
            squared = training_loss(schedule, network, PREDICTIONS[prediction], x0, eps, t)
        return {"loss": squared.mean() / x0[0].numel()}

    return loss


def distil(
    training: Distillation,
    config: ModelConfig,
    vae: VAE,
    text_encoder: TextEncoder,
    unet: UNet,
    tokenizer: Tokenizer,
) -> dict[str, Tensor]:
    """Train the student of a U-Net, which stays as it is; the averaged weights."""
    training.check()
    shard = joined(training.cpu)
    device = base_training.device_of(training)
    parts = [placed(one, device) for one in (text_encoder, vae, unet)]
    parts[2].to(memory_format=torch.channels_last)  # which kernels run depends on it
    teacher = TextToImage(config, tokenizer, *parts, device=device)
    student = UNet(config.unet)
    student.load_state_dict(
        unet.state_dict()
        if training.initial is None
        else weights.read_tensors(training.initial, student)
    )
    leading = None
    if training.on_policy:
        own = placed(student, device).to(memory_format=torch.channels_last)
        leading = TextToImage(config, tokenizer, *parts[:2], own, device=device)
    settings = context(config, vae, text_encoder, unet)
    paths = taught(training, teacher, leading, shard, settings)
    having = torch.searchsorted(
        paths.first, torch.arange(training.calls, device="cpu"), right=True
    ).numpy()
    with torch.no_grad():
        words = text_encoder.eval()(tokenizer.encode(paths.prompts))

    def batch(step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([training.seed, 3, step])
        chosen = rng.integers(len(paths.x), size=training.batch_size)
        number = rng.integers(training.calls, size=training.batch_size)
        chosen = chosen * having[number] // len(paths.x)  # a path that has the step
        own = shard.of(training.batch_size)
        chosen, number = chosen[own], number[own]
        x_t, x_s = paths.x[chosen, number].unbind(1)
        t, s = paths.times[number].unbind(1)
        return x_t, x_s, t, s, words[chosen]

    loss = student_loss(teacher.schedule, config.prediction)
    return fit(student, batch, loss, training, None, settings)


def distilled(config: ModelConfig, calls: int, eta: float) -> ModelConfig:
    """The configuration of the student of a model of this one."""
    own = {"solver": "ddim", "eta": eta, "sampling_steps": calls, "distilled": True}
    return replace(config, guidance_scale=1.0, **own)


def context(config: ModelConfig, vae: VAE, text_encoder: TextEncoder, unet: UNet) -> dict[str, str]:
    """What changes the student besides the flags of its training."""
    return {
        **base_training.context(config, vae, text_encoder),
        "unet": weights_digest(unet.state_dict().items()),
    }
