"""Files that are no checkpoint, or a broken or a hostile one, each with the line it deserves."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support import small_models
from tests.support.small_models import V1

NOT_ONE = "not a text-to-image one of Stable Diffusion v1 or v2"
UNET = "model.diffusion_model."
Writer = Callable[[Path], object]


def header(words: object, data: bytes = b"") -> bytes:
    raw = json.dumps(words).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def raw(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)


def tensors(**values: Tensor) -> Writer:
    """A safetensors file of a few names; two underscores stand for a dot."""
    return lambda path: save_file({k.replace("__", "."): v for k, v in values.items()}, path)


def saved(values: object) -> Writer:
    return lambda path: torch.save(values, path)


def changed(change: Callable[[dict[str, Tensor]], object]) -> Writer:
    """The small v1 after a change of its tensors in place."""

    def write(path: Path) -> None:
        found = small_models.single(V1)
        change(found)
        save_file(found, path)

    return write


def cut(path: Path) -> None:
    torch.save(small_models.single(V1), path)
    path.write_bytes(path.read_bytes()[:-100])


def cut_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(8), "b": torch.zeros(8)}, path)
    path.write_bytes(path.read_bytes()[:-4])


def zipped(compression: int = zipfile.ZIP_STORED, **files: bytes) -> Writer:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in files.items():
                archive.writestr(f"archive/{name.replace('_', '.')}", content)

    return write


def bomb(path: Path) -> None:
    """A hundred thousand to one: the pickle deflated."""
    zipped(zipfile.ZIP_DEFLATED, data_pkl=b"\0" * 10_000_000)(path)
    assert path.stat().st_size < 20_000


def lying_zip(path: Path) -> None:
    """A directory that declares 4 GB for a stored file of a few bytes."""
    zipped(data_pkl=b"x" * 100)(path)
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\x01\x02")
    whole[at + 20 : at + 28] = struct.pack("<II", 4_000_000_000, 4_000_000_000)
    path.write_bytes(whole)


def overlapping_zip(path: Path) -> None:
    """Every entry of the directory is one and the same stored file."""
    zipped(data_pkl=b"x" * 1000)(path)
    whole = path.read_bytes()
    at, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    entries = whole[at:end] * 50
    tail = bytearray(whole[end:])
    tail[8:16] = struct.pack("<HHI", 50, 50, len(entries))
    path.write_bytes(whole[:at] + entries + tail)


def two_ends(path: Path) -> None:
    """A good zip with another zip's end in the comment of its directory."""
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x05\x06" + bytes(16) + b"\x01\x00x"


def torch_zip(content: bytes) -> Writer:
    """A zip as torch.save's, around any pickle."""
    return zipped(data_pkl=content, version=b"3\n", byteorder=b"little")


class Callback:
    """As pytorch_lightning keeps in a checkpoint."""


Callback.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
Callback.__qualname__ = Callback.__name__ = "ModelCheckpoint"


def with_callback(path: Path) -> None:
    """The pickle of {'state_dict': {}, 'callbacks': an object of an unknown class}."""
    name = b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    torch_zip(b"\x80\x02}(X\n\x00\x00\x00state_dict}X\x09\x00\x00\x00callbacks" + name + b")Ru.")(
        path
    )


def shared(path: Path) -> None:
    """A tensor of two gigabytes with one number behind it."""
    torch.save({"unet.down_blocks.0": torch.zeros(1).expand(500_000_000)}, path)


def many_names(path: Path) -> None:
    one = torch.zeros(10_000)
    torch.save({f"tensor{i}": one for i in range(100)}, path)


def lora(path: Path) -> None:
    save_file({"lora_unet_conv_in.lora_down.weight": torch.zeros(4, 4, 3, 3)}, path)


OVERLAP = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
}
BEYOND = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
LIE = {"a": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 16]}}
HOLE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}
REST = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
COMPLEX = {"a": {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}
NEGATIVE = {"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}
TWICE = b'{"a": {}, "a": {}}'
OUT = torch.zeros(4, 9, 3, 3)
ASKS = "which is not run: no file of weights has a use for it, so do not trust this one"
BAD: dict[str, tuple[Writer, str]] = {
    "empty": (raw(b""), "empty"),
    "three bytes": (raw(b"abc"), "cut short: 3 bytes cannot hold a header"),
    "a web page": (
        raw(b"<!DOCTYPE html><html><body>Sign in</body></html>"),
        "a web page, not weights; the download asked for a login or failed",
    ),
    "git-lfs": (
        raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4265146304\n"),
        "a git-lfs pointer, not the file it stands for; run git lfs pull",
    ),
    "text": (
        raw(b"not weights at all"),
        "no weights: as safetensors its header would be 7451598620781211502 bytes, above the limit "
        "of 100000000, and it is no zip of torch.save",
    ),
    "old pickle": (
        lambda path: torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False),
        "a pickle in torch's format of before version 1.6, which cannot be memory-mapped; write it "
        "again with torch.save, or as .safetensors",
    ),
    "long header": (
        raw(struct.pack("<Q", 10_000) + b"{}"),
        "cut short: its header is 10000 bytes, the file 10",
    ),
    "no JSON": (raw(struct.pack("<Q", 4) + b"{abc"), None),
    "a name twice": (
        raw(struct.pack("<Q", len(TWICE)) + TWICE),
        "no weights: its header is not valid JSON (a repeated name)",
    ),
    "no entry": (
        raw(header({"a": {"shape": 3}})), "the header's entry for a is not a tensor's"
    ),
    "many axes": (
        raw(header({"a": {"dtype": "F32", "shape": [2**62] * 99, "data_offsets": [0, 0]}})),
        "the header's entry for a is not a tensor's",
    ),
    "a name that writes on the terminal": (
        raw(header({"a\n\x1b[2J": {}})), "the header's entry for a\\n\\x1b[2J is not a tensor's"
    ),
    "negative": (
        raw(header(NEGATIVE, bytes(16))), "the header's entry for a is not a tensor's"
    ),
    "strange type": (
        raw(header(COMPLEX, bytes(16))),
        "a is of type C64, not one of F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, "
        "U8, BOOL",
    ),
    "beyond the file": (
        raw(header(BEYOND, bytes(8))), "cut short or lying: a ends at byte 16 of 8"
    ),
    "overlapping": (raw(header(OVERLAP, bytes(12))), "b overlaps a"),
    "shape and bytes": (
        raw(header(LIE, bytes(16))), "a has 16 bytes where F32 (1000, 1000) is 4000000"
    ),
    "a hole": (raw(header(HOLE, bytes(16))), "bytes 0 to 8 belong to no tensor"),
    "a rest": (raw(header(REST, bytes(16))), "bytes 8 to 16 belong to no tensor"),
    "cut safetensors": (cut_safetensors, "cut short or lying: b ends at byte 64 of 60"),
    "cut zip": (cut, "cut short: the file does not end with its zip directory"),
    "bomb": (bomb, "archive/data.pkl is compressed, which torch.save does not do"),
    "lying zip": (lying_zip, "archive/data.pkl claims 4000000000 bytes of 230"),
    "overlapping zip": (
        overlapping_zip, "its parts claim 50000 bytes together, the file has 4168"
    ),
    "a zip with two ends": (  # one reader may take the first directory, another the second
        two_ends, "cut short: the file does not end with its zip directory"
    ),
    "another zip": (
        zipped(readme_txt=b"hello"), "a zip that torch.save did not write: it has no data.pkl"
    ),
    "garbled pickle": (torch_zip(b"\x80\x02\xff"), None),
    "callback": (  # which is read, and there is nothing else
        with_callback, "none of a text encoder, VAE, U-Net is in it, by its names"
    ),
    "a list": (saved([1, 2]), "no weights: it holds a list, not tensors by name"),
    "shared bytes": (shared, "unet.down_blocks.0 claims 2000000000 bytes and shares fewer"),
    "one tensor, many names": (many_names, None),
    "sparse": (
        saved({"a": torch.zeros(3, 3).to_sparse()}), "a is not a dense tensor"
    ),
    "LoRA": (lora, f"a LoRA file, {NOT_ONE}"),
    "embedding": (
        tensors(emb_params=torch.zeros(2, 8)), f"a textual-inversion embedding, {NOT_ONE}"
    ),
    "ControlNet": (
        tensors(control_model__input_hint_block__0__weight=torch.zeros(1)),
        f"a ControlNet checkpoint, {NOT_ONE}",
    ),
    "SDXL": (
        tensors(conditioner__embedders__0__transformer__text_model__a=torch.zeros(1)),
        f"an SDXL checkpoint, {NOT_ONE}",
    ),
    "SD3": (
        tensors(model__diffusion_model__joint_blocks__0__x_block__a=torch.zeros(1)),
        f"a Stable Diffusion 3 checkpoint, {NOT_ONE}",
    ),
    "Flux": (
        tensors(double_blocks__0__img_attn__norm__key_norm__scale=torch.zeros(1)),
        f"a Flux checkpoint, {NOT_ONE}",
    ),
    "depth": (
        changed(lambda t: t.update({UNET + "input_blocks.0.0.weight": torch.zeros(32, 5, 3, 3)})),
        f"a depth-to-image checkpoint (5 input channels), {NOT_ONE}",
    ),
    "anything else": (
        tensors(fc__weight=torch.zeros(1)),
        "none of a text encoder, VAE, U-Net is in it, by its names",
    ),
    "VAE alone": (
        lambda path: save_file(small_models.single(V1, "vae"), path),
        "of a model only its VAE; without text encoder, U-Net: give a whole model, or in Python "
        "load(complete=...), a checkpoint that has them",
    ),
    "not finite": (
        changed(lambda t: t[UNET + "out.2.bias"].fill_(torch.nan)),
        f"{UNET}out.2.bias is not finite in float32",
    ),
    "strange betas": (
        changed(lambda t: t.update(betas=torch.linspace(0.1, 0.2, 10))),
        "its betas are those of none of scaled_linear, linear, cosine; give --config ... "
        "(config=... in Python)",
    ),
}  # fmt: skip
SOME = {
    "no JSON": r"no weights: its header is not valid JSON \([^\n]+\)",
    "garbled pickle": r"its pickle cannot be read \([^\n]+\)",
    "one tensor, many names": r"its tensors are 4000000 bytes in a file of \d+: bytes are shared",
}
