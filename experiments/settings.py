"""The settings that a PNG keeps of how it was made, as JSON in its text metadata."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from sd.pipeline import TextToImage

__all__ = ["KEY", "differing", "embedded", "made_with", "opened", "png", "read"]

KEY = "diffusion-math"
"""The PNG text chunk that holds the settings."""


def png(drawn: "Image", prompt: str, settings: Mapping[str, Any]) -> bytes:
    """A picture as a PNG that keeps its settings."""
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    words.add_itxt(KEY, json.dumps(settings, ensure_ascii=False))
    words.add_itxt("Description", prompt)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", pnginfo=words)
    return buffer.getvalue()


def read(path: Path, option: str = "--like") -> dict[str, Any]:
    """The settings kept in a PNG; ValueError, with the option's name, where there are none."""
    from sd.image_file import load

    text = load(path, f"{option}:").info.get(KEY)
    try:
        settings = json.loads(text) if isinstance(text, str) else None
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict) or not {"batch", "index", "call"} <= settings.keys():
        raise ValueError(f"{option}: {path} holds no settings of `generate`")
    return settings


def differing(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names of what tells two pictures apart, their batches and machines left out."""
    a, b = (_told(json.loads(json.dumps(one))) for one in (kept, wanted))
    return [name for name in {**b, **a} if a.get(name) != b.get(name)]


def _told(settings: dict[str, Any]) -> dict[str, Any]:
    """All that a picture is a function of, up to rounding."""
    try:
        prompt, seed = settings["batch"][settings["index"]]
        return {
            "prompt": prompt,
            "seed": seed,
            **settings["call"],
            "image": settings["image"],
            **settings["model"],
            "the model's weights": settings["made_with"]["weights"],
        }
    except (KeyError, IndexError, TypeError, ValueError):
        return {}


def made_with(pipeline: "TextToImage") -> dict[str, Any]:
    """What the bits of a picture depend on beside its settings."""
    import torch

    from sd.digest import digest

    return {
        "device": str(pipeline.device),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "weights": digest(pipeline),
    }


def embedded(image: "Image") -> str:
    """A picture as text."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def opened(text: str) -> "Image":
    """The inverse of `embedded`."""
    from sd.image_file import load

    return load(base64.b64decode(text)).convert("RGB")
