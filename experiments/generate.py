"""Prompts to pictures; every PNG carries the settings that repeat it."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.model import BATCH, PROMPT, Model
from experiments.results import Figure, Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from sd.pipeline import TextToImage

KEY = "diffusion-math"
"""The PNG text chunk that holds the settings, as JSON."""


@dataclass(frozen=True)
class Config:
    """Turn prompts into pictures, or redraw a picture after a prompt.

    Each PNG keeps its settings in its text metadata: `--like file.png` repeats it bit for bit
    on the same machine and versions.
    """

    prompt: tuple[str, ...] = (PROMPT,)
    """What to draw; several prompts give several pictures."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    do_cfg: bool = True
    """Classifier-free guidance on or off."""
    seed: tuple[int, ...] = (0,)
    """One seed for the first picture (the next ones count up), or one for each picture; several
    seeds with one prompt give a picture a seed."""
    image: Path | None = None
    """A picture of yours to redraw, of any size and kind, with `--strength`."""
    strength: float | None = None
    """How much of `--image` to redraw, in (0, 1]: 1 all of it (default: 0.8)."""
    height: int | None = None
    """Of the pictures, in pixels (default: the model's own)."""
    width: int | None = None
    """Of the pictures, in pixels (default: the model's own)."""
    like: Path | None = None
    """Repeat this PNG, made by this command; all other settings are then its own."""
    out: Path = Path("out/generate")
    """Folder for the PNGs, generate.json and generate.md."""
    model: Model = field(default_factory=Model)
    """Which model, where it runs, and how it samples."""


def run(config: Config, pipeline: "TextToImage | None" = None) -> Result:
    """Draw, and put the settings into each PNG."""
    if config.like is not None:
        return _repeat(config, pipeline)
    from sd import picture

    image = None if config.image is None else picture.read(config.image)
    pipeline = pipeline or config.model.load()
    prompts, seeds = _paired(config)
    if image is not None:  # fitted now, so that the settings can hold all that is used of it
        size = pipeline.config.image_size
        image = picture.fit(image, config.width or size, config.height or size)
    call = {
        **config.model.sampling(pipeline),
        "negative_prompt": config.negative_prompt,
        "do_cfg": config.do_cfg,
        "strength": 0.8 if image is not None and config.strength is None else config.strength,
        "height": config.height,
        "width": config.width,
    }
    made = _made_with(pipeline)
    common = {
        "call": call,
        "image": None if image is None else _embedded(image),
        "model": {
            name: None if value is None else str(value)
            for name, value in asdict(config.model).items()
            if name in ("weights", "dtype", "tokenizer", "vae")
        },
        "made_with": made,
    }
    figures: list[Figure] = []
    for start in range(0, len(prompts), BATCH):
        batch = list(zip(prompts, seeds, strict=True))[start : start + BATCH]
        pictures = _draw(pipeline, batch, call, image)
        for index, (drawn, (prompt, seed)) in enumerate(zip(pictures, batch, strict=True)):
            settings = {"batch": batch, "index": index, **common}
            figures.append(_figure(drawn, prompt, seed, settings, len(figures)))
    return _result(figures, {"call": call, **made}, list(zip(prompts, seeds, strict=True)))


def settings_of(path: Path) -> dict[str, Any]:
    """The settings kept in a PNG; ValueError where there are none."""
    from PIL import Image, UnidentifiedImageError

    if not path.exists():
        raise FileNotFoundError(f"--like: {path} is missing")
    try:
        with Image.open(path) as opened:
            opened.load()
            text = opened.info.get(KEY)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"--like: {path} is no picture that can be read") from error
    try:
        settings = json.loads(text) if isinstance(text, str) else None
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict) or not {"batch", "index", "call"} <= settings.keys():
        raise ValueError(f"--like: {path} holds no settings of `generate`")
    return settings


def _repeat(config: Config, pipeline: "TextToImage | None") -> Result:
    """Draw the batch that the picture came from, and keep the one."""
    import warnings

    assert config.like is not None
    own = replace(config, like=None, out=Config.out)
    if replace(own, model=Model()) != Config() or own.model != Model():
        raise ValueError("--like repeats a picture with its own settings: leave out all but --out")
    kept = settings_of(config.like)
    try:
        own_files = {name: kept["model"].get(name) for name in ("tokenizer", "vae")}
        model = Model(
            weights=kept["model"]["weights"],
            device=kept["made_with"]["device"],
            dtype=kept["model"]["dtype"],
            **{name: None if path is None else Path(path) for name, path in own_files.items()},
        )
        batch = [(str(prompt), int(seed)) for prompt, seed in kept["batch"]]
        prompt, seed = batch[int(kept["index"])]
        image = None if kept["image"] is None else _opened(kept["image"])
        call = dict(kept["call"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"--like: the settings in {config.like} are damaged") from error
    pipeline = pipeline or model.load()
    now = _made_with(pipeline)
    changed = [name for name in now if now[name] != kept["made_with"].get(name)]
    if changed:
        warnings.warn(f"{config.like} was made with other {', '.join(changed)}", stacklevel=2)
    drawn = _draw(pipeline, batch, call, image)[int(kept["index"])]
    figure = replace(_figure(drawn, prompt, seed, kept, 0), name=config.like.name)
    return _result([figure], {"call": call, **now}, [(prompt, seed)])


def _draw(
    pipeline: "TextToImage",
    batch: list[tuple[str, int]],
    call: Mapping[str, Any],
    image: "Image | None",
) -> "list[Image]":
    prompts, seeds = zip(*batch, strict=True)
    return pipeline(list(prompts), seed=list(seeds), image=image, **call)


def _paired(config: Config) -> tuple[list[str], list[int]]:
    """As many prompts as seeds, with ValueError where they don't fit."""
    prompts, seeds = list(config.prompt), list(config.seed)
    if not prompts or not seeds:
        raise ValueError("--prompt, --seed: wanted at least one of each")
    if len(seeds) == 1:
        return prompts, [seeds[0] + i for i in range(len(prompts))]
    if len(prompts) == 1:
        return prompts * len(seeds), seeds
    if len(prompts) != len(seeds):
        wanted = f"wanted one, or one for each of the {len(prompts)} prompts"
        raise ValueError(f"--seed: {wanted}, got {len(seeds)}")
    return prompts, seeds


def _made_with(pipeline: "TextToImage") -> dict[str, Any]:
    """What the bits of a picture depend on beside its settings."""
    import torch

    digest = hashlib.sha256()
    for network in (pipeline.text_encoder, pipeline.vae, pipeline.unet):
        tensors = network.state_dict() if isinstance(network, torch.nn.Module) else {}
        for name, value in tensors.items():
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return {
        "device": str(pipeline.device),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "weights": digest.hexdigest()[:16],
    }


def _embedded(image: "Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _opened(text: str) -> "Image":
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def _figure(
    drawn: "Image", prompt: str, seed: int, settings: Mapping[str, Any], place: int
) -> Figure:
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    words.add_itxt(KEY, json.dumps(settings, ensure_ascii=False))
    words.add_itxt("Description", prompt)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", pnginfo=words)
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"
    name = f"{place:02d}-{slug}-seed{seed}.png"
    return Figure(name, buffer.getvalue(), f"{prompt} (seed {seed})", prompt)


def _result(figures: list[Figure], made: Mapping[str, Any], pairs: list[tuple[str, int]]) -> Result:
    files = [
        {"file": figure.name, "prompt": prompt, "seed": seed}
        for figure, (prompt, seed) in zip(figures, pairs, strict=True)
    ]
    return Result("generate", "Prompts and pictures", (), tuple(figures), {**made, "files": files})
