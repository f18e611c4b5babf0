"""The teacher of a distillation: paths of the guided flow, and which of them are taught.

A path goes through the student's nodes: from each the flow leads below the next one, then noise
leads back up to it, as in `ddim(eta)`. A path whose image does not show its prompt is not taught.
Paths begin at noise, or, on policy, where the student's own steps lead. They are kept in files, so
that a killed run goes on with them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from diffusion_math.gaussian import transition
from diffusion_math.grid import trailing
from diffusion_math.noise import Noise, from_seeds, start_noise
from diffusion_math.sample import final
from diffusion_math.schedule import Schedule
from diffusion_math.solvers import ddim, dpmpp_2m
from diffusion_math.solvers.stochastic import down_time
from sd.command_line.flags import Range, Several, named
from sd.files.output_folder import write_file
from sd.pipeline import TextToImage
from sd.shapes.accuracy import matches_prompt
from sd.train.settings import Initial, Share, Training, agree
from sd.train.shard import WHOLE, Shard
from sd.train.source import Shapes

SEED = 2**62
"""The first seed of the starts: far from the seeds of an evaluation, which count from 0."""

BATCH = 100
"""Paths that are sampled at once, and lie in one file."""

FOLDER = "paths"
"""Where the paths lie in the folder of the training."""

Scale: TypeAlias = Annotated[float, Range(0, 100)]
Part: TypeAlias = tuple[Tensor, list[str]]
"""Paths with as many nodes, and the prompt of each."""


@dataclass(frozen=True)
class Teaching(Training):
    """Settings of the teacher's paths."""

    initial: Initial = None
    """A `.safetensors` file with the student's initial weights; without it the U-Net's."""
    on_policy: bool = False
    """Begin nearly half of the teacher's trajectories where the student of `--distilled.initial`
    leads, at each of its later nodes in turn."""
    calls: Annotated[int, Range(1, 50)] = 6
    """Network calls, that is steps, of the student."""
    eta: Share = 0.7
    """Of the student's solver `ddim`: 0 for steps without noise."""
    substeps: Annotated[int, Range(1, 100)] = 5
    """Steps of the teacher for one of the student."""
    trajectories: Annotated[int, Range(100, 10_000_000)] = 20_000
    """Trajectories of the teacher, sampled once before the training."""
    two: Share = 0.6
    """Share of prompts with two things."""
    scales: Annotated[tuple[Scale, ...], Several(1)] = (2.0, 3.0, 1.5)
    """Guidance scales of the teacher: of each start the first one whose image shows its prompt, as
    the image reader sees it. A start without one is left out."""

    def of_paths(self) -> dict[str, Any]:
        """The settings on which the paths depend."""
        own = {one.name for one in fields(Teaching)} - {one.name for one in fields(Training)}
        own -= set() if self.on_policy else {"initial"}
        every = self.settings()
        return {named(self, name): every[named(self, name)] for name in own | {"seed", "bfloat16"}}


@dataclass(frozen=True)
class Paths:
    """The teacher's paths.

    Attributes:
        times: of the begin and the end of each of the student's steps, `(calls, 2)`.
        x: the states there, `(paths, calls, 2, channel, height, width)`; NaN before the first.
        first: the step with which each begins, rising.
        prompts: one of each path.
    """

    times: Tensor
    x: Tensor
    first: Tensor
    prompts: Sequence[str]


def step_times(training: Teaching, schedule: Schedule) -> Tensor:
    """The times between which the flow is the student's to learn, `(calls, 2)`.

    Step i begins at a node of `trailing(calls)`, and ends at the next one with eta = 0, else below.
    """
    nodes = trailing(schedule, training.calls)
    pairs = [(t, down_time(schedule, t, s, training.eta)) for t, s in pairwise(nodes)]
    return torch.stack([torch.stack(pair) for pair in pairs])


@torch.no_grad()
def guided_path(
    training: Teaching, model: TextToImage, prompts: Sequence[str], x: Tensor, scale: float,
    noise: Noise, first: int = 0,
) -> Tensor:  # fmt: skip
    """The begins and ends of the student's steps from x on, at the begin of step `first`.

    DPM-Solver++(2M) follows the guided flow with `training.substeps` steps for one of the student.
    The result, `(batch, calls - first, 2, *event)`, is on the CPU.
    """
    schedule = model.schedule
    contexts = model.encode_prompts(["", *prompts])
    denoise = model.denoiser((contexts[:1], contexts[1:]), scale)
    nodes = trailing(schedule, training.calls)
    x, found = x.to(model.device), []
    with torch.autocast(model.device.type, torch.bfloat16, enabled=training.bfloat16):
        for number, (t, end) in enumerate(step_times(training, schedule)):
            if number < first:
                continue
            times = torch.linspace(
                float(t), float(end), training.substeps + 1, dtype=t.dtype, device="cpu"
            )
            ended = final(dpmpp_2m(schedule), denoise, x, times)
            found.append(torch.stack([x, ended], dim=1).cpu())
            s = nodes[number + 1]
            x = ended
            if end < s:
                back = transition(schedule, ended, end, s)
                x = back.sample(noise(ended, t, s))
    return torch.stack(found, dim=1)


@torch.no_grad()
def student_state(
    training: Teaching, student: TextToImage, prompts: Sequence[str], start: Tensor, noise: Noise,
    node: int,
) -> Tensor:  # fmt: skip
    """Where the student's own steps lead from the start: its state at a node, on the CPU."""
    if node == 0:
        return start
    contexts = student.encode_prompts(["", *prompts])
    denoise = student.denoiser((contexts[:1], contexts[1:]), 1.0)
    schedule, x = student.schedule, start.to(student.device)
    times = trailing(schedule, training.calls)[: node + 1]
    with torch.autocast(student.device.type, torch.bfloat16, enabled=training.bfloat16):
        return final(ddim(schedule, training.eta), denoise, x, times, noise).cpu()


def first_node(batch: int, calls: int) -> int:
    """The node at which a batch of on-policy paths begins: the first for calls of 2 calls - 1.

    The others begin at each of the other nodes in turn, so few of them have the first steps.
    """
    return max(0, batch % (2 * calls - 1) - (calls - 1))


def read_rightly(model: TextToImage, latents: Tensor, prompts: Sequence[str]) -> list[bool]:
    """Whether the image of each latent shows its prompt."""
    pairs = zip(model.decode(latents), prompts, strict=True)
    return [matches_prompt(np.asarray(image), prompt) for image, prompt in pairs]


def taught(
    training: Teaching,
    model: TextToImage,
    student: TextToImage | None = None,
    shard: Shard = WHOLE,
    context: Mapping[str, Any] | None = None,
) -> Paths:
    """The paths that the student learns, the same on every process, which share the work.

    With a student each batch of paths begins at one of its nodes (`first_node`). Each batch is a
    file in the folder `paths` of `training.out`. A file that is there is read; a damaged one is
    made anew. Raises ValueError for one that was made with other settings or another context.
    """
    source = Shapes(training.seed, training.trajectories, training.two)
    rng = np.random.default_rng([training.seed, 2])
    chosen = source.chosen(rng, 0, training.trajectories)
    prompts = [source.caption(int(index), rng) for index in chosen]
    first_seed = SEED + training.seed * len(prompts)
    settings = {**training.of_paths(), "batch": BATCH, **(context or {})}

    def sampled(number: int) -> Part:
        some = prompts[number * BATCH :][:BATCH]
        start = first_seed + number * BATCH
        seeds = range(start, start + len(some))
        x, first = start_noise(seeds, model.config.latent_shape), 0
        if student is not None:
            first = first_node(number, training.calls)
            x = student_state(training, student, some, x, from_seeds(seeds), first)
        return _right(training, model, some, x, seeds, first)

    batches = -(-len(prompts) // BATCH)
    found: list[Part | None] = [None] * batches
    (training.out / FOLDER).mkdir(parents=True, exist_ok=True)
    for number in tqdm(
        range(shard.process.rank, batches, shard.process.count),
        unit="batch", desc="teacher", disable=None if shard.process.main else True,
    ):  # fmt: skip
        path = training.out / FOLDER / f"{number:05}.safetensors"
        part = _read(path, settings)
        if part is None:
            part = sampled(number)
            words = {"settings": json.dumps(settings), "prompts": json.dumps(part[1])}
            write_file(path, save({"x": part[0]}, words))
        found[number] = part
    parts = [part for part in shard.collected(found) if part is not None]
    said = [prompt for _, own in parts for prompt in own]
    calls = training.calls
    if not any(len(x) and x.shape[1] == calls for x, _ in parts):  # none begins at the first node
        wanted = f"at which images are right, got {training.scales}: no image shows its prompt"
        raise ValueError(f"--distilled.scales: wanted scales {wanted}")
    first = torch.cat([torch.full([len(x)], calls - x.shape[1], device="cpu") for x, _ in parts])
    order = first.argsort(stable=True)
    x = torch.cat([_from_step_0(x, calls) for x, _ in parts])[order]
    times = step_times(training, model.schedule)
    return Paths(times, x, first[order], [said[place] for place in order.tolist()])


def _read(path: Path, settings: Mapping[str, Any]) -> Part | None:
    """The paths in a file, if it is whole. Raises ValueError for one of other settings."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            made = json.loads(words.get("settings", "null"))
            agree(path, made, settings, f"delete the folder {path.parent}")
            return file.get_tensor("x"), json.loads(words["prompts"])
    except SafetensorError:
        return None


def _from_step_0(x: Tensor, calls: int) -> Tensor:
    """Paths with NaN in the steps before their first."""
    return functional.pad(x, (0, 0) * 4 + (calls - x.shape[1], 0), value=torch.nan)


def _right(
    training: Teaching, model: TextToImage, prompts: list[str], x: Tensor, seeds: Sequence[int],
    first: int,
) -> Part:  # fmt: skip
    """The paths from x whose end shows what it should, and their prompts."""
    kept: list[Tensor] = []
    said: list[str] = []
    for scale in training.scales:
        path = guided_path(training, model, prompts, x, scale, from_seeds(seeds), first)
        right = read_rightly(model, path[:, -1, -1], prompts)
        kept.append(path[right])
        said += [one for one, good in zip(prompts, right, strict=True) if good]
        left = [place for place, good in enumerate(right) if not good]
        if not left:
            break
        x, prompts, seeds = x[left], [prompts[k] for k in left], [seeds[k] for k in left]
    return torch.cat(kept), said
