"""Read a pickle as data: every class and function becomes a placeholder that does nothing.

A pickle is a program that names functions and classes and calls them. This reader never looks up,
imports or calls a name of the file. Tensors become records of their place in the file, and every
other class or function becomes an `Inert` of its name. The work is linear in the pickle's size.
"""

import io
import math
import pickle
import sys
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, final

import torch

__all__ = ["HostileError", "Inert", "Stored", "load_inert"]

DTYPES: dict[str, torch.dtype] = {
    **{name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)},
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
"""The dtype of each storage class of torch."""
PLAIN = {
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "builtins": {
        *("object", "set", "frozenset", "slice", "complex", "bytearray", "range", "int", "float"),
        *("bool", "str", "bytes", "list", "dict", "tuple"),
    },
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "functools": {"partial"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
}
"""The data classes of the standard library that checkpoints of a training may contain."""
MOST_AXES = 16
MOST_NAMES = 1000
DEEPEST = 1000
LONGEST_KEY = 8
"""The longest tuple that may be a key."""


class HostileError(ValueError):
    """A pickle that would execute code in an ordinary reader."""


class Inert:
    """The placeholder of a class or function, and of its result."""

    called: ClassVar[str] = ""
    dtype: ClassVar[torch.dtype | None] = None

    @classmethod
    def made(cls, args: Any) -> Any:
        """The result of a call, whatever the arguments."""
        return object.__new__(cls)

    @staticmethod
    def append(*_: object) -> None:
        """Ignore additions."""

    extend = append

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore additions."""


class Stored(NamedTuple):
    """A tensor of the file.

    Attributes:
        key: the key of its storage.
        capacity: the bytes of the storage, as the pickle claims.
        dtype: the dtype of its entries.
        offset, size, stride: counted in entries, as for torch.as_strided.
    """

    key: str
    capacity: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Storage(NamedTuple):
    key: str
    capacity: int
    dtype: torch.dtype


class _Dict(Inert):
    """collections.OrderedDict: a plain dictionary that the pickle fills."""

    @classmethod
    def made(cls, args: Any) -> Any:
        if args:
            raise ValueError("an OrderedDict made of something")
        return {}


class _Rebuilt(Inert):
    """torch._utils._rebuild_tensor, _v2 and _v3; the last has a dtype."""

    @classmethod
    def made(cls, args: Any) -> Any:
        storage, offset, size, stride = args[:4]
        if not isinstance(storage, _Storage):
            return super().made(args)  # of numbers that are not plain
        if not len(size) == len(stride) <= MOST_AXES:
            raise ValueError("a tensor of no valid shape")
        whole = all(type(n) is int and 0 <= n < 2**60 for n in (offset, *size, *stride))
        if not whole or math.prod(filter(None, size)) >= 2**60:
            raise ValueError("a tensor of no valid shape")
        dtype = getattr(args[6], "dtype", None) if len(args) > 6 else None
        dtype = dtype or storage.dtype
        return Stored(storage.key, storage.capacity, dtype, offset, tuple(size), tuple(stride))


class _Parameter(Inert):
    """torch._utils._rebuild_parameter: its tensor."""

    @classmethod
    def made(cls, args: Any) -> Any:
        return args[0]


KNOWN: Mapping[tuple[str, str], type[Inert]] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _Rebuilt,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuilt,
    ("torch._utils", "_rebuild_tensor_v3"): _Rebuilt,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter,
}


def load_inert(data: bytes) -> Any:
    """The value of a pickle: plain values, `Stored` for tensors, `Inert` for anything else.

    Raises an exception of any class if the pickle is damaged. Raises HostileError, with the name,
    if it uses a name of the standard library that is no data class, as only attacks do.
    """
    return _Reader(io.BytesIO(data)).load()


def _key(key: Any) -> Any:
    """The key of a mapping, checked to have a cheap hash."""
    kinds = (str, bytes, float, bool, type(None), Inert, type)
    parts = key if type(key) is tuple and len(key) <= LONGEST_KEY else (key,)
    small = all(isinstance(p, kinds) or (type(p) is int and abs(p) < 2**63) for p in parts)
    if not small:
        raise ValueError(f"a key of type {type(key).__name__}")
    return key


@final
class _Reader(pickle._Unpickler):  # type: ignore[name-defined,misc]  # Python's own: C's memo is unbounded
    """Python's unpickler without its instructions that look up, call and change objects."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self._inert: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> type[Inert]:
        module = IMPORT_MAPPING.get(module, module)
        root = module.partition(".")[0]
        if root in sys.stdlib_module_names and name not in PLAIN.get(module, ()):
            raise HostileError(
                f"names {module}.{name}, which is not run: no file of weights has a use for it, "
                "so do not trust this one"
            )
        known = KNOWN.get((module, name)) or self._inert.get((module, name))
        if known is None:
            dtype = DTYPES.get(name) if root == "torch" else None
            words = {"called": f"{module}.{name}", "dtype": dtype}
            known = type("Inert", (Inert,), words)
            self._inert[module, name] = known
            if len(self._inert) > MOST_NAMES:
                raise ValueError(f"it names more than {MOST_NAMES} classes")
        return known

    def persistent_load(self, pid: Any) -> Any:
        word, kind, key, _, count = pid
        if word != "storage" or type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("a persistent id that is no storage's")
        if kind.dtype is None:  # of quantized numbers
            return kind.made(())
        return _Storage(key, count * kind.dtype.itemsize, kind.dtype)

    def _made(self, function: Any, args: Any) -> Any:
        if not isinstance(function, type) or not issubclass(function, Inert):
            raise TypeError(f"a call of a {type(function).__name__}")
        return function.made(args)

    def _instantiate(self, function: Any, args: Any) -> None:
        self.append(self._made(function, args))

    def reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], args)

    def newobj_ex(self) -> None:
        self.stack.pop()  # arguments by name
        self.reduce()

    def build(self) -> None:
        self.stack.pop()  # an object's state: the object below has no use for it

    def setitem(self) -> None:
        _key(self.stack[-2])
        self.load_setitem()

    def setitems(self) -> None:
        for key in self.stack[::2]:  # above the mark
            _key(key)
        self.load_setitems()

    def dictionary(self) -> None:
        for key in self.stack[::2]:
            _key(key)
        self.load_dict()

    def mark(self) -> None:
        if len(self.metastack) >= DEEPEST:
            raise ValueError(f"it nests more than {DEEPEST} levels")
        self.load_mark()

    def refused(self) -> None:
        raise ValueError("an instruction that torch.save does not write")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        pickle.REDUCE[0]: reduce,
        pickle.NEWOBJ[0]: reduce,
        pickle.NEWOBJ_EX[0]: newobj_ex,
        pickle.BUILD[0]: build,
        pickle.MARK[0]: mark,
        pickle.SETITEM[0]: setitem,
        pickle.SETITEMS[0]: setitems,
        pickle.DICT[0]: dictionary,
        **dict.fromkeys(
            (
                code[0]
                for code in (
                    *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BYTEARRAY8),
                    *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
                    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
                )
            ),
            refused,
        ),
    }
