"""A `.ckpt`, `.pt` or `.bin` of torch.save: a zip of bytes and a pickle, read but not run."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sd.checkpoint.source import Entry, Source, ill

__all__ = ["opened", "unpickled"]

LARGEST_PICKLE = 32 * 2**20
"""Bytes of the pickle itself; a training checkpoint's with optimizer states is below 2 MiB."""
MOST_ENTRIES = 100_000
END = b"PK\x05\x06"
END_LENGTH = 22
GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file's `state_dict`, or the file where it has none, as a source.

    Raises ValueError, in one line, for what is damaged, larger than it says, or not tensors alone.
    """
    stamp = _stamp(path)
    tensors, aside, metadata = _contents(path)
    entries = {name: Entry(tuple(value.shape), value.dtype) for name, value in tensors.items()}

    def fetch(name: str, rows: slice | None) -> Tensor:
        if not tensors:  # released
            if _stamp(path) != stamp:
                raise ill(path, "changed or removed since it was first read")
            tensors.update(_contents(path)[0])
        return tensors[name] if rows is None else tensors[name][rows]

    yield Source(path, entries, fetch, metadata, aside, tensors.clear)
    tensors.clear()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What tells a file from another of its name; None where there is none."""
    if not path.exists():
        return None
    told = path.stat()
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns


def _contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """The tensors; what else there is, each with a word on it; what the file says of itself."""
    whole = unpickled(path)
    if not isinstance(whole, Mapping):
        raise ill(path, f"no weights: it holds a {type(whole).__name__}, not tensors by name")
    inner = whole.get("state_dict")
    states = inner if isinstance(inner, Mapping) else whole
    tensors: dict[str, Tensor] = {}
    aside: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name, value in states.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = _plain(path, name, value)
        else:
            aside[str(name)] = f"of type {type(value).__name__}"
    if states is not whole:
        outside = {str(name): value for name, value in whole.items() if name != "state_dict"}
        aside |= dict.fromkeys(outside, "beside the state_dict")
        metadata = {name: value for name, value in outside.items() if isinstance(value, str)}
    size, held = path.stat().st_size, sum(_bytes(tensor) for tensor in tensors.values())
    if held > size:
        raise ill(path, f"its tensors are {held} bytes in a file of {size}: bytes are shared")
    return tensors, aside, metadata


def unpickled(path: Path) -> Any:
    """What torch.save wrote, by torch's restricted unpickler alone, memory-mapped.

    Raises ValueError, in one line, for a zip that is not torch's or a pickle that asks for more.
    """
    _bounded(path)
    if path.suffix == ".safetensors":
        raise ill(path, "a zip of torch.save under the name .safetensors; rename it to .ckpt")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        asked = GLOBAL.search(str(error))
        if asked is None:
            first = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ill(path, f"its pickle cannot be read ({first})") from error
        raise ill(
            path,
            f"its pickle asks for {asked[1]}, which is not run: a pickle may carry any program; "
            "if you trust its source, load it elsewhere with torch.load(..., weights_only=False) "
            "and write its tensors as .safetensors",
        ) from error


def _bounded(path: Path) -> None:
    """Raise unless the zip's directory describes stored bytes that the file can hold.

    The directory must end the file, without a comment, so that no two readers can find two.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - END_LENGTH))
        tail = file.read()
    if not tail.startswith(END) or tail[-2:] != b"\0\0":
        raise ill(path, "cut short: the file does not end with its zip directory")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ill(path, f"its zip directory is damaged ({error})") from error
    if len(members) > MOST_ENTRIES:
        raise ill(path, f"a zip of {len(members)} files, above the limit of {MOST_ENTRIES}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ill(path, f"{member.filename} is compressed, which torch.save does not do")
        if member.header_offset + member.file_size > size:
            raise ill(path, f"{member.filename} claims {member.file_size} bytes of {size}")
        if member.filename.endswith(".pkl") and member.file_size > LARGEST_PICKLE:
            raise ill(path, f"its pickle is {member.file_size} bytes, above {LARGEST_PICKLE}")
    total = sum(member.file_size for member in members)
    if total > size:
        raise ill(path, f"its parts claim {total} bytes together, the file has {size}")
    if not any(member.filename.endswith("/data.pkl") for member in members):
        raise ill(path, "a zip that torch.save did not write: it has no data.pkl")


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    """The tensor if it is a dense one, each of whose numbers has its own bytes."""
    dense = tensor.layout == torch.strided and not tensor.is_quantized
    if not dense or tensor.device.type != "cpu":
        raise ill(path, f"{name} is not a dense tensor")
    if _bytes(tensor) > tensor.untyped_storage().nbytes():
        raise ill(path, f"{name} claims {_bytes(tensor)} bytes and shares fewer")
    return tensor.detach()
