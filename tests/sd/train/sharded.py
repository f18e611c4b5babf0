"""Trainings of a U-Net with sharded weights: `python -m tests.sd.train.sharded FOLDER`.

Prints a line of JSON: the differences of two processes that share the weights from one process,
right, with each mistake and resumed; and what each of two processes holds of Stable Diffusion v1.5.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import nn
from torch.distributed.fsdp import FSDPModule

from sd.config import V15
from sd.networks.unet import UNet
from sd.train import fsdp, trainer
from sd.train.shard import Shard, joined
from tests.sd.train.ranks import STEPS, Wrong, apart, run, same, together


def idle(*given: Any) -> None:
    """Average nothing."""


def own_norm(self: Any, weights: list[nn.Parameter], most: float) -> None:
    """Clip by the norm of the own part of the gradient."""
    gradients = [fsdp.local(weight.grad) for weight in weights if weight.grad is not None]
    norm = torch.stack([one.norm() for one in gradients]).norm()
    torch._foreach_mul_(gradients, float((most / norm).clamp(max=1.0)))


MISTAKES: dict[str, Wrong] = {
    "each process has the same examples": (
        Shard, "of", lambda self, size: slice(0, size // self.process.count)),
    "the main process alone averages its part": (
        trainer.torch, "_foreach_lerp_", idle),
    "each process clips by the norm of its part": (Accelerator, "clip_grad_norm_", own_norm),
}  # fmt: skip


def off(found: Path, wanted: Path) -> float:
    """The largest relative difference of losses, mean gradients and averaged weights."""
    files = found / "result0.pt", wanted / "result0.pt", wanted / "start.pt"
    a, b, start = (
        torch.cat([one.flatten() for one in torch.load(file, weights_only=True).values()])
        for file in files
    )
    return max(apart(found, wanted), float((a - b).norm() / (b - start).norm()))


def full_size(rank: int, folder: Path) -> None:
    """What this process holds of the U-Net of Stable Diffusion v1.5; its weights are nowhere."""
    joined(cpu=True)
    with torch.device("meta"):
        unet = UNet(V15.unet)
    blocks = [one for one in unet.modules() if isinstance(one, fsdp.BLOCKS)]
    kinds = sorted({type(one).__name__ for one in blocks})
    total = sum(weight.numel() for weight in unet.parameters())
    largest = max(sum(w.numel() for w in one.parameters()) for one in blocks)
    unet = fsdp2_prepare_model(fsdp.accelerator(True, unet, fsdp.BLOCKS), unet)
    record = {
        "kinds": kinds, "blocks": len(blocks), "total": total, "largest": largest,
        "sharded": sum(isinstance(one, FSDPModule) for one in blocks),
        "own": sum(fsdp.local(weight).numel() for weight in unet.parameters()),
    }  # fmt: skip
    (folder / f"{rank}.json").write_text(json.dumps(record), encoding="utf-8")


def main(root: Path) -> dict[str, Any]:
    """All that is to be seen; every gradient is clipped."""
    trainer.NORM = 1e-3
    one = root / "1"
    run(one, "unet", 1, stop=0)
    torch.save(torch.load(one / "checkpoint.pt", weights_only=True)["average"], one / "start.pt")
    run(one, "unet", 1)
    run(root / "2", "fsdp", 2)
    found: dict[str, Any] = {"right": off(root / "2", one), "wrong": {}}
    found["alike"] = same(root / "2", ("result0.pt", "result1.pt"))
    for number, name in enumerate(MISTAKES):
        run(root / f"wrong{number}", "fsdp", 2, wrong=MISTAKES[name])
        found["wrong"][name] = off(root / f"wrong{number}", one)
    for folder, kinds in (("212", ("fsdp", "unet", "fsdp")), ("222", 3 * ("fsdp",))):
        for kind, stop in zip(kinds, (1, 3, STEPS), strict=True):
            run(root / folder, kind, 2 if kind == "fsdp" else 1, stop=stop, every=1)
        found[folder] = off(root / folder, one)
    found["exact"] = same(root, ("222/result0.pt", "2/result0.pt"))
    assert together(2, lambda rank: full_size(rank, root)) == [0, 0]
    found["v1.5"] = [json.loads((root / f"{rank}.json").read_bytes()) for rank in range(2)]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
