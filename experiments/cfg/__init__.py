"""X1: one prompt and seed with and without guidance; then accuracy and diversity against w."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from experiments.common.model_options import PROMPT, Model
from experiments.common.sampling_options import Sampling, Scale
from sd.command_line.flags import Range, Seed, Several, Words, check


@dataclass(frozen=True)
class Config:
    """X1: guidance on and off, and what its scale buys and costs.

    The same prompts and seeds are drawn at every scale w. A reader that shares no code with the
    renderer says whether all that the prompt names is there; diversity is the mean distance
    between pictures of one prompt that leaves size, place and background open.
    """

    prompt: Annotated[str, Words()] = PROMPT
    """Of the pictures that are shown with guidance on and off."""
    seed: Seed = 0
    """Of the first of them; the next ones count up."""
    shown: Annotated[int, Range(1, 100)] = 6
    """Pictures shown side by side, each a seed."""
    scales: Annotated[tuple[Scale, ...], Several(0)] = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
    """Values of w to sweep; 1 (no guidance) and the model's own are always among them."""
    count: Annotated[int, Range(1, 100_000)] = 100
    """Fresh prompts for the accuracy without guidance and at the model's own w, which the claims
    compare: this many of seen and of held-out pairs."""
    swept: Annotated[int, Range(1, 100_000)] = 40
    """The first of them, for the accuracy at every other w; all, where there are fewer."""
    diversity_prompts: Annotated[int, Range(2, 32)] = 6
    """Prompts for the diversity at each w, at least 2."""
    diversity_seeds: Annotated[int, Range(2, 1000)] = 6
    """Pictures of each of them, at least 2."""
    out: Path = Path("out/cfg")
    """Folder for cfg.md, cfg.json and the figures."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the model samples."""

    def __post_init__(self) -> None:
        check(self)
