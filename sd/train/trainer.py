"""The training loop for any module and loss: checkpoints, resuming, EMA and a log."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sd.command_line.flags import named
from sd.files import output_folder
from sd.train.checkpoint import NAME, Checkpoint, Log, load_checkpoint, machine
from sd.train.settings import Training

__all__ = ["NORM", "Training", "fit", "learning_rate", "rounded"]

Network = TypeVar("Network", bound=nn.Module)

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
    loss: Callable[[nn.Module, Any, torch.Generator], dict[str, Tensor]],
    training: Training,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    context: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Minimise `loss(module, batch(step), generator)["loss"]` with AdamW, or resume that.

    The gradient's norm is clipped to `NORM`. The average of the weights W is
    A_n = k A_(n-1) + (1 - k) W_n with k = min(ema, n / (n + 10)) after step n.
    The folder `training.out` contains `checkpoint.pt` and `log.jsonl`. A killed run resumes from
    the checkpoint, and ends with the same bits and log as an uninterrupted one.

    Args:
        module: trained in place, except for weights that require no gradient.
        batch: the examples of a step, a pure function of the step (tensors, or tuples of them).
        loss: figures of the batch; the one named "loss" is minimised. The generator is on the CPU
            and seeded by the step, so resumed runs and GPUs draw the same random numbers.
        training: the settings.
        evaluate: figures of the averaged weights, logged with every checkpoint.
        context: what else changes the result (data, configuration), as JSON values, saved in the
            checkpoint with `training.settings()`.

    Returns:
        The exponential moving average of the weights, as a state dict on the CPU.

    Raises:
        ValueError: a setting is out of range; or the checkpoint in the folder is damaged, or of
            other settings (all that differ are named); or another process is at work there.
        FloatingPointError: the loss is not finite.
        OSError: the folder can't be written to; the last checkpoint is whole.
    """
    from accelerate import Accelerator

    training.check()
    training.out.mkdir(parents=True, exist_ok=True)
    shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
    network = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
    settings = {**training.settings(), **(context or {}), "network": network}
    accelerator = Accelerator(cpu=training.cpu)
    device = accelerator.device
    learned = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        learned, training.learning_rate, weight_decay=training.weight_decay
    )
    model, optimizer = accelerator.prepare(module.to(memory_format=torch.channels_last), optimizer)
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    log = Log(training.out / "log.jsonl", [])

    def update(examples: Any, step: int) -> dict[str, Tensor]:
        """One step of the optimiser; the batch's figures."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        examples = torch.utils._pytree.tree_map(lambda x: x.to(device), examples)
        with torch.autocast(device.type, torch.bfloat16, enabled=training.bfloat16):
            figures = loss(model, examples, generator)
        if not torch.isfinite(figures["loss"]):
            raise FloatingPointError(f"loss is {float(figures['loss'].detach())} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(figures["loss"])
        accelerator.clip_grad_norm_(learned, NORM)
        optimizer.step()
        return {name: value.detach() for name, value in figures.items()}

    def save(step: int) -> None:
        numbers = (module.state_dict(), optimizer.state_dict(), average)
        Checkpoint(settings, machine(device), step, *numbers, log.lines).save(training.out)

    with output_folder.locked(training.out, named(training, "out")):
        start, kept = 0, load_checkpoint(training, settings, device)
        if kept is not None:
            kept.restore(module, optimizer, training.out / NAME)
            start, average, log.lines = kept.step, kept.average, kept.log
            if kept.machine != machine(device):
                said = f"{training.out / NAME} was started on {kept.machine}, not {machine(device)}"
                warnings.warn(f"{said}: the bits of the result may differ", stacklevel=2)
        log.begin(anew=kept is None)
        if kept is None:
            save(0)
        loader = DataLoader(
            Batches(batch, training.steps),
            batch_size=None,
            sampler=range(start, training.steps),
            num_workers=training.workers,
        )
        bar = tqdm(loader, initial=start, total=training.steps, unit="step", disable=None)
        for step, examples in enumerate(bar, start + 1):
            figures = update(examples, step - 1)
            keep = min(training.ema, step / (step + 10.0))
            with torch.no_grad():
                values = module.state_dict()
                pairs = list(average.values()), [values[k] for k in average]
                torch._foreach_lerp_(*pairs, 1.0 - keep)
            if step % training.log_every == 0:
                bar.set_postfix({k: f"{float(v):.4f}" for k, v in figures.items()}, refresh=False)
                log.add(step, figures)
            if step % training.checkpoint_every == 0 or step == training.steps:
                if evaluate is not None:
                    log.add(step, _of_the_average(evaluate, module, average))
                save(step)
    return {k: v.cpu() for k, v in average.items()}


def _of_the_average(
    evaluate: Callable[[nn.Module], dict[str, float]],
    module: nn.Module,
    average: Mapping[str, Tensor],
) -> dict[str, float]:
    """The figures of the averaged weights; the module's weights are restored."""
    trained = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(average)
    figures = evaluate(module)
    module.load_state_dict(trained)
    return figures
