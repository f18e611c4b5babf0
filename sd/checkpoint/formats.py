"""Open a file of tensors, or several shards as one, by content."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import Tensor

from sd.checkpoint import pickle_file, safetensors_file
from sd.checkpoint.tensor_source import Source, checkpoint_error
from sd.files.regular_file import path_kind, require_regular

__all__ = ["is_zip", "joined", "opened"]

SHOWN_BYTES = 64
"""Bytes at the beginning of a file that identify its format."""
MOST_BYTES = 2**40
MOST_FILES = 256
"""Shards of one network; each takes a file descriptor."""


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The tensors of a file, recognised by content: safetensors or a zip of torch.save.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, is damaged, or contains more than tensors.
    """
    opener = pickle_file.opened if is_zip(path) else safetensors_file.opened
    with opener(path) as source:
        yield source


def is_zip(path: Path) -> bool:
    """Whether the file is a zip, as torch.save writes; if not, it may be safetensors.

    Raises FileNotFoundError if there is no file, ValueError if its first bytes are of neither.
    """
    if path_kind(path, "checkpoint") == "folder":
        raise checkpoint_error(path, "a folder; wanted a file")
    try:
        with require_regular(path, "checkpoint", MOST_BYTES).open("rb") as file:
            head = file.read(SHOWN_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise checkpoint_error(path, f"cannot be read ({error.strerror})") from error
    if head[8:9] == b"{":  # a safetensors header, whose length may begin with any byte
        return False
    _not_weights(path, head)
    return head.startswith(b"PK\x03\x04")


def _not_weights(path: Path, head: bytes) -> None:
    """Raise ValueError for files that are often in the place of a checkpoint."""
    if not head:
        raise checkpoint_error(path, "empty")
    if head.startswith(b"version https://git-lfs"):
        raise checkpoint_error(
            path, "a git-lfs pointer, not the file it stands for; run git lfs pull"
        )
    if head.lstrip()[:1] == b"<":
        raise checkpoint_error(
            path, "a web page, not weights; the download asked for a login or failed"
        )
    if head.startswith(b"\x80"):
        raise checkpoint_error(
            path,
            "a pickle in torch's format of before version 1.6, which cannot be memory-mapped; "
            "write it again with torch.save, or as .safetensors",
        )


@contextmanager
def joined(index: Path, files: Mapping[str, Path]) -> Iterator[Source]:
    """One source from the shards of an index; `files` maps each tensor to its file.

    Raises ValueError for a tensor that is not where the index says, or not in the index at all.
    """
    if len(set(files.values())) > MOST_FILES:
        raise checkpoint_error(
            index, f"in {len(set(files.values()))} files, above the limit of {MOST_FILES}"
        )
    with ExitStack() as stack:
        shards = {path: stack.enter_context(opened(path)) for path in sorted(set(files.values()))}
        for name, path in files.items():
            if name not in shards[path].entries:
                raise checkpoint_error(index, f"{name} is not in {path.name}")
        for path, shard in shards.items():
            for name in shard.entries:
                if files.get(name) != path:
                    raise checkpoint_error(index, f"{name} of {path.name} is not in the index")
        entries = {name: shards[path].entries[name] for name, path in files.items()}

        def fetch(name: str, rows: slice | None) -> Tensor:
            return shards[files[name]].fetch(name, rows)

        def release() -> None:
            for shard in shards.values():
                shard.release()

        yield Source(index, entries, fetch, release=release)
