"""What a prompt says beside its words: weights, breaks, and more words than a row has room for.

    (a cat)      weight 1.1         (a cat:1.3)  weight 1.3         ((a cat))  1.1^2
    [a cat]      weight 1 / 1.1     \\( \\) \\[ \\]  the characters themselves
    BREAK        what follows begins a new row

The grammar is that of the Stable Diffusion web interfaces. A bracket without its partner is a
character like any other.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffusion_math.checks import require, whole

__all__ = ["Long", "Piece", "paired", "parse", "words"]

Long: TypeAlias = Literal["chunk", "truncate", "refuse"]
"""What becomes of a prompt that is longer than a row: several rows, a warning, or an error."""

STRONGER = 1.1
"""What a pair of round brackets multiplies by, and a pair of square ones divides by."""

_MARKS = re.compile(r"\\[\\()\[\]]|[()\[\]]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\bBREAK\b")


@dataclass(frozen=True)
class Piece:
    """Words that share a weight."""

    text: str
    weight: float = 1.0


def parse(prompt: str) -> tuple[tuple[Piece, ...], ...]:
    """The pieces of a prompt in their order, a tuple for each stretch between two BREAKs.

    Neighbours of one weight are one piece. Raises ValueError for a weight that is not finite.
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []  # a bracket, and how many texts stood before it
    end = 0

    def say(text: str, weight: float = 1.0) -> None:
        texts.append(text)
        weights.append(weight)

    def close(bracket: str, factor: float, literal: str) -> None:
        if not opened or opened[-1][0] != bracket:
            say(literal)
            return
        _, start = opened.pop()
        texts[start] = ""
        for i in range(start, len(texts)):
            weights[i] *= factor

    for mark in _MARKS.finditer(prompt):
        say(prompt[end : mark.start()])
        end = mark.end()
        found = mark.group()
        if found in ("(", "["):
            opened.append((found, len(texts)))
            say(found)
        elif found == ")":
            close("(", STRONGER, found)
        elif found == "]":
            close("[", 1 / STRONGER, found)
        elif found == "BREAK":
            say(found, math.nan)
        elif mark.group(1) is not None:
            factor = float(mark.group(1))
            if not math.isfinite(factor):
                raise ValueError(f"prompt: wanted a finite weight, got {found!r}")
            close("(", factor, found)
        else:
            say(found[1:])
    say(prompt[end:])
    return _stretches(texts, weights)


def words(prompt: str) -> str:
    """The prompt's text alone, without weights and breaks."""
    return " ".join(piece.text for stretch in parse(prompt) for piece in stretch)


def paired(
    prompt: str | Sequence[str], seed: int | Sequence[int]
) -> tuple[list[str], tuple[int, ...]]:
    """As many prompts as seeds."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    require(len(prompts) > 0, "prompt", "at least one", "none")
    for text in prompts:
        require(text.strip() != "", "prompt", "at least one word", repr(text))
    if isinstance(seed, Sequence):
        seeds = tuple(seed)
        many = len(prompts) if len(prompts) > 1 else max(1, len(seeds))
        wanted = f"{many} seeds, one for each prompt" if len(prompts) > 1 else "at least one"
        require(len(seeds) == many, "seed", wanted, len(seeds))
        return prompts * (many // len(prompts)), seeds
    whole("seed", seed, 0, 2**64 - len(prompts))
    return prompts, tuple(range(seed, seed + len(prompts)))


def _stretches(texts: Sequence[str], weights: Sequence[float]) -> tuple[tuple[Piece, ...], ...]:
    stretches: list[list[Piece]] = [[]]
    for text, weight in zip(texts, weights, strict=True):
        last = stretches[-1]
        if math.isnan(weight):
            stretches.append([])
        elif last and last[-1].weight == weight:
            last[-1] = Piece(last[-1].text + text, weight)
        elif text:
            last.append(Piece(text, weight))
    return tuple(tuple(piece for piece in stretch if piece.text.strip()) for stretch in stretches)
