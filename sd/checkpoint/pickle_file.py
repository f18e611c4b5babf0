"""A `.ckpt`, `.pt` or `.bin` of torch.save: a zip with a pickle, which is read but not executed."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sd.checkpoint.inert_pickle import HostileError, Inert, Stored, load_inert
from sd.checkpoint.mapped_file import Mapped
from sd.checkpoint.tensor_source import Entry, Source, checkpoint_error

__all__ = ["BESIDE_STATE_DICT", "load_pickle_file", "opened"]

LARGEST_PICKLE = 4 * 2**20
"""The largest pickle in bytes; a training checkpoint with optimiser states has below 2 MiB."""
MOST_ENTRIES = 100_000
END = b"PK\x05\x06"
END_LENGTH = 22
LOCAL = b"PK\x03\x04"
LOCAL_LENGTH = 30
BESIDE_STATE_DICT = "beside the state_dict"
"""The reason in the report for counters, optimiser states and callbacks."""


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The `state_dict` of the file, or the file itself if it has none, as a source.

    Raises ValueError for a file that is damaged or claims more than it holds.
    """
    archive = _archive(path)
    tensors, aside, metadata = _contents(archive)
    entries = {name: Entry(value.size, value.dtype) for name, value in tensors.items()}
    data = Mapped(path)

    def fetch(name: str, rows: slice | None) -> Tensor:
        return _tensor(data, archive, tensors[name])[rows or ...]

    yield Source(path, entries, fetch, metadata, aside, data.release)


class _Archive(NamedTuple):
    """A zip of torch.save: the bytes of its pickle, and the place of each storage in the file."""

    path: Path
    pickle: bytes
    storages: Mapping[str, tuple[int, int]]


def _contents(archive: _Archive) -> tuple[dict[str, Stored], dict[str, str], dict[str, str]]:
    """The tensors; other values, each with a description; the metadata."""
    path, whole = archive.path, _values(archive)
    if not isinstance(whole, dict):
        raise checkpoint_error(path, f"no weights: it holds a {_kind(whole)}, not tensors by name")
    inner = whole.get("state_dict")
    states = inner if isinstance(inner, dict) else whole
    tensors: dict[str, Stored] = {}
    aside: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name, value in states.items():
        if isinstance(name, str) and _is_tensor(value):
            tensors[name] = _dense(archive, name, value)
        else:
            aside[_word(name)] = f"of type {_kind(value)}"
    if states is not whole:
        outside = {_word(name): value for name, value in whole.items() if name != "state_dict"}
        aside |= dict.fromkeys(outside, BESIDE_STATE_DICT)
        metadata = {name: value for name, value in outside.items() if isinstance(value, str)}
    size = path.stat().st_size
    held = sum(Entry(value.size, value.dtype).size for value in tensors.values())
    if held > size:
        raise checkpoint_error(
            path, f"its tensors are {held} bytes in a file of {size}: bytes are shared"
        )
    return tensors, aside, metadata


def load_pickle_file(path: Path) -> Any:
    """The value that torch.save wrote, with memory-mapped tensors; no code of the file is executed.

    A value that is neither plain nor a dense tensor becomes an `Inert` of its name. Raises
    ValueError for a zip that is damaged or not of torch.save.
    """
    archive = _archive(path)
    data = Mapped(path)

    def alive(name: str, value: Any, depth: int) -> Any:
        if isinstance(value, Stored):
            return _tensor(data, archive, _dense(archive, name, value))
        if isinstance(value, dict) and depth:
            return {key: alive(_word(key), inner, depth - 1) for key, inner in value.items()}
        return value

    return alive("its value", _values(archive), 2)


def _values(archive: _Archive) -> Any:
    """The value of the pickle: plain values, `Stored` and `Inert`."""
    try:
        return load_inert(archive.pickle)
    except HostileError as error:
        raise checkpoint_error(archive.path, f"its pickle {error}") from error
    except Exception as error:  # a damaged pickle can make the reader raise anything
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise checkpoint_error(archive.path, f"its pickle cannot be read ({first})") from error


def _archive(path: Path) -> _Archive:
    """The zip, after a check of its directory against the size of the file.

    The directory must end the file, without a comment, so that all readers find the same one.
    """
    if path.suffix == ".safetensors":
        raise checkpoint_error(
            path, "a zip of torch.save under the name .safetensors; rename it to .ckpt"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - END_LENGTH))
        tail = file.read()
    if not tail.startswith(END) or tail[-2:] != b"\0\0":
        raise checkpoint_error(path, "cut short: the file does not end with its zip directory")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises some ten classes for a damaged directory
        raise checkpoint_error(path, f"its zip directory is damaged ({error})") from error
    if len(members) > MOST_ENTRIES:
        raise checkpoint_error(
            path, f"a zip of {len(members)} files, above the limit of {MOST_ENTRIES}"
        )
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise checkpoint_error(
                path, f"{member.filename} is compressed, which torch.save does not do"
            )
        if not 0 <= member.header_offset <= size - member.file_size:
            raise checkpoint_error(
                path, f"{member.filename} claims {member.file_size} bytes of {size}"
            )
    total = sum(member.file_size for member in members)
    if total > size:
        raise checkpoint_error(path, f"its parts claim {total} bytes together, the file has {size}")
    named = {member.filename: member for member in members}
    if len(named) != len(members):
        raise checkpoint_error(path, "two files of its zip have one name")
    pickles = [name for name in named if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise checkpoint_error(path, "a zip that torch.save did not write: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if (length := named[pickles[0]].file_size) > LARGEST_PICKLE:
        raise checkpoint_error(path, f"its pickle is {length} bytes, above {LARGEST_PICKLE}")
    with path.open("rb") as file:

        def span(member: zipfile.ZipInfo) -> tuple[int, int]:
            """The start of a member's bytes, by its own header, and their number."""
            file.seek(member.header_offset)
            head = file.read(LOCAL_LENGTH)
            names, extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
            start = member.header_offset + LOCAL_LENGTH + names + extra
            if head[:4] != LOCAL or start + member.file_size > size:
                raise checkpoint_error(
                    path, f"its zip directory is damaged ({member.filename} is not there)"
                )
            return start, member.file_size

        def content(member: zipfile.ZipInfo) -> bytes:
            start, length = span(member)
            file.seek(start)
            return file.read(length)

        order = named.get(f"{root}byteorder")
        if order is not None and content(order) != b"little":
            raise checkpoint_error(path, "its numbers are not in the byte order of this machine")
        start = f"{root}data/"
        return _Archive(
            path,
            content(named[pickles[0]]),
            {
                name.removeprefix(start): span(member)
                for name, member in named.items()
                if name.startswith(start)
            },
        )


def _is_tensor(value: object) -> bool:
    """Whether the value is a tensor of any kind."""
    return isinstance(value, Stored) or (
        isinstance(value, Inert) and value.called.startswith("torch.")
    )


def _dense(archive: _Archive, name: str, value: Any) -> Stored:
    """The tensor, if it is dense and its bytes are in the file."""
    path = archive.path
    if not isinstance(value, Stored):
        raise checkpoint_error(path, f"{name} is not a dense tensor")
    _, room = archive.storages.get(value.key, (0, 0))
    if value.capacity > room:
        raise checkpoint_error(
            path, f"{name} claims a storage of {value.capacity} bytes, the file has {room}"
        )
    needed = Entry(value.size, value.dtype).size
    if needed > value.capacity:
        raise checkpoint_error(path, f"{name} claims {needed} bytes and shares fewer")
    last = value.offset + sum((n - 1) * by for n, by in zip(value.size, value.stride, strict=True))
    if needed and (last + 1) * value.dtype.itemsize > value.capacity:
        raise checkpoint_error(path, f"{name} reaches beyond its storage of {value.capacity} bytes")
    return value


def _tensor(data: Mapped, archive: _Archive, value: Stored) -> Tensor:
    """The tensor, memory-mapped."""
    if not Entry(value.size, value.dtype).size:
        return data.read(0, 0, value.dtype).reshape(value.size)
    start, _ = archive.storages[value.key]
    flat = data.read(start, value.capacity // value.dtype.itemsize, value.dtype)
    return flat.as_strided(value.size, value.stride, value.offset)


def _word(name: object) -> str:
    """A name for messages; a key that is not a string may be long."""
    if isinstance(name, str):
        return name
    return str(name) if isinstance(name, int) else f"({_kind(name)})"


def _kind(value: object) -> str:
    """The type of a value, as the file names it."""
    if isinstance(value, Inert):
        return value.called
    return "tensor" if isinstance(value, Stored) else type(value).__name__
