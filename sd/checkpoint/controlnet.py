"""Load a ControlNet v1.x: a file in the original or in diffusers' layout, or a folder."""

from contextlib import ExitStack
from pathlib import Path

import torch

from sd.checkpoint import detection, formats, hub, infer_config
from sd.checkpoint import diffusers_folder as folder
from sd.checkpoint.component import Component
from sd.checkpoint.loader import fill
from sd.checkpoint.loading_report import match_tensors
from sd.checkpoint.tensor_source import checkpoint_error
from sd.config import ControlNetConfig, from_json
from sd.files import regular_file
from sd.networks.controlnet import ControlNet
from sd.weights import blank

__all__ = ["load_controlnet"]


def load_controlnet(
    path: Path | str,
    *,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> ControlNet:
    """The ControlNet of a file, a diffusers folder or an id of the Hugging Face hub.

    All names and shapes are checked before a weight is read. The tensors of a file determine the
    configuration as those of a U-Net do; a file of `sd.weights.save_network` has it in its
    metadata, a folder in its config.json.

    Args:
        path: `.safetensors`, `.pth` or `.ckpt` in the original layout (`control_model.*`) or in
            that of diffusers; a folder of a ControlNetModel; or a hub id.
        variant: the variant of a folder's files, such as "fp16".
        dtype, device: of the network.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, of another family, or does not fit. The first line of the
            message names the file.
    """
    with ExitStack() as stack:
        found = _opened(stack, hub.resolve(path, (variant,)), variant)
        part = found["controlnet"]
        config = _config(part)
        network = blank(ControlNet, config)
        chosen, networks = {"controlnet": part}, {"controlnet": network}
        match_tensors(Path(path), chosen, list(found.values()), [part.source], networks)
        fill(network, part, dtype, torch.device(device))
    return network.requires_grad_(False).eval()


def _opened(stack: ExitStack, place: Path, variant: str | None) -> dict[str, Component]:
    """The ControlNet in a place and the networks beside it, open within the stack."""
    find = detection.find_controlnet
    if regular_file.path_kind(place, "checkpoint") == "folder":
        kind = folder.kind_of(place, folder.CONTROLNET)
        return {kind: stack.enter_context(folder.open_component(place, kind, (variant,), find))}
    if variant is not None:
        raise checkpoint_error(place, f"variant is {variant!r}, which only a folder can have")
    source = stack.enter_context(formats.opened(place))
    found = find(source)
    if not found:
        raise checkpoint_error(place, "no ControlNet is in it, by its names")
    return found


def _config(part: Component) -> ControlNetConfig:
    """The configuration: from metadata that we wrote, else inferred from the tensors."""
    said = part.source.metadata.get("config")
    if said is None:
        return infer_config.infer_controlnet(part)
    try:
        return from_json(ControlNetConfig, said)
    except ValueError as error:
        where = part.source.path
        raise checkpoint_error(where, f"the config in its metadata: {error}") from error
