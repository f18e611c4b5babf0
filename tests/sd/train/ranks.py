"""Trainings by one and by two processes: `python -m tests.sd.train.ranks FOLDER`.

Every process is a fork of this one, which has loaded all that it needs. Prints a line of JSON: for
each network the difference of two processes from one, right and with each mistake.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor

from diffusion_math.schedule import Discrete
from sd.networks.text_encoder import TextEncoder
from sd.networks.vae import VAE
from sd.text.tokenizer import Tokenizer
from sd.train import clip, trainer, unet, vae
from sd.train.settings import Training
from sd.train.shard import WHOLE, Shard
from tests.support.tiny_training import CONFIG

STEPS = 4
KINDS: dict[str, Callable[..., Training]] = {
    "clip": clip.CLIPTraining, "vae": vae.VAETraining, "unet": unet.UNetTraining,
    "fsdp": partial(unet.UNetTraining, fsdp=True),
}  # fmt: skip


def train(kind: str, folder: Path, every: int, parts: int = 1) -> dict[str, Tensor]:
    """Four steps of a tiny network."""
    more = {"latents": 250} if kind in ("unet", "fsdp") else {}
    training: Any = KINDS[kind](
        steps=STEPS, batch_size=8, out=folder, warmup=1, checkpoint_every=every, log_every=1,
        bfloat16=False, accumulate=parts, cpu=True, **more,
    )  # fmt: skip
    if kind == "clip":
        return clip.train_clip(training, CONFIG.text, evaluation=1)[0]
    if kind == "vae":
        return vae.train_vae(training, CONFIG.vae)
    torch.manual_seed(5)
    networks = VAE(CONFIG.vae), TextEncoder(CONFIG.text)
    schedule = Discrete.scaled_linear(CONFIG.steps)
    return unet.train_unet(training, CONFIG, *networks, Tokenizer.embedded(24), schedule)


def local_loss(module: Any, batch: Any, generator: Any, shard: Shard = WHOLE) -> dict[str, Tensor]:
    """CLIP's loss over the pairs of one process alone."""
    images, tokens, true = batch
    own = shard.of(len(true))
    value, matched = clip.info_nce(module(images, tokens), true[own, own])
    return {"loss": value, "matched": matched}


def unsynchronised(self: Any, module: Any, optimizer: Any) -> tuple[Any, Any]:
    """`Accelerator.prepare` without the averages of gradients."""
    return module, optimizer


Wrong: TypeAlias = tuple[Any, str, Any]
"""A mistake: what stands in the place of an object's attribute."""

MISTAKES: dict[str, tuple[str, Wrong]] = {
    "each process has the same examples": (
        "vae", (Shard, "of", lambda self, size: slice(0, size // self.process.count))),
    "each process draws the same numbers": (
        "unet", (Shard, "drawn", lambda self, sample, count: sample(count))),
    "gradients are not averaged": ("vae", (Accelerator, "prepare", unsynchronised)),
    "CLIP compares the own pairs alone": ("clip", (clip, "loss", local_loss)),
    "CLIP's gradients are those of one process": (
        "clip", (Shard, "gathered", lambda self, x, real=Shard.gathered:
            real(self, x.detach() + (x - x.detach()) / self.process.count))),
}  # fmt: skip


def stop_at(step: int) -> None:
    """Interrupt this process before a step."""

    def batch(self: Any, index: int, real: Any = trainer.Batches.__getitem__) -> Any:
        if index == step:
            os._exit(0)
        return real(self, index)

    trainer.Batches.__getitem__ = batch  # type: ignore[method-assign]


def together(count: int, work: Callable[[int], object]) -> list[int]:
    """The exit codes of that many forks, each with the variables of a launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }  # fmt: skip
            code = 1
            try:
                work(rank)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def run(
    folder: Path,
    kind: str,
    count: int,
    wrong: Wrong | None = None,
    stop: int = STEPS,
    every: int = STEPS,
) -> None:
    """Train, or go on with it, until a step; every process leaves its result."""

    def work(rank: int) -> None:
        if wrong is not None:
            setattr(*wrong)
        stop_at(stop)
        torch.save(train(kind, folder, every), folder / f"result{rank}.pt")

    codes = together(count, work)
    assert codes == count * [0], (kind, wrong, codes)


def losses(folder: Path) -> list[float]:
    """The losses of the steps in the log."""
    lines = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def momentum(folder: Path) -> Tensor:
    """AdamW's mean gradient in the checkpoint, as one vector."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
    return torch.cat([state[k]["exp_avg"].flatten() for k in sorted(state)])


def apart(found: Path, wanted: Path) -> float:
    """The relative difference of the mean gradients of two trainings, or of their losses."""
    a, b = momentum(found), momentum(wanted)
    figures = [abs(x / y - 1) for x, y in zip(losses(found), losses(wanted), strict=True)]
    return max(float((a - b).norm() / b.norm()), *figures)


def same(folder: Path, names: Sequence[str]) -> bool:
    """Whether results have the same bits."""
    first, *others = (torch.load(folder / name) for name in names)
    return all(torch.equal(one[key], first[key]) for one in others for key in first)


def main(root: Path) -> dict[str, Any]:
    """All that is to be seen."""
    found: dict[str, Any] = {"right": {}, "wrong": {}, "alike": {}}
    for kind in ("clip", "vae", "unet"):
        run(root / f"{kind}1", kind, 1)
        run(root / f"{kind}2", kind, 2)
        found["right"][kind] = apart(root / f"{kind}2", root / f"{kind}1")
        found["alike"][kind] = same(root / f"{kind}2", ("result0.pt", "result1.pt"))
    for name, (kind, wrong) in MISTAKES.items():
        run(root / name, kind, 2, wrong)
        found["wrong"][name] = apart(root / name, root / f"{kind}1")
    for folder, counts in (("212", (2, 1, 2)), ("222", (2, 2, 2))):
        for count, stop in zip(counts, (1, 3, STEPS), strict=True):
            run(root / folder, "vae", count, stop=stop, every=1)
        found[folder] = apart(root / folder, root / "vae1")
    found["exact"] = same(root, ("222/result0.pt", "vae2/result0.pt"))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
