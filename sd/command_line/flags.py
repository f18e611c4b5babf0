"""Valid values of flags, declared in the annotations of a Config and checked here.

A `validated` Config calls `check` when it is made; `files` looks at the disk, before the work and
not earlier. A flag that has no effect beside another is refused by `unused`.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeAlias,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)  # fmt: skip
from typing import get_type_hints as hints_of

__all__ = [
    "File",
    "FlagError",
    "Power",
    "Range",
    "Seed",
    "Several",
    "Words",
    "by_flag",
    "check",
    "default",
    "fault_of",
    "files",
    "flags_of",
    "named",
    "own",
    "refuse",
    "shown",
    "types_in",
    "unused",
    "validated",
]  # fmt: skip


Kind = TypeVar("Kind")


class FlagError(ValueError):
    """An invalid flag: a line with its name, the valid values and the given one."""


@dataclass(frozen=True)
class Range:
    """Numbers in [low, high], or in (low, high] with `above`; never NaN.

    An infinite `high` is a valid value; `but` is an invalid one.
    """

    low: int | float
    high: int | float
    above: bool = False
    but: int | float | None = None

    def holds(self, value: int | float) -> bool:
        low = value > self.low if self.above else value >= self.low
        return low and value <= self.high and value != self.but

    def __str__(self) -> str:
        low = f"above {self.low}" if self.above else f"from {self.low}"
        but = "" if self.but is None else f", but not {self.but}"
        return f"{low}{', up' * self.above} to {self.high}{but}"


@dataclass(frozen=True)
class Power:
    """Powers of `base` from `low` to `high`."""

    base: int
    low: int
    high: int

    def holds(self, value: int | float) -> bool:
        return value in (self.base**k for k in range(64)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"that is a power of {self.base}, from {self.low} to {self.high}"


@dataclass(frozen=True)
class Several:
    """A list of at least `least` values, which are distinct or rising on request."""

    least: int = 1
    distinct: bool = True
    rising: bool = False

    def holds(self, values: Sequence[Any]) -> bool:
        if self.rising and any(not a < b for a, b in pairwise(values)):
            return False
        return len(values) >= self.least and (not self.distinct or len(set(values)) == len(values))

    @property
    def kind(self) -> str:
        return "rising " if self.rising else "different " if self.distinct else ""

    def __str__(self) -> str:
        return f"{self.least} or more {self.kind}" if self.least else self.kind


@dataclass(frozen=True)
class Words:
    """Text in UTF-8 without zeros, of at least one word unless `empty`."""

    empty: bool = False

    def holds(self, value: str) -> bool:
        encodable = not any("\ud800" <= one <= "\udfff" for one in value)
        return encodable and "\0" not in value and (self.empty or value.strip() != "")

    def __str__(self) -> str:
        return "in UTF-8" if self.empty else "of at least one word, in UTF-8"


@dataclass(frozen=True)
class File:
    """An existing, readable file, or with `folder` a folder; `path` extracts its path."""

    folder: bool = False
    path: Callable[[str], Path] = Path


Seed: TypeAlias = Annotated[int, Range(0, 2**62 - 1)]


def default(words: str, kind: str | None = None) -> Any:
    """What `--help` calls the default of a flag whose value is found later, and its values."""
    from tyro.conf import arg

    return arg(help_behavior_hint=f"(default: {words})", metavar=kind)


ANY = Several(0, distinct=False)
"""The declaration of a list without one."""

NOUNS = {int: "whole number", float: "number", str: "text", Path: "path", bool: "True or False"}


def named(config: Any, field: str) -> str:
    """The flag of a field, by its first alias if it declares one.

    A nested Config has the prefix of its flags as `prefix`.
    """
    return _named(_hints(type(config))[field], f"{getattr(config, 'prefix', '')}{field}")


def _named(hint: Any, field: str) -> str:
    aliases = [alias for note in _notes(hint) for alias in getattr(note, "aliases", None) or ()]
    return aliases[0] if aliases else "--" + field.replace("_", "-")


def refuse(config: Any, field: str, wanted: str) -> NoReturn:
    """Raise `FlagError("--field: wanted ..., got ...")`."""
    got = shown(getattr(config, field))
    raise FlagError(f"{named(config, field)}: wanted {wanted}, got {got}")


@dataclass_transform(frozen_default=True)
def validated(kind: type[Kind]) -> type[Kind]:
    """Make the class a frozen dataclass: making one checks each field, before `__post_init__`."""
    more = kind.__dict__.get("__post_init__", lambda self: None)

    def checked(self: Any) -> None:
        check(self)
        more(self)

    kind.__post_init__ = checked  # type: ignore[attr-defined]
    return dataclass(frozen=True)(kind)


def check(config: Any) -> None:
    """Raise FlagError for the first field with an invalid value."""
    for name, hint in _hints(type(config)).items():
        fault = fault_of(hint, getattr(config, name), ())
        if fault:
            refuse(config, name, fault)


def unused(config: Any, names: Iterable[str], where: str) -> None:
    """Raise FlagError for the first field that differs from its default, since it has no effect."""
    for field in fields(config):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(config, field.name)
        if field.name not in names or value == default:
            continue
        if is_dataclass(value):
            unused(value, [one.name for one in fields(value)], where)
        flag = named(config, field.name)
        raise FlagError(f"{flag}: has no effect {where}; leave it out, got {shown(value)}")


def files(config: Any) -> None:
    """Raise FileNotFoundError or FlagError for the first file that is missing or unreadable."""
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        if is_dataclass(value):
            files(value)
        for note in _notes(hint):
            if isinstance(note, File):
                for one in value if isinstance(value, tuple) else () if value is None else (value,):
                    _readable(named(config, name), note.path(one), note.folder)


def by_flag(config: Any, message: str) -> str:
    """A message about settings, "name, other: ...", with their flags in the place of the names."""
    names, colon, rest = message.partition(": ")
    known = flags_of(type(config))
    flags = [known.get("--" + one.replace("_", "-"), ("", None))[0] for one in names.split(", ")]
    return f"{', '.join(flags)}: {rest}" if colon and all(flags) else message


def own(error: BaseException | None) -> ValueError | None:
    """What a Config has raised, where it led to an error such as the exit of a parser."""
    while error is not None and not isinstance(error, ValueError):
        error = error.__context__
    return error


def flags_of(kind: type) -> dict[str, tuple[str, Any]]:
    """Every spelling of a flag of the dataclass, to the flag and the type of its field."""
    from tyro.conf import Suppress

    known: dict[str, tuple[str, Any]] = {}
    for field, hint in _hints(kind).items():
        group = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(group) and isinstance(group, type):
            known |= flags_of(group)
        if Suppress in _notes(hint) or is_dataclass(group):
            continue
        prefix, plain = getattr(kind, "prefix", ""), field.replace("_", "-")
        flag = _named(hint, prefix + field)
        for one in (flag, f"--{prefix}{plain}", f"--{prefix}no-{plain}"):
            known[one] = flag, hint
    return known


def types_in(hint: Any) -> Iterator[Any]:
    """The type and those inside it."""
    yield hint
    for one in get_args(hint):
        yield from types_in(one)


def _readable(flag: str, path: Path, folder: bool) -> None:
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{flag}: {path} is missing") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FlagError(f"{flag}: can't read {path}: {reason}") from error
    if stat.S_ISDIR(kind) and not folder:
        raise FlagError(f"{flag}: wanted a file, got the folder {path}")
    if not os.access(path, os.R_OK):
        raise FlagError(f"{flag}: can't read {path}: permission denied")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return hints_of(kind, include_extras=True)


def _notes(hint: Any) -> Iterator[object]:
    """The declarations in a type annotation, at any depth."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    for one in get_args(hint) if not isinstance(hint, type) else ():
        yield from _notes(one)


def fault_of(hint: Any, value: Any, notes: tuple[Any, ...]) -> str:
    """The description of a valid value, or nothing if the value is valid."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fault_of(inner[0], value, (*notes, *hint.__metadata__))
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return ""
        inner = tuple(one for one in inner if one is not NoneType)
        if all(get_origin(one) is Literal for one in inner):  # their values are one list
            return fault_of(Literal[tuple(chain(*map(get_args, inner)))], value, notes)
        faults = [fault_of(one, value, notes) for one in inner]
        return "" if "" in faults else " or ".join(faults)
    if origin is Literal:
        return "" if value in inner else f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return _list_fault(inner, value, notes) if isinstance(value, tuple) else "a list"
    if is_dataclass(hint):
        return ""  # it checks itself
    right = isinstance(value, (int, float) if hint is float else hint)
    right = right and (hint is bool or not isinstance(value, bool))
    right = right and not (hint in (str, Path) and "\0" in str(value))
    if right and all(
        note.holds(value) for note in notes if isinstance(note, Range | Power | Words)
    ):
        return ""
    return _wanted(hint, notes)


def _list_fault(inner: tuple[Any, ...], values: Any, notes: tuple[Any, ...]) -> str:
    """As `fault_of`, for a list: of the first invalid value, or of the list as a whole."""
    several = next((note for note in notes if isinstance(note, Several)), ANY)
    notes = tuple(note for note in notes if note is not several)
    kinds = [inner[0]] * len(values) if inner[-1] is Ellipsis else inner
    fixed = f"{len(inner)} {several.kind}values"
    if len(kinds) != len(values):
        return fixed
    faults = [
        fault
        for one, value in zip(kinds, values, strict=True)
        if (fault := fault_of(one, value, notes))
    ]
    if faults:
        return faults[0]
    if several.holds(values):
        return ""
    return f"{several}values" if inner[-1] is Ellipsis else fixed


def _wanted(hint: Any, notes: tuple[Any, ...]) -> str:
    noun = NOUNS.get(hint, getattr(hint, "__name__", str(hint)))
    ranges = [str(note) for note in notes if isinstance(note, Range | Power | Words)]
    article = "" if hint in (bool, str) else "a "
    return " ".join([f"{article}{noun}", *ranges])


def shown(value: object) -> str:
    """A value as errors show it."""
    if isinstance(value, tuple):
        return " ".join(map(shown, value)) or "none"
    return repr(str(value)) if isinstance(value, str | Path) else str(value)
