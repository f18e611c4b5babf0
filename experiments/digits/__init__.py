"""DDPM of 8 x 8 digits, trained in the run: C19, C20, C27-C29 on real pixels."""

from pathlib import Path
from typing import Annotated

from experiments.common.sampling_options import Scale
from sd.command_line.flags import Power, Range, Seed, Several, refuse, unused, validated


@validated
class Config:
    """Train DDPM on scikit-learn's 8 x 8 digits, and compare its samples with held-out digits.

    The network gets the label, dropped at random (C19, C27, C28), and is sampled with guidance
    (C20, C29). A classifier, trained on real digits only, reads the samples. The variational bound
    is evaluated on held-out digits (C14, C15). Pairs of small networks compare the simple loss
    weight with the bound's, seed by seed (C19). Needs scikit-learn: pip install
    "diffusion-math[digits]".
    """

    steps: Annotated[int, Range(1, 10**7)] = 3000
    """Training steps of the network, at least 1."""
    unet: bool = False
    """Train sd's class-conditional U-Net in the place of the small network of linear layers; a
    training step takes about six times as long."""
    side: Annotated[int, Power(2, 8, 32)] = 8
    """Height and width of a digit for the U-Net; at 16 and 32 every pixel is repeated."""
    width: Annotated[int, Range(4, 8192)] | None = None
    """Width of the network, at least 4 (by default 256); of the U-Net's first level, a multiple of
    8 (by default 16)."""
    blocks: Annotated[int, Range(1, 100)] | None = None
    """Residual blocks of the network (by default 3); of a level of the U-Net, 1 to 10 (by default
    1)."""
    scales: Annotated[tuple[Scale, ...], Several(0)] = (0.0, 1.0, 2.0, 3.0)
    """Guidance scales; 0 and 1 are always added."""
    sampling: Annotated[int, Range(1, 1000)] = 100
    """Steps of ancestral sampling, 1 to 1000."""
    held_out: Annotated[int, Range(20, 1697)] = 500
    """Held-out digits, 20 to 1697."""
    seeds: Annotated[int, Range(2, 1000)] = 5
    """Pairs of networks that compare the two loss weights, at least 2."""
    pair_steps: Annotated[int, Range(1, 10**7)] = 1000
    """Training steps of each of these networks, at least 1."""
    bound_steps: Annotated[int, Range(1, 900)] = 320
    """Steps of the chain whose bound is evaluated, 1 to 900."""
    seed: Seed = 0
    """Seed of the split, weights, noise and samples."""
    out: Path = Path("out/digits")
    """Folder for digits.md, digits.json and the figures."""

    def __post_init__(self) -> None:
        if not self.unet:
            unused(self, ["side"], "without --unet")
            return
        if self.width is not None and self.width % 8:
            refuse(self, "width", "a multiple of 8, with --unet")
        if self.blocks is not None and self.blocks > 10:
            refuse(self, "blocks", "at most 10, with --unet")

    @property
    def size(self) -> tuple[int, int]:
        """The width and the blocks of the network."""
        width, blocks = (16, 1) if self.unet else (256, 3)
        return self.width or width, self.blocks or blocks
