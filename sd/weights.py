"""Weights files of single networks: safetensors with the configuration in their metadata."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sd.config import AnyConfig, Config, from_json, to_json
from sd.files import output_folder
from sd.files.regular_file import require_regular

__all__ = [
    "Network",
    "blank",
    "exact_dtype",
    "load_network",
    "read_config",
    "read_metadata",
    "read_tensors",
    "save_network",
]

Network = TypeVar("Network", bound=nn.Module)

MOST_BYTES = 2**40
SHOWN = 3
"""Names that a message lists before "and n more"."""


def save_network(
    path: Path | str,
    module: nn.Module,
    config: AnyConfig,
    dtype: torch.dtype = torch.float16,
    **metadata: object,
) -> None:
    """Write a network's tensors, whole or not at all.

    Args:
        path: the file; its folder must exist. An existing file is replaced at the end.
        module: the network whose `state_dict` is saved.
        config: its configuration, saved as JSON, so that `load_network` needs the file alone.
        dtype: the dtype of the tensors in the file.
        metadata: licence, command, seed, figures, ...: strings as they are, other values as JSON.

    Raises:
        ValueError: a weight is not finite, or exceeds the range of `dtype`.
        OSError: the file cannot be written; an existing one is unchanged.
    """
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in module.state_dict().items()
    }
    _all_finite(path, tensors)
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    words |= {"config": to_json(config), "sha256": _digest(tensors)}
    output_folder.write_file(Path(path), save(tensors, words))


def exact_dtype(module: nn.Module) -> torch.dtype:
    """The first of float16, bfloat16 and float32 in which all weights of a network are exact."""
    for dtype in (torch.float16, torch.bfloat16):
        values = module.state_dict().values()
        if all(torch.equal(value.to(dtype).to(value.dtype), value) for value in values):
            return dtype
    return torch.float32


def read_metadata(path: Path | str) -> dict[str, str]:
    """The metadata of the file.

    Raises FileNotFoundError where there is no file, ValueError where it is not a safetensors file.
    """
    words, _ = _open(path, tensors=False)
    return words


def read_config(path: Path | str, kind: type[Config]) -> Config:
    """The configuration of the network in the file.

    Raises FileNotFoundError where there is no file, ValueError where it holds no such `kind`.
    """
    text = read_metadata(path).get("config")
    if text is None:
        raise ValueError(f"weights file {path} does not say what {kind.__name__} it belongs to")
    try:
        return from_json(kind, text)
    except ValueError as error:
        raise ValueError(f"weights file {path}: {error}") from error


def read_tensors(path: Path | str, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of the file for `module`, in its dtypes, on the CPU.

    Args:
        path: a safetensors file.
        module: the network, which may be on the meta device; names and shapes must equal its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or not a safetensors file; names are missing or
            unexpected; shapes differ; or weights are not finite. One line names all faults.
    """
    words, tensors = _open(path, tensors=True)
    wanted = module.state_dict()
    complaints = [
        _named("missing", [name for name in wanted if name not in tensors]),
        _named("unexpected", [name for name in tensors if name not in wanted]),
        _named("misshapen", list(_misshapen(wanted, tensors))),
    ]
    if any(complaints):
        faults = "; ".join(filter(None, complaints))
        raise ValueError(f"weights file {path} does not fit {type(module).__name__}: {faults}")
    if "sha256" in words and words["sha256"] != _digest(tensors):
        raise ValueError(f"weights file {path} is damaged: its checksum is not that of its tensors")
    _all_finite(path, tensors)
    return {name: tensors[name].to(value.dtype) for name, value in wanted.items()}


def load_network(path: Path | str, network: type[Network], kind: type[Config]) -> Network:
    """The network in the file, built from the configuration in it; float32, on the CPU.

    Nothing is initialised or allocated before the file has been checked.

    Args:
        path: a file of `save_network`.
        network: the class of the network.
        kind: the class of its configuration.

    Raises:
        FileNotFoundError, ValueError: as in `read_config` and `read_tensors`.
    """
    settings = read_config(path, kind)
    module = blank(network, settings)
    module.load_state_dict(read_tensors(path, module), strict=True, assign=True)
    return module.requires_grad_(False).eval()


def blank(network: type[Network], settings: AnyConfig) -> Network:
    """The network on the meta device: names and shapes without any memory for weights; float32."""
    with torch.device("meta"), _Unfilled():
        return network(settings).float()


class _Unfilled(TorchFunctionMode):
    """Skip the initialisation of parameters: on the meta device it imports torch's compiler, which
    takes a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _open(path: Path | str, tensors: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata of the file and, on request, its tensors."""
    path = require_regular(path, "weights file", MOST_BYTES)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if tensors else []
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"weights file {path} cannot be read: {reason}") from error


def _misshapen(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]


def _named(fault: str, names: list[str]) -> str:
    """A list such as "missing: a, b, c and 4 more", or nothing where nothing is wrong."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{fault}: {', '.join(names[:SHOWN])}{more}" if names else ""


def _all_finite(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    wild = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if wild:
        raise ValueError(f"weights file {path}: {_named('not finite', wild)}")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes; safetensors itself has no checksum."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
