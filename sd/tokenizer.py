"""Prompts to token ids, by a `tokenizer.json` file: CLIP's own, or the embedded list of words."""

import re
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Int
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor

from sd.shapes.caption import VOCABULARY

__all__ = ["END", "START", "UNKNOWN", "Tokenizer", "word_level"]

START = "<|startoftext|>"
END = "<|endoftext|>"
UNKNOWN = "<|unknown|>"


class Tokenizer:
    """Turns prompts into rows of token ids: start, the prompt, end, then end again as padding.

    A word that a word-level vocabulary lacks is left out of the row; `unknown_words` names it.
    (CLIP's byte-level vocabulary lacks no word.)
    """

    def __init__(
        self, rules: tokenizers.Tokenizer, context_length: int, pad: int | None = None
    ) -> None:
        """Wrap tokenizer rules; raises ValueError if they lack the start or the end token.

        pad: the id that fills a row up; default: the end token (Stable Diffusion v1.x; v2.x: 0).
        """
        if context_length < 2:
            raise ValueError(f"context_length must be 2 or more, got {context_length}")
        start, end = rules.token_to_id(START), rules.token_to_id(END)
        if start is None or end is None:
            raise ValueError(f"the tokenizer must know the tokens {START} and {END}")
        self._rules = rules
        self._rules.no_truncation()
        self._rules.no_padding()
        self._unknown: int | None = rules.token_to_id(UNKNOWN)
        self.start_token: int = start
        self.end_token: int = end
        self.pad_token: int = end if pad is None else pad
        self.context_length = context_length
        self._learned: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_file(cls, path: Path | str, context_length: int = 77) -> "Tokenizer":
        """Read a `tokenizer.json`; raises ValueError if the file is absent or no tokenizer."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the tokenizer file {path}: {error}") from error
        try:
            rules = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the binding raises bare Exception
            raise ValueError(f"{path} is not a tokenizer.json: {error}") from error
        return cls(rules, context_length)

    @classmethod
    def embedded(cls, context_length: int = 24) -> "Tokenizer":
        """The tokenizer of the embedded model of captioned shapes."""
        text = (files("sd") / "assets" / "tokenizer.json").read_text(encoding="utf-8")
        return cls(tokenizers.Tokenizer.from_str(text), context_length)

    @property
    def vocab_size(self) -> int:
        """How many token ids there are, the start and end tokens included."""
        return int(self._rules.get_vocab_size(with_added_tokens=True))

    @property
    def words(self) -> list[str]:
        """The vocabulary without its special tokens, in the order of the ids."""
        vocabulary = self._rules.get_vocab(with_added_tokens=True)
        special = {START, END, UNKNOWN}
        return sorted(set(vocabulary) - special, key=lambda word: vocabulary[word])

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that no token stands for, once each, in their order.

        Punctuation is not counted as a word.
        """
        if self._unknown is None:
            return []
        known = self._split(prompt)
        prompt = " ".join(text for text, ids in known if not ids)
        found = self._rules.encode(prompt, add_special_tokens=False)
        spans = zip(found.ids, found.offsets, strict=True)
        unknown = [prompt[a:b] for token, (a, b) in spans if token == self._unknown]
        return list(dict.fromkeys(word for word in unknown if any(map(str.isalnum, word))))

    def words_of(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of a text, each with its tokens; unknown ones are left out.

        What a word is, the vocabulary's own rules say: in CLIP's punctuation is one too.
        """
        words: list[tuple[str, tuple[int, ...]]] = []
        for piece, ids in self._split(text):
            words += [(piece, ids)] if ids else self._own_words(piece)
        return words

    def learn(self, name: str, ids: Sequence[int]) -> None:
        """Let a word stand for these tokens, wherever it stands alone; its case is ignored.

        Raises ValueError where the word is empty, or has been learned before.
        """
        word = name.strip().lower()
        if not word or word in self._learned:
            raise ValueError(f"the word {name!r} is {'known already' if word else 'empty'}")
        self._learned[word] = tuple(ids)

    def _split(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The text cut at the words that were learned, which alone have tokens here."""
        if not self._learned:
            return [(text, ())]
        longest = sorted(self._learned, key=len, reverse=True)
        learned = rf"(?<!\w)({'|'.join(map(re.escape, longest))})(?!\w)"
        pieces = re.split(learned, text, flags=re.IGNORECASE)
        return [(piece, self._learned.get(piece.lower(), ())) for piece in pieces if piece]

    def _own_words(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of the vocabulary itself."""
        found = self._rules.encode(text, add_special_tokens=False)
        words: list[tuple[str, tuple[int, ...]]] = []
        places: list[int | None] = []
        for token, place, (a, b) in zip(found.ids, found.word_ids, found.offsets, strict=True):
            if token == self._unknown:
                continue
            if places and places[-1] == place:
                word, ids = words[-1]
                words[-1] = (word + text[a:b], (*ids, token))
            else:
                words.append((text[a:b], (token,)))
                places.append(place)
        return words

    def encode(
        self, prompts: Sequence[str], truncate: bool = False
    ) -> Int[Tensor, "batch context_length"]:
        """Token ids of each prompt, `context_length` to a row.

        Args:
            prompts: any number of prompts; an empty one gives start, end and padding.
            truncate: cut a prompt that is too long instead of refusing it; the end token stays.

        Raises:
            ValueError: a prompt is no string, or has more than `context_length - 2` tokens.
        """
        if isinstance(prompts, str):
            raise ValueError(f"prompts must be a list of strings, got the one string {prompts!r}")
        rows = [self._row(prompt, truncate) for prompt in prompts]
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), self.context_length)

    def _row(self, prompt: str, truncate: bool) -> list[int]:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string, got {prompt!r}")
        found: Iterable[int] = self._rules.encode(prompt, add_special_tokens=False).ids
        ids = [token for token in found if token != self._unknown]
        room = self.context_length - 2
        if len(ids) > room and not truncate:
            shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
            raise ValueError(
                f"the prompt {shown!r} has {len(ids)} tokens; this model reads at most {room}"
            )
        row = [self.start_token, *ids[:room], self.end_token]
        return row + [self.pad_token] * (self.context_length - len(row))


def word_level(words: Sequence[str]) -> tokenizers.Tokenizer:
    """Rules with one token a word, case ignored; the end token has the last id, as in CLIP's.

    Ids: the unknown word 0, then the words in their order, then the start and the end token.
    """
    names = [UNKNOWN, *words, START, END]
    if len(set(names)) != len(names):
        raise ValueError("words must not repeat, nor name a special token")
    vocabulary = {name: i for i, name in enumerate(names)}
    rules = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    rules.add_special_tokens([UNKNOWN, START, END])
    rules.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    rules.pre_tokenizer = pre_tokenizers.Whitespace()  # words, and runs of punctuation
    rules.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, vocabulary[t]) for t in (START, END)]
    )
    return rules


if __name__ == "__main__":  # python -m sd.tokenizer sd/assets/tokenizer.json
    word_level(VOCABULARY).save(sys.argv[1], pretty=True)
