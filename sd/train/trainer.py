"""The training loop for any module and loss: checkpoints, resuming, EMA and a log."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sd.command_line.flags import named
from sd.files import output_folder
from sd.train import fsdp
from sd.train.checkpoint import NAME, Checkpoint, Log, load_checkpoint, machine
from sd.train.settings import Training
from sd.train.shard import Shard, fair, joined

__all__ = ["NORM", "Training", "fit", "learning_rate", "rounded"]

Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result")
Loss: TypeAlias = Callable[..., dict[str, Tensor]]
Preview: TypeAlias = tuple[int, Callable[[nn.Module, int], None]]
"""A number of steps, and what is shown of the averaged weights whenever so many are done."""

NORM = 1.0
"""The norm to which a larger gradient is clipped."""


class Batches(Dataset[Any]):
    """The batch of every step, a function of the step alone: resumed runs see the same data."""

    def __init__(self, batch: Callable[[int], Any], steps: int) -> None:
        self.batch = batch
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        return self.batch(step)


class Figures(nn.Module):
    """A loss as a module whose call gives its figures, so that DDP averages its gradients."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, examples: Any, generator: torch.Generator, **part: Shard) -> Any:
        return self.loss(self.module, examples, generator, **part)


def learning_rate(training: Training, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    progress = (step - training.warmup) / max(training.steps - training.warmup, 1)
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def rounded(module: Network, state: Mapping[str, Tensor]) -> Network:
    """The network with weights rounded to float16, in which they are saved."""
    module.load_state_dict({name: value.half() for name, value in state.items()})
    return module.eval()


def fit(
    module: nn.Module,
    batch: Callable[[int], Any],
    loss: Loss,
    training: Training,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    context: Mapping[str, Any] | None = None,
    preview: Preview | None = None,
    blocks: fsdp.Blocks = (),
) -> dict[str, Tensor]:
    """Minimise `loss(module, batch(step), generator)["loss"]` with AdamW, or resume that.

    The gradient's norm is clipped to `NORM`. The average of the weights W is
    A_n = k A_(n-1) + (1 - k) W_n with k = min(ema, n / (n + 10)) after step n.
    The folder `training.out` contains `checkpoint.pt` and `log.jsonl`. A killed run resumes from
    the checkpoint, and ends with the same bits and log as an uninterrupted one.

    Where `torchrun` or `accelerate launch` started several processes, each computes its shard of
    every batch (`sd.train.shard`) and the gradients are averaged. The result is that of one process
    up to rounding, and a run may resume with another number of processes. The main process alone
    averages the weights, evaluates them, and writes the files; the folder must be visible to all.

    With `training.accumulate` = M a process computes its shard in M equal parts, one after another,
    and adds up their gradients. The result is that of the whole batch up to rounding.

    Args:
        module: trained in place, except for weights that require no gradient.
        batch: this process's shard of the examples of a step, a pure function of the step (tensors,
            or tuples of them).
        loss: figures of the batch; the one named "loss" is minimised. The generator is on the CPU
            and seeded by the step, so resumed runs and GPUs draw the same random numbers. With
            several processes, or parts, a figure is the mean of theirs. For a part it is called
            with the keyword `shard`: the place of the part in the batch.
        training: the settings.
        evaluate: figures of the averaged weights, logged with every checkpoint.
        context: what else changes the result (data, configuration), as JSON values, saved in the
            checkpoint with `training.settings()`.
        blocks: classes of the module's parts whose weights the processes share (`sd.train.fsdp`);
            without them each process holds all weights. The checkpoint is the same.
        preview: what to show of the averaged weights (module, step), and how often.

    Returns:
        The exponential moving average of the weights, as a state dict on the CPU, on every process.

    Raises:
        ValueError: a setting is out of range; or the processes can't have equal shards; or there
            are both `blocks` and `evaluate` or `preview`, which need all weights; or the
            checkpoint in the folder is damaged, or of other settings (all that differ are named);
            or another process is at work there.
        FloatingPointError: the loss is not finite.
        OSError: the folder can't be written to; the last checkpoint is whole.
    """
    for name, given in (("evaluate", evaluate), ("preview", preview)):
        if blocks and given is not None:
            raise ValueError(f"{name}: wanted none with blocks, since no process has all weights")
    training.check()
    shard = joined(training.cpu)
    fair(training, shard.process.count)
    training.out.mkdir(parents=True, exist_ok=True)
    shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
    network = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
    settings = {**training.settings(), **(context or {}), "network": network}
    tracking: dict[str, Any] = {}
    if training.tensorboard:
        tracking = {"log_with": "tensorboard", "project_dir": str(training.out)}
    accelerator = fsdp.accelerator(training.cpu, module, blocks, **tracking)
    device = accelerator.device
    if device.type == "cpu":  # of several processes' "cpu:1" torch.load knows nothing
        device = torch.device("cpu")
    layout = torch.contiguous_format if blocks else torch.channels_last  # FSDP wants the former
    measured = Figures(module.to(memory_format=layout), loss)
    optimizer = torch.optim.AdamW(
        [weight for weight in module.parameters() if weight.requires_grad],
        training.learning_rate,
        weight_decay=training.weight_decay,
    )
    measured, optimizer = accelerator.prepare(measured, optimizer)
    learned = [weight for weight in module.parameters() if weight.requires_grad]
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    log = Log(training.out / "log.jsonl", [])

    def gradients(examples: Any, step: int, part: Mapping[str, Shard]) -> dict[str, Tensor]:
        """Add the gradients of the mean over the parts of a batch; the part's figures."""
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        with torch.autocast(device.type, torch.bfloat16, enabled=training.bfloat16):
            figures = measured(examples, generator, **part)
        shown = accelerator.reduce({k: v.detach() for k, v in figures.items()}, "mean")
        if not torch.isfinite(shown["loss"]):
            raise FloatingPointError(f"loss is {float(shown['loss'])} at step {step}")
        accelerator.backward(figures["loss"] / training.accumulate)
        return shown

    def update(examples: Any, step: int) -> dict[str, Tensor]:
        """One step of the optimiser; the batch's figures."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        examples = torch.utils._pytree.tree_map(lambda x: x.to(device), examples)
        optimizer.zero_grad(set_to_none=True)
        parts = shard.parts(examples, training.accumulate)
        found = []
        for number, (some, part) in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last else accelerator.no_sync(measured):
                found.append(gradients(some, step, part))
        accelerator.clip_grad_norm_(learned, NORM)
        optimizer.step()
        if len(found) == 1:
            return found[0]
        return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

    def note(step: int, figures: Mapping[str, Any]) -> None:
        log.add(step, figures)
        if tracking:
            accelerator.log({name: float(value) for name, value in figures.items()}, step)

    here = machine(device, shard.process.count, bool(blocks))

    def numbers() -> tuple[Any, ...]:
        """Weights, optimiser and average, whole on the main process; every process calls it."""
        state = (module.state_dict(), optimizer.state_dict(), average)
        found: tuple[Any, ...] = fsdp.whole(state, shard.process.main)
        return found

    def save(step: int, state: tuple[Any, ...]) -> None:
        Checkpoint(settings, here, step, *state, log.lines).save(training.out)

    with ExitStack() as held:
        lock = output_folder.locked(training.out, named(training, "out"))
        shard.first(lambda: held.enter_context(lock))
        if shard.process.count > 1:  # 1 x 1 convolutions have two layouts with channels last
            held.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Grad strides do not match")
        start, kept = 0, load_checkpoint(training, settings, device)
        if kept is not None:
            kept.restore(module, optimizer, training.out / NAME)
            start, log.lines = kept.step, kept.log
            average = fsdp.parts(kept.average, module.state_dict())
            if kept.machine != here and shard.process.main:
                said = f"{training.out / NAME} was started on {kept.machine}, not {here}"
                warnings.warn(f"{said}: the bits of the result may differ", stacklevel=2)

        anew, kept = kept is None, None  # its tensors are freed

        def begin(state: tuple[Any, ...]) -> None:
            log.begin(anew)
            if anew:
                save(0, state)

        shard.wait()  # until all have read the checkpoint
        shard.first(partial(begin, numbers() if anew else ()))
        if tracking:  # what a killed run has shown of later steps is not shown again
            purge = {"tensorboard": {"purge_step": start + 1}}
            accelerator.init_trackers("tensorboard", init_kwargs=purge)
            held.callback(lambda: [one.finish() for one in accelerator.trackers])
        loader = DataLoader(
            Batches(batch, training.steps),
            batch_size=None,
            sampler=range(start, training.steps),
            num_workers=training.workers,
        )
        hidden = None if shard.process.main else True
        bar = tqdm(loader, initial=start, total=training.steps, unit="step", disable=hidden)
        for step, examples in enumerate(bar, start + 1):
            figures = update(examples, step - 1)
            if not (shard.process.main or blocks):
                continue
            keep = min(training.ema, step / (step + 10.0))
            with torch.no_grad():
                values = module.state_dict()
                pairs = [[fsdp.local(one[k]) for k in average] for one in (average, values)]
                torch._foreach_lerp_(*pairs, 1.0 - keep)
            due = step % training.checkpoint_every == 0 or step == training.steps
            state = numbers() if due else ()
            if not shard.process.main:
                continue
            if step % training.log_every == 0:
                bar.set_postfix({k: f"{float(v):.4f}" for k, v in figures.items()}, refresh=False)
                note(step, figures)
            if preview is not None and (step % preview[0] == 0 or step == training.steps):
                _of_the_average(partial(preview[1], step=step), module, average)
            if due:
                if evaluate is not None:
                    note(step, _of_the_average(evaluate, module, average))
                save(step, state)
    if not blocks:
        shard.received(average)
    average = fsdp.whole(average)
    return {k: v.cpu() for k, v in average.items()}


def _of_the_average(
    evaluate: Callable[[nn.Module], Result], module: nn.Module, average: Mapping[str, Tensor]
) -> Result:
    """What is found of the averaged weights; the module's weights are restored."""
    trained = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(average)
    figures = evaluate(module)
    module.load_state_dict(trained)
    return figures
