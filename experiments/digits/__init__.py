"""C19, C20, C27-C29 on real pixels: DDPM of 8 x 8 digits, trained from nothing in the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from experiments.common.sampling_options import Scale
from sd.command_line.flags import Range, Seed, Several, check


@dataclass(frozen=True)
class Config:
    """DDPM on scikit-learn's 8 x 8 digits, with classes and guidance, against held-out digits.

    One network of pixels, time and label is trained with its label dropped at random (C19, C27,
    C28), sampled with guidance (C20, C29), asked for the bound on held-out digits (C14, C15), and
    judged by a classifier that was trained on real digits alone. Then several small networks are
    trained with the simple weight and with the bound's own, seed by seed (C19). Needs
    scikit-learn: pip install "diffusion-math[digits]".
    """

    steps: Annotated[int, Range(1, 10**7)] = 3000
    """Updates of the network, at least 1."""
    width: Annotated[int, Range(4, 8192)] = 256
    """Its width, at least 4."""
    blocks: Annotated[int, Range(1, 100)] = 3
    """Its residual layers, at least 1."""
    scales: Annotated[tuple[Scale, ...], Several(0)] = (0.0, 1.0, 2.0, 3.0)
    """Guidance scales; 0 and 1 are always among them."""
    sampling: Annotated[int, Range(1, 1000)] = 100
    """Steps of ancestral sampling, 1 to 1000."""
    held_out: Annotated[int, Range(20, 1697)] = 500
    """Digits that no training sees, 20 to 1697."""
    seeds: Annotated[int, Range(2, 1000)] = 5
    """Pairs of networks that compare the two weights, at least 2."""
    pair_steps: Annotated[int, Range(1, 10**7)] = 1000
    """Updates of each of them, at least 1."""
    bound_steps: Annotated[int, Range(1, 900)] = 320
    """Steps of the chain of the bound, 1 to 900."""
    seed: Seed = 0
    """Of the split, weights, noise and draws."""
    out: Path = Path("out/digits")
    """Folder for digits.md, digits.json and the figures."""

    def __post_init__(self) -> None:
        check(self)
