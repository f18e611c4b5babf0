"""Few network calls: the distilled model beside the guided one, with as many calls and more."""

from pathlib import Path
from typing import Annotated

from sd.command_line.flags import Range, Seed, Several, validated


@validated
class Config:
    """Measure prompt accuracy against network calls, of the guided model and the distilled one.

    The guided model makes two calls a step of DPM-Solver++(2M), the distilled one makes one a step
    of DDIM. Prompts are outside the training data: half of them name pairs of colour and shape
    that were seen in training, half name one that was not. All models have the same prompts and
    seeds. A rule-based image reader says whether an image shows its prompt.
    """

    count: Annotated[int, Range(4, 100_000)] = 200
    """Prompts of each kind, at least 4."""
    steps: Annotated[tuple[int, ...], Range(1, 1000), Several(1, rising=True)] = (3, 6, 12, 25)
    """Steps of the guided model, rising."""
    seed: Seed = 0
    """Seed of the first image; the next ones count up."""
    out: Path = Path("out/few-steps")
    """Folder for few-steps.md, few-steps.json and the figures."""
