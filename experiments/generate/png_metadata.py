"""The settings of an image, as JSON in the text metadata of its PNG."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from experiments.common.model_options import Model
from experiments.common.sampling_options import Grid, Interval, Scale, Solver
from experiments.generate import MOST, Side
from experiments.generate.control_options import Kept as KeptControl
from experiments.output.files import utf8
from sd.command_line.flags import Range, Several, Words, validated
from sd.digest import model_digest
from sd.files.color import rgb
from sd.files.image_file import open_image
from sd.files.regular_file import parse_json
from sd.pipeline import TextToImage

KEY = "diffusion-math"
"""The PNG text chunk that holds the settings."""


def png(drawn: Image, prompt: str, settings: Mapping[str, Any]) -> bytes:
    """An image as a PNG with its settings."""
    words = PngInfo()
    words.add_itxt(KEY, utf8(json.dumps(settings, ensure_ascii=False)).decode())
    words.add_itxt("Description", prompt)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", pnginfo=words)
    return buffer.getvalue()


Text: TypeAlias = Annotated[str, Words(empty=True)]
Asked: TypeAlias = tuple[Annotated[str, Words()], Annotated[int, Range(0, 2**64 - 1)]]
"""A prompt and a seed."""


@validated
class Call:
    """The keywords of the pipeline's call."""

    negative_prompt: Text
    steps: Annotated[int, Range(1, 1000)]
    solver: Solver
    grid: Grid
    guidance_scale: Scale
    guidance_interval: Interval | None = None
    long_prompt: Literal["chunk", "truncate", "refuse"] | None = None
    clip_skip: Annotated[int, Range(0, 100)] | None = None
    do_cfg: bool = True
    strength: Annotated[float, Range(0, 1, above=True)] | None = None
    height: Side | None = None
    width: Side | None = None


@validated
class Made:
    """The machine and the versions: see `made_with`."""

    device: Text
    torch: Text
    threads: Annotated[int, Range(1, 2**20)]
    weights: Text


@validated
class Kept:
    """All settings of one image: of its batch, and its place there."""

    batch: Annotated[tuple[Asked, ...], Several(distinct=False)]
    index: Annotated[int, Range(0, MOST - 1)]
    call: Call
    image: str | None
    model: Model
    made_with: Made
    mask: str | None = None
    controls: Annotated[tuple[KeptControl, ...], Several(0, distinct=False)] = ()

    def __post_init__(self) -> None:
        if self.mask is not None and self.image is None:
            raise ValueError("mask: wanted an image with it, got none")
        if not self.index < len(self.batch) <= MOST:
            place = f"index {self.index} of {len(self.batch)}"
            raise ValueError(f"batch: wanted at most {MOST} and an index among them, got {place}")


def read(path: Path, option: str = "--like") -> dict[str, Any]:
    """The settings kept in a PNG, as they stand; `checked` has looked at them.

    Raises FileNotFoundError where there is no file, ValueError, with the option's name, where it is
    no image, keeps no settings, or one of them is not what it can be.
    """
    text = open_image(path, f"{option}:").info.get(KEY)
    if not isinstance(text, str):
        raise ValueError(f"{option}: {path} holds no settings of `generate`")
    try:
        settings: dict[str, Any] = parse_json(text, once=True)
        checked(settings)
    except ValueError as error:
        raise ValueError(f"{option}: the settings in {path} are damaged: {error}") from error
    return settings


def checked(settings: Any) -> Kept:
    """The settings, each of the type and in the range that its field declares, or ValueError."""
    values = _named(_tuples(settings), Kept, "settings")
    values["call"] = Call(**_named(values["call"], Call, "call"))
    values["made_with"] = made = Made(**_named(values["made_with"], Made, "made_with"))
    if isinstance(values.get("controls"), tuple):
        values["controls"] = tuple(
            KeptControl(**_named(one, KeptControl, "controls")) for one in values["controls"]
        )
    values["model"] = Model.of(_named(values["model"], None, "model"), made.device)
    return Kept(**values)


def _named(values: Any, kind: Any, where: str) -> dict[str, Any]:
    """An object whose names are the dataclass's fields, those without a default among them."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: wanted an object, got {values!r}")
    known = {one.name: one.default is MISSING for one in fields(kind)} if kind else values
    odd = [name for name in values if name not in known]
    odd += [name for name, needed in known.items() if kind and needed and name not in values]
    if odd:
        raise ValueError(
            f"{where}: wanted {', '.join(known)}, unknown or missing: {', '.join(odd)}"
        )
    return values


def _tuples(value: Any) -> Any:
    """The same with tuples for lists."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def differing(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which two images differ, except batch and machine."""
    a, b = (_determining(json.loads(json.dumps(one))) for one in (kept, wanted))
    return [name for name in {**b, **a} if a.get(name) != b.get(name)]


def _determining(settings: dict[str, Any]) -> dict[str, Any]:
    """All settings that determine an image, up to rounding."""
    prompt, seed = settings["batch"][settings["index"]]
    return {
        "prompt": prompt,
        "seed": seed,
        **settings["call"],
        "image": settings["image"],
        "mask": settings.get("mask"),
        "controls": settings.get("controls", []),
        "calibration": [],
        **settings["model"],
        "the model's weights": settings["made_with"]["weights"],
    }


def made_with(pipeline: TextToImage) -> dict[str, Any]:
    """What the bits of an image depend on in addition to its settings."""
    return {
        "device": str(pipeline.device),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "weights": model_digest(pipeline),
    }


def embedded(image: Image) -> str:
    """An image as text."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def opened(text: str, name: str = "image") -> Image:
    """The inverse of `embedded`; ValueError, with the name, where the text is no image."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"{name} is no image: {error}") from error
    return rgb(open_image(content, name), name)
