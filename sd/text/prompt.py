"""The grammar of prompts: weights and breaks.

    (a cat)      weight 1.1         (a cat:1.3)  weight 1.3         ((a cat))  1.1^2
    [a cat]      weight 1 / 1.1     \\( \\) \\[ \\]  the characters themselves
    BREAK        starts a new chunk          \\BREAK       the word itself

These are AUTOMATIC1111's marks for weights, with one difference: a bracket without a partner is a
plain character (there, an open bracket reaches to the end). Its other marks, and those of other
interfaces, are not supported: scheduled and alternating words, AND, <lora:...>, wildcards.
`foreign_marks` finds them for a warning.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_math.checks import require, whole

__all__ = [
    "Piece",
    "encodable",
    "foreign_marks",
    "literal",
    "marked",
    "paired",
    "parse",
    "require_text",
    "words",
]

STRONGER = 1.1
"""The factor of a pair of round brackets; square brackets divide by it."""

_MARKS = re.compile(
    r"\\(?:[\\()\[\]]|BREAK\b)|[()\[\]]|:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)|\bBREAK\b"
)

_NUMBER = r"[+-]?(?:[\d.,]+(?:[eE][+-]?\d+)?%?|nan|inf)"
_FOREIGN = (
    (rf"\[[^\[\]]*:\s*{_NUMBER}\s*\]", "words that change during sampling"),
    (r"\[[^\[\]]*\|[^\[\]]*\]", "alternating words"),
    (r"\b(?:AND(?:_[A-Z]+)?|ADD(?:BASE|COMM|COL|ROW))\b", "composed prompts"),
    (
        r"<\s*(?:(?i:lora|lyco|hypernet|embedding)\b[^<>]*|\w+:[^<>]*)>",
        "files or commands; --lora and --embedding read files",
    ),
    (r"\bembedding:\S+", "an embedding; its word alone is read"),
    (r"\{[^{}]*\}", "a choice or a weight in curly brackets"),
    (r"(?<!\w)__[\w/*-]+__(?!\w)", "a wildcard"),
    (rf":\s*{_NUMBER}\s*\)", "a weight that is not a number"),
    (rf"[:：]\s*{_NUMBER}\s*）|：\s*{_NUMBER}\s*\)", "a weight, in marks of full width"),
    (r"\)(?:[+-]+|[\d.]+)(?!\w)|(?<!\S)[^\W\d_]{2,}(?:\+{2,}|-{2,})(?!\S)", "Compel's weights"),
    (r"\)\.(?:and|blend|swap)\(|\.(?:and|blend|swap)\(", "Compel's functions"),
    (r"(?<!\S)--[a-z]\w*(?: [\d.:]+)?", "a flag"),
)
"""Unsupported marks of popular interfaces, and their meaning there."""
_UNREAD = re.compile("|".join(f"({pattern})" for pattern, _ in _FOREIGN))
_ESCAPED = re.compile(r"\\[\\()\[\]{}|<>:]")


@dataclass(frozen=True)
class Piece:
    """Words with one weight."""

    text: str
    weight: float = 1.0


def parse(prompt: str) -> tuple[tuple[Piece, ...], ...]:
    """The pieces of a prompt in order, a tuple for each part between two BREAKs.

    Neighbours of equal weight are one piece. Raises ValueError for a weight that is not finite, and
    for a value that is not text.
    """
    texts, weights, _ = _weighed(prompt)
    return _stretches(texts, weights)


def _weighed(prompt: str) -> tuple[list[str], list[float | None], str]:
    """The texts between marks with their weights (None for a BREAK), and open brackets."""
    require_text("prompt", prompt)
    texts: list[str] = []
    opened: list[tuple[str, int]] = []  # a bracket, and how many texts stood before it
    closed: dict[int, tuple[int, float]] = {}  # where a pair begins: where it ends, its factor
    breaks: set[int] = set()
    end = 0

    def close(bracket: str, factor: float, literal: str) -> None:
        if not opened or opened[-1][0] != bracket:
            texts.append(literal)
            return
        _, start = opened.pop()
        texts[start] = ""
        closed[start] = len(texts), factor

    for mark in _MARKS.finditer(prompt):
        texts.append(prompt[end : mark.start()])
        end = mark.end()
        found = mark.group()
        if found in ("(", "["):
            opened.append((found, len(texts)))
            texts.append(found)
        elif found == ")":
            close("(", STRONGER, found)
        elif found == "]":
            close("[", 1 / STRONGER, found)
        elif found == "BREAK":
            breaks.add(len(texts))
            texts.append(found)
        elif mark.group(1) is not None:
            factor = float(mark.group(1))
            if not math.isfinite(factor):
                raise ValueError(f"prompt: wanted a finite weight, got {found!r}")
            close("(", factor, found)
        else:
            texts.append(found[1:])
    texts.append(prompt[end:])
    weights: list[float | None] = []
    inside = [(len(texts), 1.0)]  # the pairs around a text: where each ends, the product up to it
    for i in range(len(texts)):
        while i >= inside[-1][0]:
            inside.pop()
        if i in closed:
            stop, factor = closed[i]
            inside.append((stop, inside[-1][1] * factor))
        weights.append(None if i in breaks else inside[-1][1])
    return texts, weights, "".join(bracket for bracket, _ in opened)


def foreign_marks(prompt: str) -> dict[str, str]:
    """Marks of other interfaces in a prompt, which are read as plain words here.

    Each mark as in the prompt, with its meaning elsewhere. Escaped marks do not count.
    """
    plain = _MARKS.sub(_kept, _ESCAPED.sub("", prompt))
    found = {
        mark.group(): _FOREIGN[mark.lastindex - 1][1]
        for mark in _UNREAD.finditer(plain)
        if mark.lastindex is not None
    }
    open_ = _weighed(prompt)[2]
    return found | ({open_: "a weight of all that follows"} if open_ else {})


def _kept(mark: re.Match[str]) -> str:
    """A mark of the grammar, without its weight."""
    return ")" if mark.group(1) is not None else mark.group()


def encodable(text: object) -> bool:
    """Whether it is text that a file can hold: no surrogates, no zero."""
    return (
        isinstance(text, str) and "\0" not in text and text.encode(errors="ignore").decode() == text
    )


def require_text(name: str, text: object) -> None:
    """Raise ValueError, with the argument's name, unless the text is `encodable`."""
    require(encodable(text), name, "text, in UTF-8", repr(text))


def require_texts(name: str, texts: Sequence[str]) -> None:
    """Raise ValueError, with the argument's name, for one text in place of several."""
    require(not isinstance(texts, str), name, "a sequence of texts", repr(texts))


def literal(text: str) -> str:
    """The prompt that is read as the text itself: its marks escaped."""
    return re.sub(r"[\\()\[\]]|\bBREAK\b", r"\\\g<0>", text)


def marked(text: str) -> bool:
    """Whether the text as a prompt is not read as itself, since marks of the grammar act."""
    try:
        return parse(text) != parse(literal(text))
    except ValueError:  # a weight that is not finite
        return True


def words(prompt: str) -> str:
    """The text of the prompt without weights and breaks."""
    return " ".join(piece.text for stretch in parse(prompt) for piece in stretch)


def paired(
    prompt: str | Sequence[str], seed: int | Sequence[int]
) -> tuple[list[str], tuple[int, ...]]:
    """The prompts and as many seeds: one prompt is repeated, one seed counts up."""
    several = isinstance(prompt, Sequence)
    require(several, "prompt", "text, or a sequence of texts", type(prompt).__name__)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    require(len(prompts) > 0, "prompt", "at least one", "none")
    for text in prompts:
        require_text("prompt", text)
        require(words(text).strip() != "", "prompt", "at least one word", repr(text))
    if isinstance(seed, Sequence):
        seeds = tuple(seed)
        many = len(prompts) if len(prompts) > 1 else max(1, len(seeds))
        wanted = f"{many} seeds, one for each prompt" if len(prompts) > 1 else "at least one"
        require(len(seeds) == many, "seed", wanted, len(seeds))
        return prompts * (many // len(prompts)), seeds
    whole("seed", seed, 0, 2**64 - len(prompts))
    return prompts, tuple(range(seed, seed + len(prompts)))


def _stretches(
    texts: Sequence[str], weights: Sequence[float | None]
) -> tuple[tuple[Piece, ...], ...]:
    stretches: list[list[list[str]]] = [[]]
    shared: list[list[float]] = [[]]
    for text, weight in zip(texts, weights, strict=True):
        if weight is None:
            stretches.append([])
            shared.append([])
        elif shared[-1] and shared[-1][-1] == weight:
            stretches[-1][-1].append(text)
        elif text:
            stretches[-1].append([text])
            shared[-1].append(weight)
    pieces = (
        (Piece("".join(parts), weight) for parts, weight in zip(*both, strict=True))
        for both in zip(stretches, shared, strict=True)
    )
    return tuple(tuple(piece for piece in some if piece.text.strip()) for some in pieces)
