"""X2: one picture redrawn under one prompt at rising strengths."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from experiments.common.model_options import Model
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import File, Range, Seed, Several, Words, check

PROMPT = "a large green star left of a small blue square on a white background"


@dataclass(frozen=True)
class Config:
    """X2: image to image at four or more strengths, with the measured distance from the input.

    The input is encoded, noised to the level that `strength` chooses and denoised under the
    prompt: the higher, the more of the prompt and the less of the input.
    """

    image: Annotated[Path, File()] | None = None
    """An image of yours: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF (default: a rendered one, a
    large red circle left of a small blue square)."""
    prompt: Annotated[str, Words()] = PROMPT
    """What the picture should become."""
    strengths: Annotated[tuple[float, ...], Range(0, 1, above=True), Several(4)] = (
        0.2,
        0.4,
        0.6,
        0.7,
        0.8,
        1.0,
    )
    """Strengths in (0, 1], four or more; they are shown in rising order."""
    seeds: Annotated[int, Range(2, 1000)] = 12
    """Pictures at each strength that the distances are averaged over, at least 2."""
    seed: Seed = 0
    """Of the first of them, which is the one shown; the next ones count up."""
    out: Path = Path("out/strength")
    """Folder for strength.md, strength.json and the figures."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the model samples."""

    def __post_init__(self) -> None:
        check(self)
