"""A folder of captioned images, checked before any work.

The layout is that of Hugging Face's imagefolder: images, also in folders inside, and beside them
`metadata.csv` or `metadata.jsonl` with the columns `file_name` and `text` (or `caption`). In their
place `captions.txt` may have a line `file<TAB>caption` for each image. Several lines, or a list in
JSON, give an image several captions. Names are relative to the folder.
"""

import csv
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np
import numpy.typing as npt

from sd.command_line.terminal import escaped
from sd.files import image_tensor
from sd.files.image_file import open_image
from sd.files.regular_file import parse_json, read_bytes
from sd.text.prompt import encodable

__all__ = ["Folder", "read_folder"]

Pixels = npt.NDArray[np.uint8]

CAPTIONS = ("metadata.csv", "metadata.jsonl", "captions.txt")
COLUMNS = ("text", "caption")
IMAGES = frozenset(
    {
        *("png", "apng", "jpg", "jpeg", "jfif", "webp", "gif", "bmp", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "avif"),
    }
)
"""The endings of names that `sd.files.image_file` reads."""
LARGEST = 2**30
"""The largest file of captions in bytes."""
KEPT = 2**30
"""Images that together have at most this many bytes stay in memory; others are read at each use."""
SHOWN = 3
"""Names that a message lists before "and n more"."""
FEWEST = 2
"""Images without which there is nothing to tell apart."""


@final
@dataclass(frozen=True, eq=False)
class Folder:
    """Captioned images of `side` x `side` pixels, in the order of their names.

    Attributes:
        path: the folder.
        names: the images, relative to the folder.
        captions: one or more of each image.
        side: of the images, which are scaled to cover it and cropped at the centre.
        digests: of the pixels of each image.
    """

    path: Path
    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    side: int
    digests: tuple[str, ...]
    _kept: dict[int, Pixels] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Pixels:
        """Image `index`, uint8 of shape (side, side, 3)."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        with warnings.catch_warnings():  # `read_folder` has told of them
            warnings.simplefilter("ignore", UserWarning)
            image = image_tensor.read_image(self.path / self.names[index])
        return np.asarray(image_tensor.fit(image, self.side, self.side))

    @property
    def fingerprint(self) -> str:
        """The first digits of a SHA-256 over all pixels and captions, in their order."""
        found = hashlib.sha256(f"{self.side}\n".encode())
        for digest, said in zip(self.digests, self.captions, strict=True):
            found.update("\0".join([digest, *said, "\n"]).encode())
        return found.hexdigest()[:16]


def read_folder(path: Path, side: int, option: str = "--data", size: str = "--size") -> Folder:
    """The captioned images of a folder, every file of it checked.

    Args:
        path: the folder.
        side: height and width of the images in pixels; no image may be smaller.
        option, size: the flags of the two, for messages.

    Warns:
        UserWarning: once for each of: images in another mode than RGB, which are converted (to
            sRGB, on white where transparent); files that are no images and not read; damaged
            metadata of images.

    Raises:
        ValueError: one line with every fault of the folder: no captions or two files of them, a
            line without a name or a caption, captions of files that are missing, images without
            captions, empty, broken or small images, fewer than two images.
    """
    where = f"{option} {escaped(str(path))}"
    if not path.is_dir():
        raise ValueError(f"{where}: wanted a folder of images")
    lists = [name for name in CAPTIONS if (path / name).is_file()]
    if len(lists) != 1:
        found = " and ".join(lists) or "none"
        raise ValueError(f"{where}: wanted one of {', '.join(CAPTIONS)}, got {found}")
    faults: dict[str, list[str]] = {}
    said: dict[str, list[str]] = {}
    columns: set[str] = set()
    try:
        for name, texts in _captions(path / lists[0], faults, columns):
            said.setdefault(name, []).extend(texts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    present, others = _files(path, lists[0])
    named = {name: texts for name, texts in said.items() if (path / name).is_file()}
    missing = [name for name in said if name not in named]
    _add(faults, "file", "in the captions that does not exist", missing)
    bare = sorted(present - said.keys())
    _add(faults, "image", "without a caption", bare)
    names = tuple(sorted(named))
    folder = Folder(path, names, tuple(tuple(named[name]) for name in names), side, ())
    digests = _checked(folder, faults, where, size)
    if len(names) < FEWEST:
        faults[f"image\0with a caption, wanted {FEWEST} or more"] = list(names)
    if faults:
        raise ValueError(f"{where}: {'; '.join(_told(faults))}")
    for what, unread in (("files", others - said.keys()), ("columns", columns)):
        if unread:
            warnings.warn(f"{where}: {what} not read: {_shown(sorted(unread))}", stacklevel=2)
    return Folder(path, names, folder.captions, side, digests, folder._kept)


def _checked(
    folder: Folder, faults: dict[str, list[str]], where: str, size: str
) -> tuple[str, ...]:
    """Read every image and keep it, if there is room; the digests of their pixels."""
    side, digests, modes = folder.side, [], Counter[str]()
    keep = len(folder) * side * side * 3 <= KEPT
    odd: list[str] = []
    for index, name in enumerate(folder.names):
        path = folder.path / name
        if path.stat().st_size == 0:
            _add(faults, "file", "of 0 bytes", [name])
            continue
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            try:
                opened = open_image(path)
                image = image_tensor.rgb(opened, "image")
            except ValueError as error:
                why = str(error).removeprefix(f"image {path} ").removeprefix("image: ")
                _add(faults, "image", "that cannot be read", [f"{name} ({why})"])
                continue
        odd += [f"{name} ({one.message})" for one in given]
        if min(image.size) < side:
            measure = f"{name} ({image.width} x {image.height})"
            _add(faults, "image", f"smaller than {size} {side}", [measure])
            continue
        if opened.mode != "RGB":
            modes[opened.mode] += 1
        pixels = np.asarray(image_tensor.fit(image, side, side))
        digests.append(hashlib.sha256(pixels.tobytes()).hexdigest())
        if keep:
            folder._kept[index] = pixels
    if modes and not faults:
        several = ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items()))
        what = f"{modes.total()} of {len(folder)} images are converted to RGB ({several})"
        warnings.warn(f"{where}: {what}; transparent pixels become white", stacklevel=3)
    if odd and not faults:
        warnings.warn(f"{where}: {_shown(odd)}", stacklevel=3)
    return tuple(digests)


def _files(path: Path, captions: str) -> tuple[set[str], set[str]]:
    """The names of the images and of the other files; hidden ones and the captions count not."""
    images: set[str] = set()
    others: set[str] = set()
    for parent, folders, names in os.walk(path):
        folders[:] = [one for one in folders if not one.startswith(".")]
        for one in names:
            name = (Path(parent) / one).relative_to(path).as_posix()
            if one.startswith(".") or name == captions:
                continue
            ending = one.rpartition(".")[2].lower() if "." in one else ""
            (images if ending in IMAGES else others).add(name)
    return images, others


def _captions(
    path: Path, faults: dict[str, list[str]], unread: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """Each entry: the name of an image, with its captions.

    Faulty lines are added to `faults`, columns of another meaning to `unread`.
    """
    try:
        text = read_bytes(path, "captions", LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not in UTF-8 ({error.reason})") from error
    if path.name == "captions.txt":
        rows = _of_text(text)
    else:
        table = path.suffix == ".csv"
        rows = _of_table(path, text, unread) if table else _of_json(text, unread)
    for line, name, given in rows:
        at = f"{path.name}:{line}"
        if not isinstance(name, str) or not name.strip() or _outside(name):
            _add(faults, "line", "without the name of a file in the folder", [at])
            continue
        texts = [" ".join(one.split()) if encodable(one) else "" for one in given]
        if not texts or not all(texts):
            _add(
                faults,
                "line",
                "without a caption (or with a comma outside quotes)"
                if path.suffix == ".csv"
                else "without a caption",
                [at],
            )
            continue
        yield PurePosixPath(name.strip()).as_posix(), texts


Row = tuple[int, Any, Sequence[Any]]
"""The number of a line, the name in it, and its captions, of any type."""


def _of_text(text: str) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            name, _, caption = line.rstrip("\n").partition("\t")
            yield number, name, [caption]


def _of_table(path: Path, text: str, unread: set[str]) -> Iterator[Row]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(rows.fieldnames or ())
        column = _column(columns)
        if "file_name" not in columns or column is None:
            wanted = f"the columns file_name and one of {', '.join(COLUMNS)}"
            raise ValueError(f"{path.name}: wanted {wanted}, got {', '.join(columns) or 'none'}")
        unread.update({*columns} - {"file_name", column})
        for row in rows:  # a cell too many is a comma in a caption without quotes
            yield rows.line_num, row["file_name"], [] if None in row else [row[column]]
    except csv.Error as error:
        raise ValueError(f"{path.name}:{rows.line_num}: {error}") from error


def _of_json(text: str, unread: set[str]) -> Iterator[Row]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            yield number, None, []
            continue
        column = _column(list(row))
        unread.update({*row} - {"file_name", column})
        given = row.get(column) if column else None
        yield number, row.get("file_name"), given if isinstance(given, list) else [given]


def _column(names: Sequence[str]) -> str | None:
    """The column of captions; None without one, or with both."""
    found = [name for name in COLUMNS if name in names]
    return found[0] if len(found) == 1 else None


def _outside(name: str) -> bool:
    """Whether a name leaves the folder, or cannot be one."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\0" in name


def _add(faults: dict[str, list[str]], noun: str, fault: str, names: Iterable[str]) -> None:
    for name in names:
        faults.setdefault(f"{noun}\0{fault}", []).append(name)


def _told(faults: dict[str, list[str]]) -> Iterator[str]:
    """Each kind of fault: "2 images without a caption (a.png, b.png)"."""
    for key, names in faults.items():
        noun, fault = key.split("\0")
        shown = f" ({_shown(names)})" if names else ""
        yield f"{len(names)} {noun}{'s' * (len(names) != 1)} {fault}{shown}"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return escaped(", ".join(names[:SHOWN])) + more
