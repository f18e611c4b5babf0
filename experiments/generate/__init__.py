"""Prompts to images; every PNG carries the settings that repeat it."""

from pathlib import Path
from typing import Annotated, TypeAlias

from tyro.conf import arg

from experiments.common.model_options import BATCH, NONE, OWN, PROMPT, Model
from experiments.common.sampling_options import Sampling
from experiments.generate.control_options import Controls
from sd.command_line.flags import File, Range, Several, Words, default, refuse, unused, validated

MOST = 4096
"""Images of a batch."""

Side: TypeAlias = Annotated[int, Range(8, 8192)]
"""Pixels of an image's height or width."""


@validated
class Config:
    """Generate images from prompts, change an image by a prompt, or repaint a part of it."""

    prompt: Annotated[tuple[str, ...], Words(), Several(distinct=False), default("an example")] = (
        PROMPT,
    )
    """What to generate, one image for each."""
    prompts: Annotated[Path | None, File(), NONE] = None
    """A file of prompts, one a line; prompt n gives 0000n.png; a rerun resumes."""
    negative_prompt: Annotated[str, Words(empty=True)] = ""
    """The prompt that guidance leads away from; empty: the unconditional one."""
    do_cfg: bool = True
    """Classifier-free guidance on or off."""
    seed: Annotated[tuple[int, ...], Range(0, 2**64 - 1), Several(distinct=False)] = (0,)
    """The first image's seed, or one for each image."""
    batch: Annotated[int, Range(1, MOST)] = BATCH
    """Images sampled at once; fewer take less memory."""
    image: Annotated[Path | None, File(), NONE] = None
    """An image to start from (PNG, JPEG, WebP, GIF, BMP, TIFF, PPM, AVIF)."""
    mask: Annotated[Path | None, File(), NONE] = None
    """Repaint `--image` where this is white or transparent."""
    strength: Annotated[
        float | None, Range(0, 1, above=True), default("0.8; with --mask 1; shapes-distilled: 0.83")
    ] = None
    """Share of `--image` to change, in (0, 1]."""
    height: Annotated[Side | None, OWN] = None
    """Height of the images in pixels."""
    width: Annotated[Side | None, OWN] = None
    """Width of the images in pixels."""
    like: Annotated[Path | None, File(), NONE] = None
    """Repeat this PNG, but for `--low-memory` and the files you name."""
    like_files: bool = False
    """With `--like`: read the files that the PNG names, not only show them."""
    out: Path = Path("out/generate")
    """Folder for the PNGs, generate.json and generate.md."""
    controls: Annotated[Controls, arg(help="")] = Controls()
    model: Annotated[Model, arg(help="")] = Model()
    sampling: Annotated[Sampling, arg(help="")] = Sampling()

    def __post_init__(self) -> None:
        short = [one for one in self.prompt if len(one.split()) == 1]
        if len(self.prompt) > 1 and len(short) == len(self.prompt):
            quoted = f"a prompt of several words in quotes, as {' '.join(short)!r}"
            refuse(self, "prompt", f"{quoted} (prompts of one word each: by --prompts FILE)")
        if self.image is None:
            unused(self, ["mask", "strength"], "without --image")
        if self.controls.control and self.model.engine != "eager":
            refuse(self.model, "engine", "eager with --control")
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
