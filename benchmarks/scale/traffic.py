"""Trains a U-Net by the processes of `torchrun` and writes what each sends and holds.

`torchrun --nproc_per_node 2 -m benchmarks.scale.traffic FOLDER`; the files are FOLDER/RANK.json.
"""

import gc
import json
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sd.config import SHAPES_CONFIG
from sd.networks.unet import UNet
from sd.train.fsdp import BLOCKS, local
from sd.train.shard import joined, left
from sd.train.trainer import fit
from sd.train.unet import UNetTraining

CONFIG = replace(SHAPES_CONFIG.unet, channels=(128, 256))
FEW, MORE = 2, 6
"""Numbers of steps: what a run sends besides its steps is in both."""
BATCH = 8
"""Examples of a step, of all processes together."""
GLOO_SCATTER = 2
"""What gloo's reduce-scatter sends over that of a ring: it reduces all on every process."""


def sent() -> int:
    """Bytes that this process has written, to sockets and files (Linux)."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


def held() -> int:
    """Bytes of the tensors that Python holds; a storage counts once."""
    gc.collect()
    sizes: dict[int, int] = {}
    for one in gc.get_objects():
        if not issubclass(type(one), Tensor):  # isinstance would ask proxies
            continue
        for x in (one, one.grad if one.is_leaf else None):
            if x is not None:
                storage = local(x.detach()).untyped_storage()
                sizes[storage._cdata] = storage.nbytes()
    return sum(sizes.values())


def train(folder: Path, steps: int, sharded: bool) -> dict[str, Any]:
    """A few steps on noise.

    Bytes sent by the whole run, bytes held when the last step begins, least CPU seconds of a step.
    """
    shard = joined(cpu=True)
    training = UNetTraining(
        steps=steps, batch_size=BATCH, warmup=1, out=folder / f"{steps}{sharded}",
        log_every=10**6, checkpoint_every=10**6, cpu=True, fsdp=sharded, bfloat16=False,
    )  # fmt: skip
    torch.manual_seed(0)
    network = UNet(CONFIG)
    holds: list[int] = []
    clock: list[float] = []
    own = BATCH // shard.process.count
    generator = torch.Generator().manual_seed(shard.process.rank)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        if step == steps - 1:  # the gradients of the step before are still there
            holds.append(held())
        x = torch.randn(own, CONFIG.in_channels, 8, 8, generator=generator)
        return x, torch.randn(own, 4, CONFIG.context_width, generator=generator)

    def loss(module: nn.Module, examples: Any, _: torch.Generator) -> dict[str, Tensor]:
        clock.append(time.process_time())
        x, context = examples
        return {"loss": module(x, torch.zeros(len(x)), context).square().mean()}

    shard.wait()
    before = sent()
    fit(network, batch, loss, training, blocks=BLOCKS if sharded else ())
    shard.wait()
    pace = min(b - a for a, b in pairwise(clock[:-1])) if len(clock) > FEW else 0.0
    return {"sent": sent() - before, "held": holds[-1], "cpu": pace}


def main(folder: Path) -> None:
    """Train data parallel and with FSDP, for few and for more steps."""
    shard = joined(cpu=True)
    found: dict[str, Any] = {}
    for name, sharded in (("replicated", False), ("sharded", True)):
        if sharded and shard.process.count == 1:
            continue
        few, more = (train(folder, steps, sharded) for steps in (FEW, MORE))
        sent = (more["sent"] - few["sent"]) / (MORE - FEW)
        found[name] = {"sent": sent, "held": more["held"], "cpu": more["cpu"]}
    if shard.process.count == 1:
        file = folder / f"{MORE}False" / "checkpoint.pt"
        found["checkpoint"] = file.stat().st_size
    path = folder / f"{shard.process.rank}.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    left()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
