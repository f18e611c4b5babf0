"""Load one network: a U-Net or a ControlNet v1.x, from a file or a folder of diffusers."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from sd.checkpoint import detection, formats, hub, infer_config
from sd.checkpoint import diffusers_folder as folder
from sd.checkpoint.component import CALLED, Component
from sd.checkpoint.loader import fill
from sd.checkpoint.loading_report import match_tensors
from sd.checkpoint.tensor_source import Source, checkpoint_error
from sd.config import ControlNetConfig, UNetConfig, from_json
from sd.files import regular_file
from sd.networks.controlnet import ControlNet
from sd.networks.unet import UNet
from sd.weights import blank

__all__ = ["EMBEDDED", "load_controlnet", "load_unet"]

EMBEDDED = "shapes"
"""The name of the ControlNet of the embedded model."""


@dataclass(frozen=True)
class _Kind:
    """A network, its configuration, and how both are found."""

    name: str
    network: Any
    config: Any
    classes: Mapping[str, tuple[str, ...]]
    find: Callable[[Source], dict[str, Component]]
    infer: Callable[[Component], Any]


_UNET = _Kind(
    "unet",
    UNet,
    UNetConfig,
    {"unet": folder.CLASSES["unet"]},
    detection.find_components,
    infer_config.infer_unet,
)
_CONTROLNET = _Kind(
    "controlnet",
    ControlNet,
    ControlNetConfig,
    folder.CONTROLNET,
    detection.find_controlnet,
    infer_config.infer_controlnet,
)


def load_controlnet(
    path: Path | str,
    *,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> ControlNet:
    """The embedded ControlNet, or that of a file, a diffusers folder or an id of the hub.

    All names and shapes are checked before a weight is read. The tensors of a file determine the
    configuration as those of a U-Net do; a file of `sd.weights.save_network` has it in its
    metadata, a folder in its config.json.

    Args:
        path: "shapes", for class-index maps of the embedded model (see `sd.control_map.shapes`);
            `.safetensors`, `.pth` or `.ckpt` in the original layout (`control_model.*`) or in that
            of diffusers; a folder of a ControlNetModel; or a hub id.
        variant: the variant of a folder's files, such as "fp16".
        dtype, device: of the network.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, of another family, or does not fit. The first line of the
            message names the file.
    """
    with ExitStack() as stack:
        if str(path) == EMBEDDED:
            asset = files("sd") / "assets" / "shapes" / "control.safetensors"
            path = stack.enter_context(as_file(asset))
        network: ControlNet = _load(_CONTROLNET, path, variant, dtype, device)
    return network


def load_unet(
    path: Path | str,
    *,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> UNet:
    """The U-Net of a file, a diffusers folder or an id of the Hugging Face hub, by itself.

    It may be class-conditional (`num_class_embeds`), and need not take a prompt. The rest is as in
    `load_controlnet`.

    Args:
        path: `.safetensors`, `.pth` or `.ckpt` in the original layout (`model.diffusion_model.*`)
            or in that of diffusers; a folder of a UNet2DConditionModel; or a hub id of one.
        variant, dtype, device: as in `load_controlnet`.

    Raises FileNotFoundError and ValueError as `load_controlnet` does.
    """
    network: UNet = _load(_UNET, path, variant, dtype, device)
    return network


def _load(
    kind: _Kind,
    path: Path | str,
    variant: str | None,
    dtype: torch.dtype,
    device: str | torch.device,
) -> Any:
    with ExitStack() as stack:
        found = _opened(stack, kind, hub.resolve(path, (variant,)), variant)
        part = found[kind.name]
        network = blank(kind.network, _config(kind, part))
        chosen, networks = {kind.name: part}, {kind.name: network}
        match_tensors(Path(path), chosen, list(found.values()), [part.source], networks)
        fill(network, part, dtype, torch.device(device))
    return network.requires_grad_(False).eval()


def _opened(
    stack: ExitStack, kind: _Kind, place: Path, variant: str | None
) -> dict[str, Component]:
    """The network in a place and the networks beside it, open within the stack."""
    if regular_file.path_kind(place, "checkpoint") == "folder":
        name = folder.kind_of(place, kind.classes)
        part = stack.enter_context(folder.open_component(place, name, (variant,), kind.find))
        return {name: part}
    if variant is not None:
        raise checkpoint_error(place, f"variant is {variant!r}, which only a folder can have")
    source = stack.enter_context(formats.opened(place))
    found = kind.find(source)
    if kind.name not in found:
        raise checkpoint_error(place, f"no {CALLED[kind.name]} is in it, by its names")
    return found


def _config(kind: _Kind, part: Component) -> Any:
    """The configuration: from metadata that we wrote, else inferred from the tensors."""
    said = part.source.metadata.get("config")
    if said is None:
        return kind.infer(part)
    try:
        return from_json(kind.config, said)
    except ValueError as error:
        where = part.source.path
        raise checkpoint_error(where, f"the config in its metadata: {error}") from error
