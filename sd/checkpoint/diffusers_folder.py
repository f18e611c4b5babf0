"""A diffusers folder: model_index.json, and a folder with config.json and weights a network."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

from sd.checkpoint import component_config, detection, formats
from sd.checkpoint.component import CALLED, KINDS, Component
from sd.checkpoint.component_config import ComponentConfig
from sd.checkpoint.tensor_source import Source, checkpoint_error, option
from sd.files import regular_file

__all__ = ["kind_of", "list_components", "open_component", "read_scheduler"]

CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
}
BESIDE = {"tokenizer", "scheduler", "safety_checker", "feature_extractor"}
"""What a text-to-image pipeline has besides its networks; not read here, but for the scheduler."""
CONTROLNET = {"controlnet": ("ControlNetModel",)}
_OF_DIFFUSERS = ("diffusion_pytorch_model", "diffusion_pytorch_model")
STEMS = {
    "unet": _OF_DIFFUSERS,
    "vae": _OF_DIFFUSERS,
    "controlnet": _OF_DIFFUSERS,
    "text_encoder": ("model", "pytorch_model"),
}
"""The weights' names, before .safetensors and before .bin."""


def list_components(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The networks in a pipeline's folder, and its other components, each with a description.

    Raises ValueError if model_index.json is of a pipeline other than text-to-image v1 or v2.
    """
    index = folder / "model_index.json"
    values = component_config.json_object(index)
    pipeline = values.get("_class_name", "a pipeline of no name")
    held: dict[str, str] = {
        name: str(value[1])
        for name, value in values.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None
    }
    strange = [
        name
        for name, made in held.items()
        if (made not in CLASSES[name] if name in CLASSES else name not in BESIDE)
    ]
    if strange:
        parts = ", ".join(f"{name} ({held[name]})" for name in strange)
        raise checkpoint_error(index, f"a {pipeline} folder with {parts}, {detection.WANTED}")
    networks = [
        name for name in KINDS if regular_file.path_kind(folder / name, "checkpoint") == "folder"
    ]
    beside = {
        name: f"a {held[name]}, not read" for name in held if name not in (*KINDS, "scheduler")
    }
    return networks, beside


def kind_of(folder: Path, known: Mapping[str, Sequence[str]] = CLASSES) -> str:
    """Which network of the known ones a component's folder holds, by its config.json."""
    path = folder / "config.json"
    values = component_config.json_object(path)
    listed = values.get("architectures")
    names = [values.get("_class_name"), *(listed if isinstance(listed, list) else ())]
    for kind, classes in known.items():
        if any(name in classes for name in names):
            return kind
    raise checkpoint_error(
        path, f"of {names[-1]}, none of {', '.join(c[0] for c in known.values())}"
    )


@contextmanager
def open_component(
    folder: Path,
    kind: str,
    variants: Sequence[str | None],
    find: Callable[[Source], Mapping[str, Component]] = detection.find_components,
) -> Iterator[Component]:
    """The network in a component's folder, in the first of these variants that exists.

    Raises FileNotFoundError or ValueError if its config.json or weights are missing or wrong.
    """
    said = component_config.read_component_config(folder / "config.json", kind)
    with _weights(folder, kind, variants) as source:
        found = find(source)
        if kind not in found:
            raise checkpoint_error(
                source.path, f"no {CALLED[kind]}: its names are of something else"
            )
        yield replace(found[kind], settings=said)


def read_scheduler(folder: Path) -> ComponentConfig:
    """The settings of the scheduler."""
    return component_config.read_component_config(
        folder / "scheduler" / "scheduler_config.json", "scheduler"
    )


@contextmanager
def _weights(folder: Path, kind: str, variants: Sequence[str | None]) -> Iterator[Source]:
    """The weights by preference: variant, safetensors before .bin, one file before shards."""
    kinds = zip(STEMS[kind], (".safetensors", ".bin"), strict=True)
    for variant, (stem, suffix) in product(variants, kinds):
        dot = f".{variant}" if variant else ""
        whole, index = (folder / f"{stem}{dot}{suffix}", folder / f"{stem}{suffix}.index{dot}.json")
        if regular_file.path_kind(whole, "checkpoint") == "file":
            with formats.opened(whole) as source:
                yield source
            return
        if regular_file.path_kind(index, "checkpoint") == "file":
            with formats.joined(index, _shards(index)) as source:
                yield source
            return
    try:
        present = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin"))
    except OSError as error:
        raise checkpoint_error(folder, f"cannot be read ({error.strerror})") from error
    there = ", ".join(present) or "none"
    wanted = " or ".join(f"of variant {one!r}" if one else "without a variant" for one in variants)
    others = not variants[0] and any(name.count(".") > 1 for name in present)
    hint = f"; give {option('variant')}" if others else ""
    raise checkpoint_error(folder, f"no weights {wanted}; there: {there}{hint}")


def _shards(index: Path) -> dict[str, Path]:
    """The file of each tensor; only files beside the index are valid."""
    values = component_config.json_object(index).get("weight_map")
    if not isinstance(values, Mapping) or not values:
        raise checkpoint_error(index, "no index: it has no weight_map")
    for name, file in values.items():
        if not isinstance(file, str) or not re.fullmatch(r"[\w][\w.-]*", file):
            raise checkpoint_error(
                index, f"{name} is in {file!r}, which is no file's name beside the index"
            )
    return {name: index.parent / file for name, file in values.items()}
