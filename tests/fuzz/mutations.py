"""Ways to spoil input: bytes, text, JSON trees, files of a folder; each a function of its `rng`."""

import json
import math
import os
import random
import struct
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

ODD_NUMBERS = (
    -1, 0, 1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    -(2**63), 10**9, 10**30, 0.5, -0.0, 1e-320, 1e300, math.inf, -math.inf, math.nan,
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\0", "\n", "\x1b[2J\x1b]0;title\x07", "\u202e", "\ud800", "a" * 300, "é" * 2000,
    "/etc/passwd", "../../..", "~", "-1", "nan", "1e400", "true", "https://a.invalid/b", "org/name",
    "%s%n", "{}", "[]", "x:y", "\\", "con", "v", "epsilon", "v_prediction",
)  # fmt: skip
ODD_VALUES = (
    None, True, False, [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": []}},
    [0] * 1000, *ODD_NUMBERS, *ODD_TEXTS,
)  # fmt: skip
DEPTHS = (50, 500, 5000, 200_000)
LARGE = 2000
"""Values of a tree that grows no further."""


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """Bytes with some flipped, cut, doubled, moved or put in; rarely as they were."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 10))):
        if not out:
            return bytes(out)
        at = rng.choice((rng.randrange(len(out)), rng.randrange(min(len(out), 256))))
        size = min(rng.choice((1, 1, 2, 4, 8, 64, 1000)), len(out) - at)
        match rng.randrange(8):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + size] = rng.randbytes(size)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size] * rng.choice((1, 2, 50))
            case 4:
                del out[at:]
            case 5:
                out[at : at + 8] = struct.pack(rng.choice("<>") + "q", rng.choice((-1, 0, 2**62)))
            case 6:
                out[at:at] = rng.randbytes(size)
            case _:
                out[at : at + size] = bytes([rng.choice((0, 0x20, 0x22, 0x7F, 0xFF))]) * size
    return bytes(out)


def spoiled_tree(rng: random.Random, tree: Any) -> Any:
    """A JSON tree in which some values are others, gone, or under another name."""
    tree = deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(islice(_places(tree), LARGE + 1))
        if not places:
            return rng.choice(ODD_VALUES)
        if len(places) > LARGE:
            return tree
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
            case 2:
                holder[key] = [holder[key]] * rng.choice((1, 2, 20))
            case 3:
                other, name = rng.choice(places)
                holder[key] = deepcopy(other.get(name) if isinstance(other, dict) else other)
            case _:
                holder[key] = rng.choice(ODD_VALUES)
    return tree


def _places(tree: Any) -> Any:
    """Every (holder, key) of the tree."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            keys = list(one) if isinstance(one, dict) else range(len(one))
            for key in keys:
                yield one, key
                waiting.append(one[key])


def json_text(rng: random.Random, tree: Any) -> str:
    """The tree, spoiled, as JSON: sometimes with a key twice, or nested without end."""
    tree = spoiled_tree(rng, tree) if rng.random() < 0.9 else tree
    text = json.dumps(tree, indent=rng.choice((None, 1)))
    match rng.randrange(12):
        case 0:
            depth = rng.choice(DEPTHS)
            text = "[" * depth + "]" * rng.choice((depth, depth - 1))
        case 1:
            depth = rng.choice(DEPTHS)
            text = '{"a":' * depth + "1" + "}" * depth
        case 2 if text.startswith("{"):
            text = '{"a": 1, "a": 2, ' + text[1:]
        case 3:
            text = text.replace(rng.choice(("0", "1", "8")), "9" * rng.choice((5, 400, 6000)), 1)
        case 4:
            text = spoiled(rng, text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return text


def json_bytes(rng: random.Random, tree: Any) -> bytes:
    """The same as a file's bytes, in encodings that editors write too."""
    text = json_text(rng, tree)
    encoding = rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig", "latin-1", "utf-32"))
    data = text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")
    return spoiled(rng, data) if rng.random() < 0.1 else data


def spoil_folder(rng: random.Random, folder: Path) -> None:
    """Some files of a folder spoiled, gone, renamed, doubled, or something that is no file."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        # Never through a link: what it leads to is not the case's to change.
        files = sorted(
            path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        if not files:
            return
        path = rng.choice(files)
        match rng.randrange(10):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(b"")
            case 2:
                path.unlink()
                path.mkdir()
            case 3:
                path.unlink()
                os.mkfifo(path)
            case 4:
                path.unlink()
                path.symlink_to(
                    rng.choice(("/dev/zero", "/dev/full", "/etc/shadow", ".", path.name))
                )
            case 5:
                path.rename(path.with_name(rng.choice(("a.bin", "x.fp16.safetensors", "é.json"))))
            case 6:
                path.write_bytes(rng.choice(files).read_bytes())
            case _ if path.suffix == ".json":
                tree = json.loads(path.read_text(encoding="utf-8"))
                path.write_bytes(json_bytes(rng, tree))
            case _:
                path.write_bytes(spoiled(rng, path.read_bytes()))
