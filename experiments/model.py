"""The settings that all experiments on the text-to-image model share, and pictures in batches."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from tyro.conf import arg

if TYPE_CHECKING:
    from PIL.Image import Image
    from tqdm import tqdm

    from sd.config import ModelConfig
    from sd.pipeline import TextToImage

PROMPT = "a large red circle left of a small blue square on a white background"
"""A prompt of the embedded world, for when none is given."""

OPTIONS = ("tokenizer", "vae", "config", "prediction", "ema", "variant")
"""What `TextToImage.load` takes beside the weights."""

KEPT = ("weights", "dtype", "engine", *OPTIONS, "lora", "embedding")
"""What says which model it is."""

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

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
    config: Path | None = None
    """The checkpoint's numbers as JSON, in place of those that its files tell."""
    prediction: Literal["epsilon", "v_prediction", "sample"] | None = None
    """What the checkpoint's U-Net predicts (default: as its files tell)."""
    ema: bool = False
    """Take the moving averages of the U-Net's weights, of a checkpoint in one file."""
    variant: str | None = None
    """Which files of a checkpoint's folder, such as fp16."""
    lora: tuple[str, ...] = ()
    """LoRA files to merge into the weights, each PATH or PATH:STRENGTH (default: 1)."""
    embedding: tuple[Path, ...] = ()
    """Textual-inversion files: each teaches the model a word, of the file's or its own name."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto`: the fastest one found."""
    dtype: Precision = "float32"
    """Precision of the networks; the coefficients are float64 always."""
    engine: Literal["eager", "openvino", "compile"] = "eager"
    """What runs U-Net and decoder: PyTorch, OpenVINO (CPUs), or torch.compile."""
    low_memory: bool = False
    """Hold the weights of the network at work alone; the others' are read again from the files
    when their turn comes. The picture is the same."""
    steps: int = 25
    """Steps from noise to picture, 1 to 1000."""
    solver: str | None = None
    """ddpm, ddim, heun (two U-Net calls a step), dpmpp_2m or another of `diffusion_math.samplers`;
    default: the model's."""
    grid: str = "trailing"
    """Where the steps fall: leading, trailing, linspace, uniform_log_snr or karras."""
    guidance_scale: float | None = None
    """w in x0_u + w (x0_c - x0_u): 0 ignores the prompt, 1 is no guidance; default: the model's."""
    guidance_interval: tuple[float, float] | None = None
    """LOW HIGH: noise levels sigma/alpha at which w holds (elsewhere 1, half the work); or None."""
    long_prompt: Literal["chunk", "truncate", "refuse"] | None = None
    """What becomes of a prompt too long for the text encoder: several rows, a cut, or an error;
    default: the model's."""
    clip_skip: int | None = None
    """How many of the text encoder's last layers are left out; default: the model's."""

    def load(self) -> "TextToImage":
        """The model on its device; ValueError or FileNotFoundError, one line, where it can't."""
        import torch

        from sd import device, engine
        from sd.checkpoint import embedding, lora
        from sd.pipeline import TextToImage

        dtype = getattr(torch, self.dtype)
        engine.able(self.engine, device.pick(self.device), dtype, self.low_memory)
        loras = [_weighed(text) for text in self.lora]
        named = {"lora": [path for path, _ in loras], "embedding": self.embedding}
        for option, paths in named.items():
            for path in paths:
                if not path.is_file():
                    raise FileNotFoundError(f"--{option}: {path} is missing")
        options = {name: getattr(self, name) for name in (*OPTIONS, "low_memory")}
        if self.config is not None:
            options["config"] = _numbers(self.config)
        pipeline = TextToImage.load(self.weights, device=self.device, dtype=dtype, **options)
        if loras:
            lora.merge(pipeline, loras)
        for path in self.embedding:
            embedding.teach(pipeline, path)
        return engine.engaged(pipeline, self.engine)

    def kept(self) -> dict[str, Any]:
        """The settings that say which model it is, as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in KEPT}

    def flags(self) -> list[str]:
        """The same as flags of the command line."""
        given: list[str] = []
        for name, value in self.kept().items():
            if value not in (None, False, []):
                values = value if isinstance(value, list) else [] if value is True else [value]
                given += [f"--{name}", *values]
        return given

    @classmethod
    def of(cls, kept: Mapping[str, Any], device: str) -> "Model":
        """The inverse of `kept`; what it does not name has its default."""
        read: dict[str, Any] = {name: kept[name] for name in KEPT if kept.get(name) is not None}
        for name in {"weights", "tokenizer", "vae", "config"} & read.keys():
            read[name] = read[name] if read[name] == "shapes" else Path(read[name])
        read["lora"] = tuple(map(str, read.get("lora", ())))
        read["embedding"] = tuple(map(Path, read.get("embedding", ())))
        return cls(**read, device=device)

    def sampling(self, pipeline: "TextToImage") -> dict[str, Any]:
        """The keywords of a call of the pipeline that these settings fix, defaults filled in."""
        return {
            "steps": self.steps,
            "solver": pipeline.config.solver if self.solver is None else self.solver,
            "grid": self.grid,
            "guidance_scale": self.scale(pipeline),
            "guidance_interval": self.guidance_interval,
            "long_prompt": self.long_prompt or pipeline.config.long_prompt,
            "clip_skip": pipeline.config.text.skip if self.clip_skip is None else self.clip_skip,
        }

    def scale(self, pipeline: "TextToImage") -> float:
        """The guidance scale that is used when guidance is on."""
        own = pipeline.config.guidance_scale
        return float(own if self.guidance_scale is None else self.guidance_scale)


def _weighed(text: str) -> tuple[Path, float]:
    """PATH or PATH:STRENGTH as both."""
    path, colon, strength = text.rpartition(":")
    if colon and not Path(text).exists():
        with suppress(ValueError):
            return Path(path), float(strength)
    return Path(text), 1.0


def _numbers(path: Path) -> "ModelConfig":
    """A model's numbers from a file of JSON."""
    from sd.config import ModelConfig, from_json

    try:
        return from_json(ModelConfig, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--config: {path} is missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--config: {path} holds no model's numbers: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


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
