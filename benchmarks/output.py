"""The results of a run in their folder: checked before the work, written whole after it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sd.files.output_folder import write_file

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
FULL_SIZE = "v1.5"
"""How the name of a row of Stable Diffusion begins."""

_Row = TypeVar("_Row")


def read_json(path: Path) -> dict[str, Any] | None:
    """What an earlier run wrote, or None where there is no file.

    Raises ValueError, which names the file, if it is no JSON object.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(found, dict):
        raise damaged(path, f"a {type(found).__name__}")
    return found


def damaged(path: Path, found: object) -> ValueError:
    """The error of a file that no run wrote."""
    wanted = "a table that python -m benchmarks wrote"
    return ValueError(f"{path}: wanted {wanted}, got {found}; restore or remove it")


def require_page(path: Path) -> None:
    """Raise ValueError, which names the page, if it is there and has no place for a table."""
    if path.exists():
        between(path, ())


def between(page: Path, body: Sequence[str]) -> str:
    """A page with these lines between its two marks; ValueError unless it has one of each."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end or {text.count(BEGIN), text.count(END)} != {1}:
        raise ValueError(f"{page}: wanted one {BEGIN} and after it one {END}")
    return "\n".join([head.rstrip(), "", BEGIN, *body, END, "", tail.lstrip("\n")])


def is_timed(name: str, small: bool, full_size: bool) -> bool:
    """Whether a row is of this run: of Stable Diffusion (`full_size`), or of all else (`small`)."""
    return full_size if name.startswith(FULL_SIZE) else small


def beside(
    path: Path, rows: Sequence[_Row], last: Mapping[str, Any], now: Mapping[str, Any], drop: bool
) -> list[_Row]:
    """Those rows of an earlier run that may stand beside the new ones: all, or with `drop` none.

    Args:
        path: the file with them.
        rows: those that are not timed now.
        last, now: "machine" and "versions" of the file and of this run.
        drop: drop the rows if one of those has changed.

    Raises ValueError, which names what has changed, where something has and `drop` is not set.
    """
    pairs = {"machine": (last["machine"], now["machine"])}
    for name in {**last["versions"], **now["versions"]}:
        pairs[name] = tuple(one["versions"].get(name, "none") for one in (last, now))
    changed = [f"{name} was {was}, is {one}" for name, (was, one) in pairs.items() if was != one]
    if not (rows and changed):
        return list(rows)
    if drop:
        return []
    raise ValueError(
        f"--out: {len(rows)} rows of {path} are not timed now and can't stand beside new ones: "
        f"{'; '.join(changed)}. Time all rows, name another folder, or drop these by --replace"
    )


def write_results(folder: Path, name: str, data: Mapping[str, Any], body: Sequence[str]) -> Path:
    """Write NAME.json, and the table of the page NAME.md if there is one; return the former."""
    path, page = folder / f"{name}.json", folder / f"{name}.md"
    write_file(path, (json.dumps(data, indent=1) + "\n").encode())
    if page.exists():
        write_file(page, between(page, body).encode())
    return path
