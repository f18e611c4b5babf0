"""`python -m sd.train --data` in small: tiny networks, three steps each."""

from collections.abc import Mapping
from pathlib import Path

from sd.train import __main__ as program
from tests.support.captioned import captioned

SIDE = 16
SAID = {f"{i}.png": [f"number {i}"] for i in range(24)}
SIZES = {
    "--networks.vae-channels": "8 8", "--networks.unet-channels": "8 8", "--networks.heads": "2",
    "--networks.text-width": "16",
}  # fmt: skip


def data(folder: Path) -> Path:
    """A folder of 24 captioned images."""
    return captioned(folder, SAID, side=SIDE)


def flags(
    data: Path | str, out: Path | str, changed: Mapping[str, str | None] | None = None
) -> list[str]:
    """A command line that trains all three networks in seconds; None leaves a flag out."""
    found: dict[str, str | None] = {"--data": str(data), "--out": str(out), "--size": str(SIDE)}
    found |= SIZES | {"--preview-every": "2"}
    for name, size in (("clip", 8), ("vae", 4), ("unet", 4)):
        own = {"steps": "3", "batch-size": str(size), "warmup": "1", "checkpoint-every": "1"}
        found |= {f"--{name}.{flag}": value for flag, value in own.items()}
    found |= changed or {}
    pairs = [(flag, value) for flag, value in found.items() if value is not None]
    words = [word for flag, value in pairs for word in (flag, *value.split())]
    return [*words, "--clip.cpu", "--vae.cpu", "--unet.cpu"]


def lora_flags(data: Path | str, out: Path | str, checkpoint: Path | str) -> list[str]:
    """A command line that trains adapters in seconds."""
    return [
        *("--data", str(data), "--out", str(out), "--checkpoint", str(checkpoint)),
        *("--lora", "4", "--adapter.steps", "3", "--adapter.warmup", "1"),
        *("--adapter.checkpoint-every", "1", "--adapter.log-every", "1", "--adapter.cpu"),
        *("--adapter.learning-rate", "0.01"),
    ]


def run(words: list[str]) -> int:
    """The exit code of the program."""
    return program.main(words)
