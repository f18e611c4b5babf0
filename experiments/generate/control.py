"""The ControlNets of the images: from the flags, or from the settings of a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from experiments.generate import png_metadata
from experiments.generate.control_options import Controls, Kept
from sd import control_map
from sd.checkpoint import load_controlnet
from sd.checkpoint.network import EMBEDDED
from sd.control import Control, require_fit
from sd.digest import weights_digest
from sd.files import image_tensor
from sd.pipeline import TextToImage


def read(options: Controls) -> list[Image]:
    """The images in their files. Raises ValueError for one that is none, and without scikit-image
    where its edges are needed."""
    if "canny" in options.control_map:
        control_map.require_canny("--control-map canny")
    return [image_tensor.read_image(path, "--control-image") for path in options.control_image]


def opened(
    options: Controls, images: Sequence[Image], pipeline: TextToImage, size: tuple[int, int]
) -> list[Control]:
    """The controls, with maps of that (width, height). Raises ValueError for one that does not fit
    the pipeline."""
    maps = [
        control_map.canny(image, *size)
        if kind == "canny"
        else (control_map.shapes if name == EMBEDDED else control_map.given)(
            image, *size, f"--control-image: {path}"
        )
        for name, image, path, kind in zip(
            options.control, images, options.control_image, options.each("map"), strict=True
        )
    ]
    numbers = zip(*map(options.each, ("scale", "start", "end")), strict=True)
    return [
        _control(path, drawn, pipeline, size, own)
        for path, drawn, own in zip(options.control, maps, numbers, strict=True)
    ]


def repeated(
    settings: Sequence[Kept], pipeline: TextToImage, within: str, size: tuple[int, int]
) -> list[Control]:
    """The controls in the settings of a PNG; `within` names it in messages."""
    return [
        _control(
            one.control,
            png_metadata.opened(one.image, f"--like: the map of a ControlNet {within}"),
            pipeline,
            size,
            (one.scale, one.start, one.end),
        )
        for one in settings
    ]


def kept(options: Controls, controls: Sequence[Control]) -> list[dict[str, Any]]:
    """The settings of the controls, as plain JSON values."""
    return [
        {
            "control": str(path),
            "image": png_metadata.embedded(one.image),
            "scale": one.scale,
            "start": one.start,
            "end": one.end,
            "weights": digest(one),
        }
        for path, one in zip(options.control, controls, strict=True)
    ]


def digest(control: Control) -> str:
    """The digest of a ControlNet's weights."""
    return weights_digest(control.network.state_dict().items())


def _control(
    path: Path | str, drawn: Image, pipeline: TextToImage, size: tuple[int, int], numbers: Any
) -> Control:
    network = load_controlnet(path, dtype=pipeline.dtype, device=pipeline.device)
    control = Control(network, drawn, *numbers)
    try:
        require_fit([control], pipeline.config, size, pipeline.device, pipeline.dtype)
    except ValueError as error:
        raise ValueError(f"--control: {path} does not fit: {error}") from error
    return control
