"""The words of a command line, checked against the flags of a Config before they are parsed."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sd.command_line.flags import FlagError, fault_of, flags_of, shown, types_in

__all__ = ["spelled"]


def spelled(kind: type, given: Sequence[str]) -> None:
    """Raise FlagError for words that are no flags of the dataclass, or not values of their flag.

    A flag that is given twice is refused too: the second would silently replace the first.
    """
    known = flags_of(kind)
    read: dict[str, tuple[Any, list[str]]] = {}
    values: list[str] | None = None
    for word in given:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if word in ("-h", "--help") or name.startswith("--tyro-"):
            return  # the parser's own
        if name:
            flag, hint = known.get(name.replace("_", "-"), (name, None))
            if flag not in known:
                raise FlagError(f"{flag}: no such flag{_near(flag, known)}")
            if flag in read:
                raise FlagError(f"{flag}: given twice; give it once, with all its values")
            values = []
            read[flag] = hint, values
        if equals or not name:
            if values is None:
                raise FlagError(f"wanted a flag, such as {next(iter(known))}, got {value!r}")
            values.append(value)
    for flag, (hint, words) in read.items():
        if not _readable_as(hint, words):
            wanted = "no value" if hint is bool else fault_of(hint, tuple(words), ())
            near = _near(words[0], _choices(hint)) if len(words) == 1 else ""
            raise FlagError(f"{flag}: wanted {wanted}, got {shown(tuple(words))}{near}")


def _readable_as(hint: Any, words: Sequence[str]) -> bool:
    """Whether the words are a value of the type, in range or not."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _readable_as(inner[0], words)
    if origin in (Union, UnionType):
        return any(_readable_as(one, words) for one in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return len(words) == len(inner) and all(map(_readable_as, inner, zip(words)))
    if origin is tuple:
        each = next(one for one in types_in(inner[0]) if get_origin(one) is not Annotated)
        width = len(get_args(each)) if get_origin(each) is tuple else 1
        return all(_readable_as(each, words[n : n + width]) for n in range(0, len(words), width))
    if hint is bool or len(words) != 1:
        return hint is bool and not words
    if origin is Literal or hint is NoneType:
        return words[0] in map(str, inner or (None,))
    try:
        hint(words[0])
    except ValueError:
        return False
    return words[0] != "" or hint is str


def _choices(hint: Any) -> list[str]:
    """The values of the literals in a type."""
    return [
        str(one) for part in types_in(hint) if get_origin(part) is Literal for one in get_args(part)
    ]


def _near(word: str, known: Iterable[str]) -> str:
    """The valid word that one resembles, as a question."""
    return "".join(f"; is it {one}?" for one in get_close_matches(word, list(known), 1, 0.7))
