"""The settings that all experiments on the text-to-image model share, and pictures in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

if TYPE_CHECKING:
    from PIL.Image import Image
    from tqdm import tqdm

    from sd.pipeline import TextToImage

PROMPT = "a large red circle left of a small blue square on a white background"
"""A prompt of the embedded world, for when none is given."""

BATCH = 16
"""Pictures drawn at once: more gains little on a CPU."""


@dataclass(frozen=True)
class Model:
    """Which model, where it runs, and how it samples."""

    weights: Annotated[Literal["shapes"] | Path, arg(aliases=("--model",))] = "shapes"
    """The embedded model `shapes`; or a Stable Diffusion checkpoint: a file, a folder, a hub id."""
    tokenizer: Path | None = None
    """CLIP's vocabulary for a checkpoint in one file: a tokenizer.json or a folder with one."""
    vae: Path | None = None
    """A VAE to take instead of the checkpoint's own."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto`: the fastest one found."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the networks; the coefficients are float64 always."""
    steps: int = 25
    """Steps from noise to picture, 1 to 1000."""
    solver: str | None = None
    """ddpm, ddim, euler, heun (two U-Net calls a step) or dpmpp_2m; default: the model's."""
    grid: str = "trailing"
    """Where the steps fall: leading, trailing, linspace, uniform_log_snr or karras."""
    guidance_scale: float | None = None
    """w in x0_u + w (x0_c - x0_u): 0 ignores the prompt, 1 is no guidance; default: the model's."""

    def load(self) -> "TextToImage":
        """The model on its device; ValueError or FileNotFoundError, one line, where it can't."""
        import torch

        from sd.pipeline import TextToImage

        dtype = getattr(torch, self.dtype)
        options = {"tokenizer": self.tokenizer, "vae": self.vae}
        return TextToImage.load(self.weights, device=self.device, dtype=dtype, **options)

    def sampling(self, pipeline: "TextToImage") -> dict[str, Any]:
        """The keywords of a call of the pipeline that these settings fix, defaults filled in."""
        return {
            "steps": self.steps,
            "solver": pipeline.config.solver if self.solver is None else self.solver,
            "grid": self.grid,
            "guidance_scale": self.scale(pipeline),
        }

    def scale(self, pipeline: "TextToImage") -> float:
        """The guidance scale that is used when guidance is on."""
        own = pipeline.config.guidance_scale
        return float(own if self.guidance_scale is None else self.guidance_scale)


def draw(
    pipeline: "TextToImage",
    prompts: Sequence[str],
    seeds: Sequence[int],
    bar: "tqdm[Any] | None" = None,
    batch: int = BATCH,
    **call: Any,
) -> "list[Image]":
    """One picture for each prompt and seed, a batch at a time; `bar` counts pictures.

    A picture does not depend on the batch it is drawn in beyond the rounding of the networks.
    """
    pictures: list[Image] = []
    for start in range(0, len(prompts), batch):
        some = list(prompts[start : start + batch])
        own = [int(seed) for seed in seeds[start : start + batch]]
        pictures += pipeline(some, seed=own, progress=False, **call)
        if bar is not None:
            bar.update(len(some))
    return pictures


def shows(picture: "Image", prompt: str) -> bool | None:
    """Whether the reader sees in the picture what the prompt names; None where it can't say.

    It can't for a prompt outside the grammar of the embedded world.
    """
    import numpy as np

    from sd.shapes import judge
    from sd.shapes.caption import parse

    if parse(prompt) is None:
        return None
    return judge.shows(np.asarray(picture.convert("RGB")), prompt)


def distance(a: "Image", b: "Image") -> float:
    """Root mean square difference of two pictures' pixels, in levels of 0..255."""
    import numpy as np

    x, y = (np.asarray(one.convert("RGB"), dtype=np.float64) for one in (a, b))
    return float(np.sqrt(np.mean((x - y) ** 2)))
