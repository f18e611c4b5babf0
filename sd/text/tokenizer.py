"""Prompts to token ids, by a `tokenizer.json`: CLIP's, or that of the embedded model."""

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import tokenizers
import torch
from jaxtyping import Int
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor

from sd.files import regular_file
from sd.shapes.caption import VOCABULARY

__all__ = [
    "END",
    "LARGEST",
    "START",
    "UNKNOWN",
    "Tokenizer",
    "as_value_error",
    "read_rules",
    "word_level",
]

START = "<|startoftext|>"
END = "<|endoftext|>"
UNKNOWN = "<|unknown|>"
LARGEST = 32 * 2**20
"""The largest vocabulary file in bytes; CLIP's tokenizer.json is 2 MiB."""
PROBE = "a photo of 1 cat's café, <word>!"
"""A text that every tokenizer must be able to encode."""


@contextmanager
def as_value_error(what: str) -> Iterator[None]:
    """Turn any exception of the tokenizers library into a ValueError that begins with `what`.

    The library raises bare Exceptions, and BaseExceptions when it panics.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise ValueError(f"{what}: {error}") from error


def read_rules(path: Path) -> tokenizers.Tokenizer:
    """The rules of a `tokenizer.json`.

    Raises FileNotFoundError if there is no such file, ValueError if it is not a tokenizer.json.
    """
    raw = regular_file.read_bytes(path, "tokenizer", LARGEST)
    with as_value_error(f"{path} is not a tokenizer.json"):
        whole = regular_file.parse_json(raw)
        if _precompiled(whole):
            raise ValueError("it has a Precompiled normalizer, which no CLIP has")
        return tokenizers.Tokenizer.from_str(raw.decode("utf-8-sig"))


def _precompiled(value: Any) -> bool:
    """Whether a normalizer is a table of bytes: the library panics if it is damaged."""
    if isinstance(value, dict):
        inside = [inner for name, inner in value.items() if name != "model"]
        return value.get("type") == "Precompiled" or any(map(_precompiled, inside))
    return isinstance(value, list) and any(map(_precompiled, value))


class Tokenizer:
    """Prompts to rows of token ids: start, the prompt, end, padding.

    A word outside a word-level vocabulary is left out of the row; `unknown_words` names it. (CLIP's
    byte-level vocabulary has tokens for every word.)
    """

    def __init__(
        self, rules: tokenizers.Tokenizer, context_length: int, pad: int | None = None
    ) -> None:
        """Wrap tokenizer rules; raises ValueError if they lack the start or the end token.

        Two words with one id, or rules that cannot encode a text, raise ValueError too. As in
        diffusers, an added word with several vectors has the tokens `<cat>`, `<cat>_1`, ...

        pad: the id of padding; default: the end token (Stable Diffusion v1.x; v2.x: 0).
        """
        if context_length < 2:
            raise ValueError(f"context_length: wanted at least 2, got {context_length}")
        start, end = rules.token_to_id(START), rules.token_to_id(END)
        if start is None or end is None:
            raise ValueError(f"the tokenizer must know the tokens {START} and {END}")
        self._rules = rules
        self._rules.no_truncation()
        self._rules.no_padding()
        self._unknown: int | None = rules.token_to_id(UNKNOWN)
        self._ids: dict[str, int] = rules.get_vocab(with_added_tokens=True)
        if len(set(self._ids.values())) != len(self._ids):
            raise ValueError("two words of the tokenizer have one id")
        with as_value_error("the tokenizer cannot read a text"):
            rules.encode(PROBE, add_special_tokens=False)
            self.added = {rules.id_to_token(i): i for i in rules.get_added_tokens_decoder()}
        self._vectors = {i: self._together(word) for word, i in self.added.items()}
        self.start_token: int = start
        self.end_token: int = end
        self.pad_token: int = end if pad is None else pad
        self.context_length = context_length
        self._learned: dict[str, tuple[int, ...]] = {}
        self._used: set[str] = set()

    @classmethod
    def from_file(cls, path: Path | str, context_length: int = 77) -> "Tokenizer":
        """Read a `tokenizer.json`; raises ValueError if it is missing or not a tokenizer."""
        try:
            return cls(read_rules(Path(path)), context_length)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def embedded(cls, context_length: int = 24) -> "Tokenizer":
        """The tokenizer of the embedded model of captioned shapes."""
        text = (files("sd") / "assets" / "tokenizer.json").read_text(encoding="utf-8")
        return cls(tokenizers.Tokenizer.from_str(text), context_length)

    def to_json(self) -> str:
        """The content of a `tokenizer.json`, which `from_file` reads."""
        return self._rules.to_str(pretty=True)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the rows of the text encoder's embedding."""
        return max(self._ids.values()) + 1

    @property
    def words(self) -> list[str]:
        """The vocabulary without its special tokens, in the order of the ids."""
        special = {START, END, UNKNOWN}
        return sorted(set(self._ids) - special, key=lambda word: self._ids[word])

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt without a token, once each, in order, without punctuation."""
        known = self._split(prompt)  # notes learned words as used
        if self._unknown is None:
            return []
        prompt = " ".join(text for text, ids in known if not ids)
        found = self._encoded(prompt)
        spans = zip(found.ids, found.offsets, strict=True)
        unknown = [prompt[a:b] for token, (a, b) in spans if token == self._unknown]
        return list(dict.fromkeys(word for word in unknown if any(map(str.isalnum, word))))

    def words_of(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of a text, each with its tokens; unknown words are left out.

        The rules of the vocabulary split the text into words; for CLIP, punctuation is one too.
        """
        words: list[tuple[str, tuple[int, ...]]] = []
        for piece, ids in self._split(text):
            words += [(piece, ids)] if ids else self._own_words(piece)
        return words

    def learn(self, name: str, ids: Sequence[int]) -> None:
        """Add a word for these tokens; letter case does not matter.

        Raises ValueError if the word cannot be typed, or has been learned or added before.
        """
        word = self.typed(name)
        if word is None or word in self._learned or word in map(self._normal, self.added):
            what = "cannot be typed" if word is None else "is known already"
            raise ValueError(f"the word {name!r} {what}")
        self._learned[word] = tuple(ids)

    def typed(self, name: str) -> str | None:
        """A word as in normalised prompts; None for a word that cannot be typed.

        Such a word has no letter, or has control characters, separators other than the space,
        invisible marks, or surrogates.
        """
        plain = name.strip()
        return self._normal(plain) or None if plain.isprintable() else None

    @property
    def unused_words(self) -> list[str]:
        """The learned words that no prompt has contained since."""
        return [word for word in self._learned if word not in self._used]

    def _normal(self, text: str) -> str:
        """The text as the rules of the vocabulary normalise it: Unicode form, case, spaces."""
        return " ".join(self._form(text).lower().split())

    def _form(self, text: str) -> str:
        """The text in the Unicode form of the rules: NFKC if they join letters, else NFC."""
        rules = self._rules.normalizer
        joins = rules is not None and "\ufb01" not in rules.normalize_str("\ufb01")
        return unicodedata.normalize("NFKC" if joins else "NFC", text)

    def _split(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The text split at learned words; only these have tokens here."""
        if not self._learned:
            return [(text, ())]
        longest = sorted(self._learned, key=len, reverse=True)
        learned = "|".join(map(_alone, longest))
        cut = re.split(f"({learned})", self._form(text), flags=re.IGNORECASE)
        pieces = [(piece, self._normal(piece)) for piece in cut if piece]
        self._used.update(self._learned.keys() & {normal for _, normal in pieces})
        return [(piece, self._learned.get(normal, ())) for piece, normal in pieces]

    def _together(self, word: str) -> tuple[int, ...]:
        """The ids of an added word and of its further vectors."""
        further = (self.added.get(f"{word}_{i}") for i in count(1))
        return (self.added[word], *takewhile(lambda i: i is not None, further))

    def _encoded(self, text: str) -> tokenizers.Encoding:
        with as_value_error("the tokenizer cannot read the prompt"):
            return self._rules.encode(text, add_special_tokens=False)

    def _own_words(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of the vocabulary, and those that were added to it."""
        found = self._encoded(text)
        words: list[tuple[str, tuple[int, ...]]] = []
        places: list[int | None] = []
        for token, place, (a, b) in zip(found.ids, found.word_ids, found.offsets, strict=True):
            if token == self._unknown:
                continue
            vectors = self._vectors.get(token, (token,))
            if places and places[-1] == place:
                word, ids = words[-1]
                words[-1] = (word + text[a:b], (*ids, *vectors))
            else:
                words.append((text[a:b], vectors))
                places.append(place)
        return words

    def encode(
        self, prompts: Sequence[str], truncate: bool = False
    ) -> Int[Tensor, "batch context_length"]:
        """Token ids of each prompt, a row of `context_length`.

        Args:
            prompts: any number of prompts; an empty one gives start, end and padding.
            truncate: of a prompt that is too long, keep the first words that fit, or the beginning
                of a single longer one. The row is that of `sd.text.conditioning.rows`.

        Raises:
            ValueError: a prompt is not a string, or has more than `context_length - 2` tokens and
                `truncate` is False.
        """
        if isinstance(prompts, str):
            raise ValueError(f"prompts: wanted a list of strings, got the string {prompts!r}")
        rows = [self._row(prompt, truncate) for prompt in prompts]
        return torch.tensor(rows, dtype=torch.long, device="cpu").reshape(
            len(rows), self.context_length
        )

    def _row(self, prompt: str, truncate: bool) -> list[int]:
        if not isinstance(prompt, str):
            raise ValueError(f"prompt: wanted a string, got {prompt!r}")
        words = [ids for _, ids in self._own_words(prompt)]
        count, room = sum(map(len, words)), self.context_length - 2
        if count > room and not truncate:
            shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
            raise ValueError(
                f"the prompt {shown!r} has {count} tokens; this model reads at most {room}"
            )
        ids: list[int] = []
        for word in words:
            if ids and len(ids) + len(word) > room:
                break
            ids += word
        row = [self.start_token, *ids[:room], self.end_token]
        return row + [self.pad_token] * (self.context_length - len(row))


def _alone(word: str) -> str:
    """The pattern of a whole word: no letter or digit before or after its own."""
    before, after = (
        "" if re.fullmatch(r"\W", letter) else edge
        for letter, edge in ((word[0], r"(?<!\w)"), (word[-1], r"(?!\w)"))
    )
    inside = r"\s+".join(map(re.escape, word.split(" ")))
    return f"{before}{inside}{after}"


def word_level(words: Sequence[str]) -> tokenizers.Tokenizer:
    """Rules with one token a word, without case; the end token has the last id, as in CLIP.

    Ids: the unknown word 0, then the words in order, then the start and the end token.
    """
    names = [UNKNOWN, *words, START, END]
    if len(set(names)) != len(names):
        raise ValueError("words: wanted different words, none a special token")
    vocabulary = {name: i for i, name in enumerate(names)}
    rules = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    rules.add_special_tokens([UNKNOWN, START, END])
    rules.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    rules.pre_tokenizer = pre_tokenizers.Whitespace()  # words, and runs of punctuation
    rules.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, vocabulary[t]) for t in (START, END)]
    )
    return rules


if __name__ == "__main__":  # python -m sd.text.tokenizer sd/assets/tokenizer.json
    word_level(VOCABULARY).save(sys.argv[1], pretty=True)
