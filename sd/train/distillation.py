"""Distillation of the guided U-Net into one that needs few network calls.

The student learns the path of the guided probability flow between the nodes of a coarse grid
(`diffusion_math.distillation`). It starts as a copy of the U-Net, and takes no guidance: the scale
is in what it learns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffusion_math import distillation
from diffusion_math import prediction as predict
from diffusion_math.grid import trailing
from diffusion_math.loss import training_loss
from diffusion_math.noise import start_noise
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers import dpmpp_2m
from sd import weights
from sd.command_line.flags import Range, Several
from sd.config import PREDICTIONS, ModelConfig
from sd.device import placed
from sd.digest import weights_digest
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.pipeline import TextToImage
from sd.shapes.accuracy import matches_prompt
from sd.text.tokenizer import Tokenizer
from sd.train import unet as base_training
from sd.train.settings import Initial, Rate, Share, Size, Steps, Training, Warmup
from sd.train.shard import WHOLE, Shard, joined
from sd.train.source import Shapes
from sd.train.trainer import fit

SEED = 2**62
"""The first seed of the starts: far from the seeds of an evaluation, which count from 0."""

Scale: TypeAlias = Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class Distillation(Training):
    """Flags of the distillation."""

    prefix = "distilled."

    steps: Steps = 4000
    batch_size: Size = 96
    learning_rate: Rate = 5e-4
    out: Path = Path("runs/distilled")
    initial: Initial = None
    """A `.safetensors` file with initial weights; without it the U-Net's."""
    warmup: Warmup = 100
    ema: Share = 0.998
    calls: Annotated[int, Range(1, 50)] = 6
    """Network calls, that is steps, of the student."""
    substeps: Annotated[int, Range(1, 100)] = 4
    """Steps of the teacher for one of the student."""
    trajectories: Annotated[int, Range(100, 10_000_000)] = 10_000
    """Trajectories of the teacher, sampled once before the training."""
    two: Share = 0.6
    """Share of prompts with two things."""
    scales: Annotated[tuple[Scale, ...], Several(1)] = (2.0, 3.0, 1.5)
    """Guidance scales of the teacher: of each start the first one whose image shows its prompt, as
    the image reader sees it. A start without one is left out."""

    def fit_schedule(self, steps: int) -> None:
        """Raise ValueError for more steps of the teacher than the schedule's number of them."""
        if self.calls * self.substeps > steps:
            said = f"at most {steps} steps of the teacher, got {self.calls} x {self.substeps}"
            raise ValueError(f"--distilled.calls, --distilled.substeps: wanted {said}")


@dataclass(frozen=True)
class Paths:
    """The teacher's paths.

    Attributes:
        times: the student's grid, `(nodes,)`.
        x: the states at its nodes, `(paths, nodes, channel, height, width)`.
        prompts: one of each path.
    """

    times: Tensor
    x: Tensor
    prompts: Sequence[str]


@torch.no_grad()
def guided_paths(
    model: TextToImage,
    prompts: Sequence[str],
    start: Tensor,
    scale: float,
    calls: int,
    fine: int,
    bfloat16: bool = False,
) -> Tensor:
    """The guided flow from each start at the nodes of `trailing(calls)`, on the CPU.

    DPM-Solver++(2M) follows it with `fine` steps for each of these.
    """
    schedule = model.schedule
    contexts = model.encode_prompts(["", *prompts])
    denoise = model.denoiser((contexts[:1], contexts[1:]), scale)
    times = trailing(schedule, calls * fine)
    states = trajectory(dpmpp_2m(schedule), denoise, start.to(model.device), times)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        kept = [state.x.cpu() for number, state in enumerate(states) if number % fine == 0]
    return torch.stack(kept, dim=1)


def read_rightly(model: TextToImage, latents: Tensor, prompts: Sequence[str]) -> list[bool]:
    """Whether the image of each latent shows its prompt."""
    pairs = zip(model.decode(latents), prompts, strict=True)
    return [matches_prompt(np.asarray(image), prompt) for image, prompt in pairs]


def taught(
    training: Distillation, model: TextToImage, shard: Shard = WHOLE, batch: int = 100
) -> Paths:
    """The paths that the student learns, the same on every process, which share the work."""
    source = Shapes(training.seed, training.trajectories, training.two)
    rng = np.random.default_rng([training.seed, 2])
    chosen = source.chosen(rng, 0, training.trajectories)
    prompts = [source.caption(int(index), rng) for index in chosen]
    starts = range(0, len(prompts), batch)
    found: list[tuple[Tensor, list[str]] | None] = [None] * len(starts)
    first_seed = SEED + training.seed * len(prompts)
    for number in tqdm(
        range(shard.process.rank, len(starts), shard.process.count),
        unit="batch", desc="teacher", disable=None if shard.process.main else True,
    ):  # fmt: skip
        some = prompts[starts[number] : starts[number] + batch]
        seeds = range(first_seed + starts[number], first_seed + starts[number] + len(some))
        found[number] = _right(training, model, some, seeds)
    parts = [part for part in shard.collected(found) if part is not None]
    grid = trailing(model.schedule, training.calls)
    said = [prompt for _, own in parts for prompt in own]
    if not said:
        wanted = f"at which images are right, got {training.scales}: no image shows its prompt"
        raise ValueError(f"--distilled.scales: wanted scales {wanted}")
    return Paths(grid, torch.cat([x for x, _ in parts]), said)


def _right(
    training: Distillation, model: TextToImage, prompts: list[str], seeds: Sequence[int]
) -> tuple[Tensor, list[str]]:
    """The paths of some prompts whose end shows what it should, and their prompts."""
    start = start_noise(seeds, model.config.latent_shape)
    kept: list[Tensor] = []
    said: list[str] = []
    for scale in training.scales:
        x = guided_paths(
            model, prompts, start, scale, training.calls, training.substeps, training.bfloat16
        )
        right = read_rightly(model, x[:, -1], prompts)
        kept.append(x[right])
        said += [one for one, good in zip(prompts, right, strict=True) if good]
        prompts = [one for one, good in zip(prompts, right, strict=True) if not good]
        start = start[[not good for good in right]]
        if not prompts:
            break
    return torch.cat(kept), said


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
    paths = taught(training, teacher, shard)
    with torch.no_grad():
        words = text_encoder.eval()(tokenizer.encode(paths.prompts))
    student = UNet(config.unet)
    student.load_state_dict(
        unet.state_dict()
        if training.initial is None
        else weights.read_tensors(training.initial, student)
    )

    def batch(step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([training.seed, 3, step])
        chosen = rng.integers(len(paths.x), size=training.batch_size)
        node = torch.from_numpy(rng.integers(training.calls, size=training.batch_size))
        own = shard.of(training.batch_size)
        chosen, node = chosen[own], node[own]
        x = paths.x[chosen]
        rows = torch.arange(len(x))
        return (
            x[rows, node],
            x[rows, node + 1],
            paths.times[node],
            paths.times[node + 1],
            words[chosen],
        )

    loss = student_loss(teacher.schedule, config.prediction)
    settings = context(config, vae, text_encoder, unet)
    return fit(student, batch, loss, training, None, settings)


def distilled(config: ModelConfig, calls: int) -> ModelConfig:
    """The configuration of the student of a model of this one."""
    return replace(config, guidance_scale=1.0, solver="ddim", sampling_steps=calls, distilled=True)


def context(config: ModelConfig, vae: VAE, text_encoder: TextEncoder, unet: UNet) -> dict[str, str]:
    """What changes the student besides the flags of its training."""
    return {
        **base_training.context(config, vae, text_encoder),
        "unet": weights_digest(unet.state_dict().items()),
    }
