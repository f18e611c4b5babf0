"""The input of the targets: small valid files of every kind, and ways to spoil their insides."""

import io
import json
import pickle
import random
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from sd.config import ModelConfig, TextConfig, UNetConfig, VAEConfig
from tests.fuzz.mutations import ODD_TEXTS, json_text, spoiled, spoiled_tree
from tests.support import small_models

SMALL = ModelConfig(
    text=TextConfig(vocab_size=50, width=64, heads=1, context_length=20, intermediate=96, layers=1),
    vae=VAEConfig(channels=(32, 32), layers_per_block=1),
    unet=UNetConfig(
        channels=(32, 32), context_width=64, attention=(True, False), layers_per_block=1
    ),
)
"""As v1.x, as few numbers as there can be."""


@cache
def tensors() -> dict[str, Tensor]:
    """A checkpoint in the original layout."""
    return small_models.single(SMALL)


@cache
def safetensors_file() -> bytes:
    return save(tensors(), {"format": "pt", "modelspec.architecture": "stable-diffusion-v1"})


def header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and the tensors' bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(text: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + body


def spoiled_safetensors(rng: random.Random, data: bytes, metadata: tuple[str, ...] = ()) -> bytes:
    """A safetensors file with its bytes, its header or its metadata spoiled."""
    tree, body = header(data)
    match rng.randrange(4):
        case 0:
            return spoiled(rng, data)
        case 1:
            said = tree.setdefault("__metadata__", {})
            for _ in range(rng.choice((1, 2, 4))):
                value = rng.choice((*ODD_TEXTS, "8", "1e9", json_text(rng, {"r": 4, "a": [1, 2]})))
                said[rng.choice(metadata or ODD_TEXTS)] = value
            return with_header(json.dumps(tree).encode("utf-8", "surrogatepass"), body)
        case 2:
            name = rng.choice([key for key in tree if key != "__metadata__"])
            entry = {name: spoiled_tree(rng, tree[name])}
            return with_header(json.dumps({**tree, **entry}).encode("utf-8", "replace"), body)
        case _:
            few = dict(list(tree.items())[: rng.choice((2, 5, 400))])
            return with_header(json_text(rng, few).encode("utf-8", "replace"), body)


def torch_file(value: Any, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def odd_object(rng: random.Random, depth: int = 0) -> Any:
    """What somebody may have put into a torch file."""
    leaves = (
        lambda: torch.randn(rng.choice(((), (0,), (3,), (2, 64), (1, 1, 1)))),
        lambda: torch.zeros(2, 3, device="meta"),
        lambda: torch.zeros(2, 64, dtype=rng.choice((torch.bool, torch.int64, torch.complex64))),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
        lambda: torch.zeros(3, 64)[:, ::2],
        lambda: torch.zeros(1).expand(10**6),
        lambda: torch.nn.Parameter(torch.full((2, 64), float("nan"))),
        lambda: rng.choice((None, 1, -1, 10**30, 1.5, True, b"\0", (1, 2), {3}, 1j, range(3))),
        lambda: rng.choice(ODD_TEXTS),
    )
    if depth > 3 or rng.random() < 0.5:
        return rng.choice(leaves)()
    if rng.random() < 0.2:
        return [odd_object(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = (*ODD_TEXTS[:12], "state_dict", "string_to_param", "*", "emb_params", "name", 5, (1,))
    return {rng.choice(keys): odd_object(rng, depth + 1) for _ in range(rng.randrange(5))}


HOSTILE = (
    b"cos\nsystem\n(S'touch owned'\ntR.",
    b"cposix\nsystem\n(S'touch owned'\ntR.",
    b"c__builtin__\neval\n(S'1'\ntR.",
    b'cbuiltins\nexec\n(S\'open("owned", "w")\'\ntR.',
    b"(S'touch owned'\nios\nsystem\n.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch owned\x85R.",
    b"csubprocess\nPopen\n((lS'touch'\naS'owned'\natR.",
    b"ctorch.hub\nload\n(S'a/b'\ntR.",
    b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n)R}S'a'\nI1\nsb.",
    b"c__main__\nAnything\n)\x81}b.",
    b"Pstorage\n.",
    b"\x80\x02X\xff\xff\xff\x7f.",
    b"(" * 10_000 + b".",
    b"]" + b"2a" * 5000 + b".",
)
"""Pickles that would run something, or grow."""


def hostile_zip(rng: random.Random) -> bytes:
    """A torch zip whose pickle is one of `HOSTILE`, or spoiled, or whose directory lies."""
    made = torch_file({"state_dict": {"a": torch.ones(2)}, "global_step": 3})
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                data = rng.choice((*HOSTILE, spoiled(rng, data), odd_pickle(rng)))
            packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            new.writestr(name, data, packed)
        if rng.random() < 0.2:
            new.writestr("archive/data/0", b"\0" * 10**7, zipfile.ZIP_DEFLATED)
    return out.getvalue() if rng.random() < 0.7 else spoiled(rng, out.getvalue())


def odd_pickle(rng: random.Random) -> bytes:
    """A pickle of plain values, spoiled."""
    value = spoiled_tree(rng, {"a": [1, 2.5, "x", None], "b": {"c": b"1" * 9}})
    return spoiled(rng, pickle.dumps(value, rng.randrange(6)))


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PDF", "EPS")


@cache
def image_file(kind: str, mode: str) -> bytes | None:
    """A small image of a format and mode, where Pillow can write it."""
    out = io.BytesIO()
    try:
        Image.linear_gradient("L").resize((24, 16)).convert(mode).save(out, kind)
    except (OSError, KeyError, ValueError):
        return None
    return out.getvalue()


def any_image(rng: random.Random) -> bytes:
    while True:
        modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16")
        data = image_file(rng.choice(FORMATS), rng.choice(modes))
        if data is not None:
            return data


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
