"""A safetensors file, whose header is checked to the byte before a tensor is read."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from sd.checkpoint.mapped_file import Mapped
from sd.checkpoint.tensor_source import Entry, Source, checkpoint_error
from sd.files.regular_file import parse_json

__all__ = ["opened"]

LONGEST_HEADER = 100_000_000
"""The limit of the format on the header, in bytes."""
MOST_AXES = 16
MOST_TENSORS = 20_000
LONGEST_NAME = 500
"""Far above the needs of a model; work grows with the names."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file as a source. Raises ValueError for any fault."""
    entries, starts, metadata = _header(path)
    data = Mapped(path)

    def fetch(name: str, rows: slice | None) -> Tensor:
        entry = entries[name]
        flat = data.read(starts[name], math.prod(entry.shape), entry.dtype)
        return flat.reshape(entry.shape)[rows or ...]

    yield Source(path, entries, fetch, metadata, release=data.release)


def _header(path: Path) -> tuple[dict[str, Entry], dict[str, int], dict[str, str]]:
    """Names, shapes and dtypes; the start of each tensor in the file; the metadata."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise checkpoint_error(path, f"cut short: {size} bytes cannot hold a header")
        if length > LONGEST_HEADER:
            raise checkpoint_error(
                path,
                f"no weights: as safetensors its header would be {length} bytes, above the limit "
                f"of {LONGEST_HEADER}, and it is no zip of torch.save",
            )
        if 8 + length > size:
            raise checkpoint_error(
                path, f"cut short: its header is {length} bytes, the file {size}"
            )
        raw = file.read(length)
    try:
        header = parse_json(raw, once=True)
    except ValueError as error:
        raise checkpoint_error(path, f"no weights: its header is {error}") from error
    if not isinstance(header, dict):
        raise checkpoint_error(path, "no weights: its header is not a JSON object")
    words = header.pop("__metadata__", {})
    if len(header) > MOST_TENSORS or any(len(name) > LONGEST_NAME for name in header):
        limits = f"{MOST_TENSORS} tensors, or names of more than {LONGEST_NAME} characters"
        raise checkpoint_error(path, f"no weights: more than {limits}")
    entries, spans = {}, []
    for name, value in header.items():
        entry, start, end = _entry(path, name, value, size - 8 - length)
        entries[name] = entry
        spans.append((start, end, name))
    _tiled(path, sorted(spans), size - 8 - length)
    metadata = words if isinstance(words, dict) else {}
    starts = {name: 8 + length + start for start, _, name in spans}
    return entries, starts, {k: v for k, v in metadata.items() if isinstance(v, str)}


def _entry(path: Path, name: str, value: object, room: int) -> tuple[Entry, int, int]:
    """The entry of a tensor and its first and last byte, checked against its shape and the file."""
    try:
        kind, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]  # type: ignore[index]
        counts = (*shape, start, end)
        valid = all(type(n) is int and 0 <= n < 2**63 for n in counts) and start <= end
        valid = valid and len(shape) <= MOST_AXES and math.prod(filter(None, shape)) < 2**60
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid:
        raise checkpoint_error(path, f"the header's entry for {name} is not a tensor's")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise checkpoint_error(path, f"{name} is of type {kind}, not one of {', '.join(DTYPES)}")
    if end > room:
        raise checkpoint_error(path, f"cut short or lying: {name} ends at byte {end} of {room}")
    needed = math.prod(shape) * DTYPES[kind].itemsize
    if end - start != needed:
        raise checkpoint_error(
            path, f"{name} has {end - start} bytes where {kind} {tuple(shape)} is {needed}"
        )
    return Entry(tuple(shape), DTYPES[kind]), start, end


def _tiled(path: Path, spans: list[tuple[int, int, str]], room: int) -> None:
    """Raise ValueError unless the tensors cover the data exactly once, as the format requires."""
    reached, before = 0, "the header"
    for start, end, name in spans:
        if start < reached:
            raise checkpoint_error(path, f"{name} overlaps {before}")
        if start > reached:
            raise checkpoint_error(path, f"bytes {reached} to {start} belong to no tensor")
        reached, before = end, name
    if reached < room:
        raise checkpoint_error(path, f"bytes {reached} to {room} belong to no tensor")
