"""Prompts to what the U-Net attends to: rows of tokens, encoded, weighted, laid end to end.

A prompt is as many rows as it needs, the text encoder sees each row alone, and the U-Net attends
to all of them. A token of weight w has the state e_0 + w (e - e_0), e_0 being the state that the
empty prompt has in its place: 1 leaves it as it is, 0 makes it say nothing.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sd.config import LongPrompt
from sd.text.prompt import Piece, parse
from sd.text.tokenizer import Tokenizer

__all__ = ["Rows", "context", "rows"]

Context = Float[Tensor, "batch token width"]


@dataclass(frozen=True)
class Rows:
    """A prompt as tokens: `(rows, length)` ids with their weights, and the words that are cut."""

    tokens: Int[Tensor, "rows length"]
    weights: Float[Tensor, "rows length"]
    cut: str = ""


def rows(tokenizer: Tokenizer, prompt: str, long: LongPrompt = "chunk") -> Rows:
    """Lay a prompt out in rows of the tokenizer's length, at least one; no word is split.

    A word that alone is longer than a row is the exception. Every BREAK begins a new row.

    Args:
        prompt: words, weights and breaks: see `sd.text.prompt`.
        long: "chunk" takes as many rows as are needed, "truncate" keeps the first and names in
            `cut` what does not fit, "refuse" raises ValueError.
    """
    room = tokenizer.context_length - 2
    filled: list[list[tuple[int, float]]] = []
    texts: list[list[str]] = []
    for stretch in parse(prompt):
        filled.append([])
        texts.append([])
        for word, ids, weight in _words(tokenizer, stretch):
            if filled[-1] and len(filled[-1]) + len(ids) > room:
                filled.append([])
                texts.append([])
            for start in range(0, len(ids), room):  # once, but for a word longer than a row
                if start:
                    filled.append([])
                    texts.append([])
                filled[-1] += [(i, weight) for i in ids[start : start + room]]
            texts[-1].append(word)
    if len(filled) > 1 and long == "refuse":
        count, shown = sum(map(len, filled)), prompt if len(prompt) <= 60 else prompt[:57] + "..."
        what = f"has {count} tokens; this model reads at most {room}"
        if count <= room:
            what = f"has a BREAK, which begins a new row; this model reads one row of {room} tokens"
        raise ValueError(f"the prompt {shown!r} {what}")
    cut = ""
    if long == "truncate":
        cut = " ".join(word for row in texts[1:] for word in row)
        filled = filled[:1]
    start, end, pad = tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token
    laid = [[start, *(i for i, _ in row), end, *[pad] * (room - len(row))] for row in filled]
    heavy = [[1.0, *(w for _, w in row), *[1.0] * (1 + room - len(row))] for row in filled]
    return Rows(torch.tensor(laid), torch.tensor(heavy), cut)


def context(
    encoder: Callable[[Tensor], Tensor],
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    long: LongPrompt = "chunk",
    least: int = 1,
    device: torch.device | str = "cpu",
) -> Context:
    """What the U-Net attends to, `(batch, rows * length, width)`.

    All prompts take as many rows as the longest does, and at least `least`: empty ones follow.
    Warns with the words that are cut. Raises ValueError as `rows` does.

    Args:
        encoder: rows of tokens `(n, length)` to their states `(n, length, width)`.
    """
    each = [rows(tokenizer, prompt, long) for prompt in prompts]
    for prompt, one in zip(prompts, each, strict=True):
        if one.cut:
            warnings.warn(f"cut off the prompt {prompt[:40]!r}...: {one.cut!r}", stacklevel=2)
    empty = rows(tokenizer, "")
    most = max(least, *(len(one.tokens) for one in each))
    tokens = torch.cat([_padded(one.tokens, empty.tokens, most) for one in each])
    weights = torch.cat([_padded(one.weights, empty.weights, most) for one in each])
    states: Tensor = encoder(tokens.to(device))
    if bool((weights != 1).any()):
        nothing = encoder(empty.tokens.to(device))
        states = torch.lerp(nothing, states, weights.to(states)[..., None])
    return states.reshape(len(each), -1, states.shape[-1])


def _padded(own: Tensor, empty: Tensor, most: int) -> Tensor:
    return torch.cat([own, empty.expand(most - len(own), -1)])


def _words(
    tokenizer: Tokenizer, stretch: Sequence[Piece]
) -> list[tuple[str, tuple[int, ...], float]]:
    """Each word with its tokens and its weight."""
    return [
        (word, ids, piece.weight)
        for piece in stretch
        for word, ids in tokenizer.words_of(piece.text)
    ]
