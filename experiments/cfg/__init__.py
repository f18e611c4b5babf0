"""X1: classifier-free guidance on and off; accuracy and diversity against the guidance scale."""

from pathlib import Path
from typing import Annotated

from experiments.common.model_options import PROMPT, Model
from experiments.common.sampling_options import Sampling, Scale
from sd.command_line.flags import Range, Seed, Several, Words, validated


@validated
class Config:
    """X1: measure accuracy and diversity against the guidance scale w.

    The model samples the same prompts and seeds at every w. A rule-based image reader, which
    shares no code with the renderer, checks each image against its prompt. Diversity is the mean
    RMS distance between images of one prompt that leaves size, place and background open.
    """

    prompt: Annotated[str, Words()] = PROMPT
    """Prompt of the images that are shown with guidance on and off."""
    seed: Seed = 0
    """Seed of the first of these images; the next ones count up."""
    shown: Annotated[int, Range(1, 100)] = 6
    """Number of these images, one a seed."""
    scales: Annotated[tuple[Scale, ...], Several(0)] = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
    """Guidance scales w to sweep; 1 (no guidance) and the model's own are always added."""
    count: Annotated[int, Range(1, 100_000)] = 100
    """Prompts for the accuracy at w = 1 and at the model's own w: this many with seen pairs of
    color and shape, and this many with held-out pairs."""
    swept: Annotated[int, Range(1, 100_000)] = 40
    """Prompts of each kind for the accuracy at every other w, at most `--count`."""
    diversity_prompts: Annotated[int, Range(2, 32)] = 6
    """Prompts for the diversity at each w, at least 2."""
    diversity_seeds: Annotated[int, Range(2, 1000)] = 6
    """Images of each of these prompts, at least 2."""
    out: Path = Path("out/cfg")
    """Folder for cfg.md, cfg.json and the figures."""
    model: Model = Model()
    sampling: Sampling = Sampling()
