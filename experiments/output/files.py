"""Files written whole or not at all, and values as JSON."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from sd.processes import launched


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write each file under a temporary name, then rename: whole, or not there.

    Nothing is renamed before everything is written. Raises ValueError where a file can't be.
    """
    temporary: list[tuple[Path, Path]] = []
    try:
        for name, content in files.items():
            target = folder / name
            unique = f"{launched().rank}-{os.getpid()}-{len(temporary)}"
            partial = folder / f".{unique}.tmp"  # short: a name may be long
            temporary.append((partial, target))
            partial.write_bytes(content)
        for partial, target in temporary:
            partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"can't write {error.filename or folder}: {reason}") from error
    finally:
        for partial, _ in temporary:
            partial.unlink(missing_ok=True)
    return [target for _, target in temporary]


def to_json(value: Any) -> bytes:
    """Indented JSON; paths become text, dataclasses objects, what is not finite null."""
    return utf8(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def utf8(text: str) -> bytes:
    r"""The text in UTF-8; the bytes of a file's name that are none are escaped, as JSON does."""
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
