"""Pickles are read as data: tensors are torch's; everything else does nothing, and costs little."""

import argparse
import io
import os
import pickle
import struct
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd.checkpoint import load, pickle_file
from sd.checkpoint.inert_pickle import HostileError, Inert, load_inert
from tests.support import small_models
from tests.support.bad_checkpoints import Callback, torch_zip
from tests.support.small_models import V1

BASE = torch.arange(24.0).reshape(4, 6)
KINDS = (
    *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64),
)
TENSORS: dict[str, Tensor] = {
    **{str(kind): torch.arange(6).to(kind) for kind in KINDS},
    "transposed": BASE.T,
    "a part": BASE[1:3, 2:5],
    "every second": BASE[::2, ::3],
    "another part of the same": BASE[3],
    "a number": torch.tensor(3.0),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_those_of_torch(protocol: int, tmp_path: Path) -> None:
    """Of every type, shape and stride; beside them the values that are plain."""
    plain = {"epoch": 3, 5: "five", "list": [1, 2.5, None, True], "deep": OrderedDict(a=(1, "b"))}
    torch.save({**TENSORS, **plain}, tmp_path / "a.pt", pickle_protocol=protocol)
    found = pickle_file.load_pickle_file(tmp_path / "a.pt")
    assert {name: found[name] for name in plain} == plain
    for name, wanted in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        assert bytes(found[name].contiguous().reshape(-1).view(torch.uint8).tolist()) == bytes(
            wanted.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
        ), name


def lightning(path: Path) -> None:
    """A training's checkpoint: a callback, flags, a numpy number and optimizer states."""
    numpy = pytest.importorskip("numpy")
    torch.save(
        {
            "state_dict": small_models.single(V1),
            "epoch": 3,
            "global_step": numpy.int64(7),
            "callbacks": {Callback: Callback(), "one more": [Callback()]},
            "hyper_parameters": argparse.Namespace(rate=1e-4, path=Path("x")),
            "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}}],
        },
        path,
    )


def test_a_training_s_checkpoint_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(ModelCheckpoint=Callback)
    monkeypatch.setattr(Callback, "__setstate__", forbidden, raising=False)
    with monkeypatch.context() as patched:
        names = Callback.__module__.split(".")
        for i in range(len(names)):
            patched.setitem(sys.modules, ".".join(names[: i + 1]), module)
        lightning(tmp_path / "last.ckpt")
    loaded = load(tmp_path / "last.ckpt")
    small_models.same(loaded, V1)
    beside = {
        line.name for line in loaded.account.unread if line.use == pickle_file.BESIDE_STATE_DICT
    }
    assert beside == {"epoch", "global_step", "callbacks", "hyper_parameters", "optimizer_states"}


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("the file's code was run")


class Call:
    """What calls a function with arguments when it is unpickled elsewhere."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def hostile(touch: Path) -> dict[str, bytes]:
    """Pickles, each of which runs `touch` where it is trusted, by every way that there is."""
    line = f"touch {touch}"
    text = b"X" + struct.pack("<I", len(line)) + line.encode()
    short = b"\x8c" + bytes([len(line)]) + line.encode()
    code = f"__import__('os').system({line!r})"
    found = {
        f"protocol {protocol}": pickle.dumps(Call(os.system, line), protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    }
    return found | {
        "eval": pickle.dumps(Call(eval, code)),
        "exec in Python 2's name": b"c__builtin__\nexec\nX" + struct.pack("<I", len(code))
        + code.encode() + b"\x85R.",
        "INST": b"(" + text + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + text + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "by getattr": pickle.dumps(Call(getattr, os, "system")) if False else
        b"cbuiltins\ngetattr\ncbuiltins\n__import__\nX\x02\x00\x00\x00os\x85RX\x06\x00\x00\x00system"
        b"\x86R" + text + b"\x85R.",
        "nested": pickle.dumps({"state_dict": {"a": [Call(os.system, line)]}}),
    }  # fmt: skip


@pytest.mark.parametrize("name", hostile(Path("x")))
def test_no_way_of_running_a_program_runs_it(name: str, tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "a.ckpt"
    data = hostile(proof)[name]
    with pytest.raises(HostileError, match=r"names (posix|builtins)\."):
        load_inert(data)
    torch_zip(data)(path)
    with pytest.raises(ValueError, match=r"its pickle names .* do not trust this one$"):
        load(path)
    assert not proof.exists()
    pickle.loads(data)  # the alternative
    assert proof.exists()


CLASS = b"cpackage.module\nThing\n"
OPCODES: dict[str, bytes] = {
    "a call": CLASS + b"K\x01\x85R.",
    "a call of what was made": CLASS + b")R)R.",
    "NEWOBJ": b"\x80\x02" + CLASS + b")\x81.",
    "NEWOBJ_EX": b"\x80\x04" + CLASS + b")}\x92.",
    "INST": b"(K\x01ipackage.module\nThing\n.",
    "OBJ": b"(" + CLASS + b"K\x01o.",
    "state": CLASS + b")R}X\x01\x00\x00\x00aK\x01sb.",
    "state of a class": CLASS + b"}X\x08\x00\x00\x00__init__K\x01sb.",
    "state of slots": CLASS + b")RN}X\x01\x00\x00\x00aK\x01s\x86b.",
    "items": CLASS + b")RX\x01\x00\x00\x00aK\x01s.",
    "entries": CLASS + b")R(K\x01K\x02e.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"K\x01Q.",
    "a persistent id in text": b"P1\n.",
    "an attribute of the reader": b"csys\nmodules\n.",
    "a module of torch": b"ctorch._dynamo\nconfig\n.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_a_placeholder_does_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made, called and changed by every instruction, and is what it was; or it is refused."""
    monkeypatch.setattr("builtins.__import__", forbidden)
    before = dict(vars(Inert))
    try:
        found = load_inert(OPCODES[name])
    except Exception as error:
        found = error
    monkeypatch.undo()
    refused = name in ("a call of what was made", "an attribute of the reader", "an extension")
    if refused or "persistent" in name:
        assert isinstance(found, Exception)
    else:
        made = found if isinstance(found, type) else type(found)
        assert issubclass(made, Inert)
        assert made.called in ("package.module.Thing", "torch._dynamo.config")
        assert not vars(found) or isinstance(found, type)
        assert "__init__" not in vars(made)
    assert dict(vars(Inert)) == before


def tuples(levels: int) -> bytes:
    """A mapping with a key that is a tuple of 2^levels entries, by reference."""
    body = b"N\x85q\x000"
    for i in range(levels):
        body += b"h%ch%c\x86q%c0" % (i, i, i + 1)
    return b"\x80\x02}" + body + b"h%cK\x01s." % levels


BOMBS: dict[str, bytes] = {
    "a memo of 2^31 places": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a bytearray of 2^60 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".",
    "a bytearray by call": b"cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", 2**50) + b"\x85R.",
    "a hash of 2^60 steps": tuples(60),
    "an integer of 10^6 digits": b"I" + b"9" * 10**6 + b"\n.",
    "a frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "text beyond the end": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "nothing but marks": b"(" * (pickle_file.LARGEST_PICKLE - 1),
    "many classes": b"".join(b"ca\nb%d\n" % i for i in range(50_000)) + b".",
    "long arguments, many calls": b"(" + b"N" * 200_000 + b"tq\x00" + b"0ca\nb\nh\x00R" * 100_000
    + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_the_work_is_that_of_the_file_s_size(name: str) -> None:
    start = time.process_time()
    with suppress(ValueError, LookupError, TypeError, EOFError, pickle.UnpicklingError):
        load_inert(BOMBS[name])
    assert time.process_time() - start < 5


STRANGE: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.zeros(3, 3).to_sparse(),
    "meta": lambda: torch.zeros(2, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "expanded": lambda: torch.zeros(1).expand(9),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", STRANGE)
def test_a_tensor_of_another_kind_is_named(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": STRANGE[name]()}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a (is not a dense tensor|claims .* and shares fewer)$"):
        load(tmp_path / "a.ckpt")


def test_keys_that_are_no_names_are_beside_the_weights(tmp_path: Path) -> None:
    tensors: dict[Any, Any] = {
        **small_models.single(V1),
        5: torch.zeros(2),
        (1, "a"): None,
        b"x": 3,
    }
    torch.save(tensors, tmp_path / "a.ckpt")
    account = load(tmp_path / "a.ckpt").account
    assert {line.name for line in account.unread} == {
        "5",
        "(tuple)",
        "(_codecs.encode)",
    }


def rebuilt(offset: int, size: tuple[int, ...], stride: tuple[int, ...], count: int = 4) -> bytes:
    """The pickle of {"a": a tensor so placed in a storage that claims so many floats}."""
    stream = io.BytesIO()
    stream.write(b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(")
    stream.write(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000")
    stream.write(b"X\x03\x00\x00\x00cpu" + number(count) + b"tQ")
    stream.write(number(offset))
    for axes in (size, stride):
        stream.write(b"(" + b"".join(map(number, axes)) + b"t")
    stream.write(b"\x89NtRs.")
    return stream.getvalue()


def number(value: int) -> bytes:
    return b"I%d\n" % value


PLACES: dict[str, tuple[tuple[Any, ...], bool]] = {
    "whole": ((0, (4,), (1,)), True),
    "strided": ((1, (2,), (2,)), True),
    "one too far": ((1, (4,), (1,)), False),
    "a stride too far": ((0, (2,), (4,)), False),
    "before its start": ((-1, (2,), (1,)), False),
    "backwards": ((3, (2,), (-1,)), False),
    "longer than the file": ((0, (8,), (1,), 8), False),
    "overflowing": ((0, (2**62, 2**62), (0, 0)), False),
    "nothing, overflowing": ((0, (2**62, 2**62, 0), (1, 1, 1)), False),
    "strides that are no shape's": ((0, (2, 2), (1,)), False),
    "many axes": ((0, (1,) * 99, (1,) * 99), False),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_tensor_lies_within_its_storage(name: str, tmp_path: Path) -> None:
    place, valid = PLACES[name]
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", rebuilt(*place))
        archive.writestr("archive/data/0", struct.pack("<4f", 0, 1, 2, 3))
    if valid:
        offset, size, stride = place
        wanted = torch.arange(4.0).as_strided(size, stride, offset)
        assert torch.equal(pickle_file.load_pickle_file(path)["a"], wanted)
        return
    with pytest.raises(ValueError, match=rf"^checkpoint {path}: [^\n]+$"):
        pickle_file.load_pickle_file(path)


def test_another_byte_order_and_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for name, line in (("byteorder", "byte order"), ("data.pkl", "two files of its zip have one")):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("archive/data.pkl", pickle.dumps({}))
            archive.writestr(f"archive/{name}", b"big")
        with pytest.raises(ValueError, match=line):
            pickle_file.load_pickle_file(path)


def test_the_same_weights_from_a_zip_and_from_safetensors(tmp_path: Path) -> None:
    tensors = {name: value.half() for name, value in small_models.single(V1).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.ckpt")
    one, two = (load(tmp_path / f"a.{ending}") for ending in ("safetensors", "ckpt"))
    for kind in small_models.KINDS:
        for name, value in getattr(one, kind).state_dict().items():
            assert torch.equal(value, getattr(two, kind).state_dict()[name])
