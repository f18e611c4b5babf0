"""Load a Stable Diffusion checkpoint of any common layout into our three networks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from diffusion_math.checks import require
from sd import device as devices
from sd.checkpoint import detection, formats, hub, infer_config, parameterization
from sd.checkpoint import diffusers_folder as folder
from sd.checkpoint.component import KINDS, Component
from sd.checkpoint.loading_report import LoadingReport, match_tensors, require_finite_tensor
from sd.checkpoint.offload import Offload, Parked
from sd.checkpoint.tensor_source import Source, checkpoint_error, option
from sd.config import PREDICTIONS, ModelConfig, from_json
from sd.files import regular_file
from sd.networks.text_encoder import TextEncoder
from sd.networks.unet import UNet
from sd.networks.vae import VAE
from sd.weights import blank

__all__ = ["Loaded", "fill", "load"]

NETWORKS: dict[str, Any] = {"text_encoder": TextEncoder, "vae": VAE, "unet": UNet}
INFER = {
    "text_encoder": infer_config.infer_text_encoder,
    "vae": infer_config.infer_vae,
    "unet": infer_config.infer_unet,
}
FIELDS = {"text_encoder": "text", "vae": "vae", "unet": "unet"}
"""The field of ModelConfig for each network."""


@final
@dataclass(frozen=True, eq=False)
class Loaded:
    """The networks of a checkpoint, in evaluation mode and without gradients.

    account: the use of every tensor of the files; `str(account)` summarises it.
    offload: the offloading of the networks with `low_memory`, else None.
    """

    config: ModelConfig
    text_encoder: TextEncoder
    vae: VAE
    unet: UNet
    account: LoadingReport
    offload: Offload | None = None


@dataclass
class _Contents:
    """The contents of one path: networks, files, and the configuration in its metadata."""

    path: Path
    parts: dict[str, Component] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    config: ModelConfig | None = None
    folder: bool = False


def load(
    path: Path | str,
    *,
    vae: Path | str | None = None,
    complete: Path | str | None = None,
    config: ModelConfig | None = None,
    prediction: str | None = None,
    ema: bool = False,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    low_memory: bool = False,
) -> Loaded:
    """Load Stable Diffusion v1 or v2 from a file in the original layout or a diffusers folder.

    All names and shapes are checked before a weight is read. Each tensor is then converted from the
    memory-mapped file to its dtype and device, without a second copy. On a CPU, a tensor that needs
    no conversion stays mapped: while the network exists, the file may be removed or replaced, but
    not overwritten in place.

    Args:
        path: a `.safetensors` or `.ckpt` file, a folder, or an id of the Hugging Face hub.
        vae: the file or folder of another autoencoder.
        complete: a file or folder with the networks that `path` lacks.
        config: the configuration, in place of the one that is inferred from the files.
        prediction: "epsilon", "v_prediction" or "sample"; with `config`, only its own.
        ema: use the moving averages of the U-Net; original layout only.
        variant: the variant of a diffusers folder's files, such as "fp16"; also of `vae` if it has
            that variant.
        dtype, device: of the networks.
        vae_dtype: the dtype of the VAE, if it is another.
        low_memory: offload the networks: see `sd.checkpoint.offload`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, hostile, of another family, or does not fit. The first line
            of the message names the file and says what to do.
    """
    wide = dtype.is_floating_point and dtype.itemsize >= 2
    require(wide, "dtype", "a floating-point type of 16 bits or more", dtype)
    valid = prediction is None or prediction in PREDICTIONS
    require(valid, "prediction", f"one of {', '.join(PREDICTIONS)}", repr(prediction))
    agreed = config is None or prediction in (None, config.prediction)
    require(agreed, "prediction", "the one of the given config, or none", repr(prediction))
    where = device if isinstance(device, torch.device) else devices.pick(device)
    with ExitStack() as stack:
        spare = (None,) if variant is None else (variant, None)
        main = _contents(stack, path, ema, (variant,))
        own_vae = None if vae is None else _contents(stack, vae, ema, spare)
        rest = None if complete is None else _contents(stack, complete, ema, (variant,))
        chosen = _chosen(main, own_vae, rest)
        if ema:
            _averaged(chosen["unet"])
        held = [each for each in (main, own_vae, rest) if each is not None]
        found = [part for each in held for part in each.parts.values()]
        sources = [source for each in held for source in each.sources]
        notes: tuple[str, ...] = ("configuration: as the argument config says",)
        if config is None:
            config, notes = _config(held, chosen, prediction)
        networks: dict[str, Any] = {
            kind: blank(NETWORKS[kind], getattr(config, FIELDS[kind])) for kind in chosen
        }
        account = replace(match_tensors(main.path, chosen, found, sources, networks), notes=notes)
        homes = {}
        for kind, network in networks.items():
            network.requires_grad_(False).eval()
            own = vae_dtype if kind == "vae" and vae_dtype is not None else dtype
            if low_memory:
                homes[kind] = _left(network, chosen[kind], own)
            else:
                fill(network, chosen[kind], own, where)
    offload = Offload(homes, where) if low_memory else None
    return Loaded(config, **networks, account=account, offload=offload)


def _contents(
    stack: ExitStack, path: Path | str, ema: bool, variants: Sequence[str | None]
) -> _Contents:
    """The contents of a path, in the first of these variants that exists, open within the stack."""
    there = hub.resolve(path, variants)
    held = _Contents(there)
    if regular_file.path_kind(there, "checkpoint") == "folder":
        whole = regular_file.path_kind(there / "model_index.json", "checkpoint") == "file"
        if not whole and regular_file.path_kind(there / "config.json", "checkpoint") != "file":
            raise checkpoint_error(there, "a folder with neither model_index.json nor config.json")
        kinds, beside = folder.list_components(there) if whole else ([folder.kind_of(there)], {})
        for kind in kinds:
            at = there / kind if whole else there
            held.parts[kind] = stack.enter_context(folder.open_component(at, kind, variants))
        held.sources = [part.source for part in held.parts.values()]
        if beside:
            held.sources.append(Source(there / "model_index.json", {}, _nothing, aside=beside))
        held.folder = whole
        return held
    if None not in variants and regular_file.path_kind(there, "checkpoint") == "file":
        raise checkpoint_error(
            there, f"variant is {variants[0]!r}, which only a diffusers folder can have"
        )
    source = stack.enter_context(formats.opened(there))
    held.parts, held.sources = detection.find_components(source, ema), [source]
    if parameterization.CONFIG_KEY in source.metadata:
        try:
            held.config = from_json(ModelConfig, source.metadata[parameterization.CONFIG_KEY])
        except ValueError as error:
            raise checkpoint_error(
                there, f"the config in its metadata is not valid: {error}"
            ) from error
    if not held.parts:
        raise checkpoint_error(
            there, f"none of a {', '.join(KINDS.values())} is in it, by its names"
        )
    return held


def _nothing(name: str, rows: slice | None) -> torch.Tensor:
    raise KeyError(name)


def _chosen(main: _Contents, vae: _Contents | None, rest: _Contents | None) -> dict[str, Component]:
    """The component for each network."""
    chosen = {**(rest.parts if rest else {}), **main.parts}
    if vae is not None:
        if "vae" not in vae.parts:
            raise checkpoint_error(vae.path, "no VAE is in it")
        chosen["vae"] = vae.parts["vae"]
    lacking = [called for kind, called in KINDS.items() if kind not in chosen]
    if lacking:
        held = ", ".join(KINDS[kind] for kind in KINDS if kind in chosen)
        wanted = "give a whole model, or in Python load(complete=...), a checkpoint that has them"
        if lacking == [KINDS["vae"]]:
            wanted = f"give {option('vae')}"
        raise checkpoint_error(
            main.path, f"of a model only its {held}; without {', '.join(lacking)}: {wanted}"
        )
    return {kind: chosen[kind] for kind in KINDS}


def _averaged(unet: Component) -> None:
    """Raise ValueError unless the U-Net has moving averages."""
    if not unet.ema or not unet.source.starts("model_ema.diffusion_model"):
        raise checkpoint_error(
            unet.source.path,
            f"it has no moving averages (model_ema.*); leave out {option('ema', True)}",
        )


def _config(
    contents: list[_Contents], chosen: Mapping[str, Component], prediction: str | None
) -> tuple[ModelConfig, tuple[str, ...]]:
    """The configuration of the model, and notes on what tensors do not determine."""
    made = {kind: _inferred(contents, part) for kind, part in chosen.items()}
    words: dict[str, Any] = {FIELDS[kind]: found for kind, found in made.items()}
    path, unet = contents[0].path, chosen["unet"]
    home = next(each for each in contents if unet.source in each.sources)
    second = made["unet"].linear_projection
    if home.folder:
        scheduler = folder.read_scheduler(home.path)
        training, notes = parameterization.from_scheduler(scheduler, prediction)
    else:
        training, notes = parameterization.from_file(unet.source, home.config, prediction, second)
    factor = training.pop("scaling_factor", None)
    if factor is not None:
        words["vae"] = replace(made["vae"], scaling_factor=factor)
    words |= training
    if home.config is not None:
        return _fitted(path, home.config, words), ("configuration: as its metadata say", *notes)
    size = unet.settings.values.get("sample_size") if unet.settings else None
    if isinstance(size, int):
        words["image_size"] = size * made["vae"].factor
    elif second and words["prediction"] == "v_prediction":
        words["image_size"] = 768
    family_name = "v2" if second else "v1"
    width = made["unet"].context_width
    found = _fitted(path, ModelConfig(), words)
    kind = " inpainting" if found.reads_mask else ""
    notes = (f"family: Stable Diffusion {family_name}{kind}, context {width} wide", *notes)
    return found, notes


def _inferred(contents: list[_Contents], part: Component) -> Any:
    """A network's configuration: from metadata that we wrote, else inferred from its tensors."""
    home = next(each for each in contents if part.source in each.sources)
    if home.config is not None:
        said = getattr(home.config, FIELDS[part.kind])
        infer_config.require_agreement(part, said)
        return said
    return INFER[part.kind](part)


def _fitted(path: Path, base: ModelConfig, words: dict[str, Any]) -> ModelConfig:
    try:
        return replace(base, **words)
    except ValueError as error:
        raise checkpoint_error(path, f"its networks do not fit together: {error}") from error


def fill(network: nn.Module, part: Component, dtype: torch.dtype, device: torch.device) -> None:
    """Read a network's weights, one tensor at a time; each must be finite."""
    tensors = dict(_read(network, part, dtype, device))
    network.load_state_dict(tensors, strict=True, assign=True)


def _left(network: nn.Module, part: Component, dtype: torch.dtype) -> Parked:
    """A network whose weights stay in their file, after a check of each."""
    for _ in _read(network, part, dtype, torch.device("cpu")):
        pass
    part.source.release()
    return Parked(network, part, dtype)


def _read(
    network: nn.Module, part: Component, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """The names and weights of a network, each checked to be finite."""
    for name, value in network.state_dict().items():
        tensor = part.read(name, tuple(value.shape), dtype, device)
        require_finite_tensor(part.source.path, part.where(name)[0], tensor)
        yield name, tensor
