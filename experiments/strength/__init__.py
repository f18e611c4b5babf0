"""X2: image to image from one input and one prompt, at rising strengths."""

from pathlib import Path
from typing import Annotated, TypeAlias

from experiments.common.model_options import Model
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import File, Range, Seed, Several, Words, validated

PROMPT = "a large green star left of a small blue square on a white background"
Strengths: TypeAlias = Annotated[tuple[float, ...], Range(0, 1, above=True), Several(4)]


@validated
class Config:
    """X2: measure the distance from the input of image to image, against the strength.

    The input is encoded, noised to the time t = strength T, and denoised under the prompt. A
    higher strength keeps less of the input and shows more of the prompt.
    """

    image: Annotated[Path, File()] | None = None
    """The input: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF (default: a rendered image, a large
    red circle left of a small blue square)."""
    prompt: Annotated[str, Words()] = PROMPT
    """What the image should become."""
    strengths: Strengths = (0.2, 0.4, 0.6, 0.7, 0.8, 1.0)
    """Strengths in (0, 1], four or more."""
    seeds: Annotated[int, Range(2, 1000)] = 12
    """Images at each strength, at least 2; the distances are averaged over them."""
    seed: Seed = 0
    """Seed of the first of these images; the next ones count up."""
    out: Path = Path("out/strength")
    """Folder for strength.md, strength.json and the figures."""
    model: Model = Model()
    sampling: Sampling = Sampling()
