"""THE training loop: any module, any loss; checkpoints, resume, EMA, a log of figures."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm


@dataclass(frozen=True)
class Training:
    """How to train: every field is a flag of `python -m sd.train`."""

    steps: int
    """Optimiser steps."""
    batch_size: int
    """Examples a step."""
    learning_rate: float
    """Peak of AdamW's learning rate; after the warm-up it decays to zero as half a cosine."""
    out: Path
    """Folder of checkpoints, log and result."""
    warmup: int = 200
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: int = 0
    """Of the initial weights, the data and every random number."""
    checkpoint_every: int = 500
    """Steps between checkpoints; a killed run resumes from the last one."""
    log_every: int = 50
    """Steps between lines of `log.jsonl`."""
    workers: int = 0
    """Processes that make batches (0: this one)."""
    bfloat16: bool = True
    """Run the matrix products in bfloat16 (weights stay float32)."""
    cpu: bool = False
    """Stay on the CPU even where there is a GPU."""


class Batches(Dataset[Any]):
    """The batch of every step, a function of the step alone: a resumed run sees the same data."""

    def __init__(self, batch: Callable[[int], Any], steps: int) -> None:
        self.batch = batch
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        return self.batch(step)


def learning_rate(training: Training, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    progress = (step - training.warmup) / max(training.steps - training.warmup, 1)
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def fit(
    module: nn.Module,
    batch: Callable[[int], Any],
    loss: Callable[[nn.Module, Any, torch.Generator], dict[str, Tensor]],
    training: Training,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> dict[str, Tensor]:
    """Minimise `loss(module, batch(step), generator)["loss"]` with AdamW.

    Args:
        module: trained in place, but for the weights that require no gradient.
        batch: the step's examples, a pure function of the step (tensors, or tuples of them).
        loss: figures of the batch; the one named "loss" is minimised. The generator is seeded
            from the step, on the CPU, so that a resumed run and a GPU draw the same numbers.
        training: the settings.
        evaluate: figures of the averaged weights, logged with every checkpoint.

    Returns:
        The exponential moving average of the weights, as a state dict on the CPU.
    """
    training.out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(cpu=training.cpu)
    learned = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, training.learning_rate, weight_decay=training.weight_decay
    )
    model, optimizer = accelerator.prepare(module.to(memory_format=torch.channels_last), optimizer)
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    start = 0
    checkpoint = training.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=accelerator.device, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]

    loader = DataLoader(
        Batches(batch, training.steps),
        batch_size=None,
        sampler=range(start, training.steps),
        num_workers=training.workers,
    )
    bar = tqdm(loader, initial=start, total=training.steps, unit="step", mininterval=2.0)

    def record(step: int, figures: Mapping[str, Any]) -> None:
        line = json.dumps({"step": step, **{k: float(v) for k, v in figures.items()}})
        with (training.out / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    step = start
    for examples in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        examples = torch.utils._pytree.tree_map(lambda x: x.to(accelerator.device), examples)
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=training.bfloat16):
            figures = loss(model, examples, generator)
        if not torch.isfinite(figures["loss"]):
            raise FloatingPointError(f"loss is {float(figures['loss'].detach())} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(figures["loss"])
        accelerator.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        step += 1
        keep = min(training.ema, step / (step + 10.0))
        with torch.no_grad():
            values = module.state_dict()
            torch._foreach_lerp_(list(average.values()), [values[k] for k in average], 1.0 - keep)
        if step % training.log_every == 0:
            figures = {k: v.detach() for k, v in figures.items()}
            bar.set_postfix({k: f"{float(v):.4f}" for k, v in figures.items()}, refresh=False)
            record(step, figures)
        if step % training.checkpoint_every == 0 or step == training.steps:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            save(checkpoint, {**state, "average": average, "step": step})
            if evaluate is not None:
                trained = {k: v.clone() for k, v in module.state_dict().items()}
                module.load_state_dict(average)
                record(step, evaluate(module))
                module.load_state_dict(trained)
    return {k: v.cpu() for k, v in average.items()}
