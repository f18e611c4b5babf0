"""Prompts to pictures; every PNG carries the settings that repeat it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from experiments.common.model_options import BATCH, PROMPT, Model
from experiments.common.sampling_options import Sampling
from sd.command_line.flags import File, Range, Several, Words, check, refuse, unused

MOST = 4096
"""Images of a batch."""

Side: TypeAlias = Annotated[int, Range(8, 8192)]
"""Pixels of an image's height or width."""


@dataclass(frozen=True)
class Config:
    """Turn prompts into pictures, or redraw a picture after a prompt.

    Each PNG keeps its settings in its text metadata: `--like file.png` repeats it bit for bit
    on the same machine and versions. A PNG is there, whole, as soon as its batch is drawn.
    """

    prompt: Annotated[tuple[str, ...], Words(), Several(distinct=False)] = (PROMPT,)
    """What to draw; several prompts give several pictures."""
    prompts: Annotated[Path, File()] | None = None
    """A file of prompts, one a line, in place of `--prompt`: the n-th gives 0000n.png, and those
    that are there already are kept, so that the same command goes on after a stop. Blank lines and
    lines that start with # are left out; a line may be
    {"prompt": "...", "seed": 1, "negative_prompt": "..."}."""
    negative_prompt: Annotated[str, Words(empty=True)] = ""
    """What guidance leads away from."""
    do_cfg: bool = True
    """Classifier-free guidance on or off."""
    seed: Annotated[tuple[int, ...], Range(0, 2**64 - 1), Several(distinct=False)] = (0,)
    """One seed for the first picture (the next ones count up), or one for each picture; several
    seeds with one prompt give a picture a seed."""
    batch: Annotated[int, Range(1, MOST)] = BATCH
    """Pictures drawn at once; fewer take less memory, and are on the disk sooner."""
    image: Annotated[Path, File()] | None = None
    """An image of yours to redraw, with `--strength`: PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF,
    up to 10,000 x 10,000 pixels."""
    strength: Annotated[float, Range(0, 1, above=True)] | None = None
    """How much of `--image` to redraw, in (0, 1]: 1 all of it (default: 0.8)."""
    height: Side | None = None
    """Of the pictures, in pixels (default: the model's own)."""
    width: Side | None = None
    """Of the pictures, in pixels (default: the model's own)."""
    like: Annotated[Path, File()] | None = None
    """Repeat this PNG, made by this command; all other settings are then its own, but
    `--low-memory`, and the files that you name yourself."""
    like_files: bool = False
    """With `--like`: read the files, and models of the hub, that the PNG names: weights, tokenizer,
    vae, config, lora, embedding. Without it they are shown and none is read."""
    out: Path = Path("out/generate")
    """Folder for the PNGs, generate.json and generate.md."""
    model: Model = field(default_factory=Model)
    """Which model, and where it runs."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the model samples."""

    def __post_init__(self) -> None:
        check(self)
        if self.image is None:
            unused(self, ["strength"], "without --image")
        off = "" if self.do_cfg else "with --no-do-cfg"
        if off:
            unused(self.sampling, ["guidance_scale", "guidance_interval"], off)
        if off or self.sampling.guidance_scale == 1:
            unused(self, ["negative_prompt"], off or "with --guidance-scale 1")
        if self.like is None:
            unused(self, ["like_files"], "without --like")
        if self.prompts is not None:
            unused(self, ["prompt"], "beside --prompts")
            if len(self.seed) != 1:
                refuse(self, "seed", "one with --prompts, whose lines may have their own")
