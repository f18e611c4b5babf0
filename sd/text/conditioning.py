"""Prompts to the context of the U-Net: chunks (rows) of tokens, encoded, weighted, concatenated.

A prompt has as many rows as it needs. The text encoder encodes each row by itself, and the U-Net
attends to all of them. A token of weight w has the state e_0 + w (e - e_0), where e_0 is the state
of the empty prompt at its place: weight 1 changes nothing, weight 0 removes the token's meaning.
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
    """A prompt as token ids `(rows, length)` with their weights, and the words that were cut."""

    tokens: Int[Tensor, "rows length"]
    weights: Float[Tensor, "rows length"]
    cut: str = ""


def rows(tokenizer: Tokenizer, prompt: str, long: LongPrompt = "chunk") -> Rows:
    """Split a prompt into rows of the context length, at least one; every BREAK starts a row.

    Only a word that is longer than a row is itself split.

    Args:
        prompt: words, weights and breaks: see `sd.text.prompt`.
        long: "chunk" uses as many rows as necessary, "truncate" keeps the first row and returns the
            other words in `cut`, "refuse" raises ValueError.
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
    return Rows(torch.tensor(laid, device="cpu"), torch.tensor(heavy, device="cpu"), cut)


def context(
    encoder: Callable[[Tensor], Tensor],
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    long: LongPrompt = "chunk",
    least: int = 1,
    device: torch.device | str = "cpu",
) -> Context:
    """The context of the U-Net's cross-attention, `(batch, rows * length, width)`.

    All prompts get as many rows as the longest one, and at least `least`; empty rows fill up.
    Warns about words that are cut. Raises ValueError as `rows` does.

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
    """Each word with its tokens and weight."""
    return [
        (word, ids, piece.weight)
        for piece in stretch
        for word, ids in tokenizer.words_of(piece.text)
    ]
