"""The vocabulary of one's own captions."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sd.command_line.terminal import escaped
from sd.text.own_vocabulary import learned_rules
from sd.text.prompt import literal, marked
from sd.text.tokenizer import Tokenizer
from sd.train.source import Own

SHOWN = 3
"""Words that a message names."""
LONGEST = 77
"""The longest context in tokens, as CLIP's."""


def vocabulary(source: Own, merges: int) -> Tokenizer:
    """Learned from the captions of the training, for captions as long as any of the folder."""
    captions = source.folder.captions
    rules = learned_rules([text for index in source.trained for text in captions[index]], merges)
    said = [text for some in captions for text in some]
    longest = max(len(one.ids) for one in rules.encode_batch(said, add_special_tokens=False))
    return Tokenizer(rules, min(LONGEST, longest + 2))


def warn_captions(said: Sequence[str], tokenizer: Tokenizer) -> None:
    """Warn of captions that are cut, have unknown words, or are not themselves as prompts."""
    room = tokenizer.context_length - 2
    longest = max(sum(len(ids) for _, ids in tokenizer.words_of(text)) for text in said)
    if longest > room:
        what = f"captions of more than {room} tokens are cut"
        warnings.warn(f"--data: {what}; the longest has {longest}", stacklevel=2)
    unknown = dict.fromkeys(word for text in said for word in tokenizer.unknown_words(text))
    if unknown:
        named = escaped(", ".join(list(unknown)[:SHOWN]))
        what = f"{len(unknown)} words of the captions are not in the vocabulary and left out"
        warnings.warn(f"--data: {what}, such as {named}", stacklevel=2)
    acting = [text for text in said if marked(text)]
    if acting:
        shortest = min(acting, key=len)
        how = escaped(f"for {shortest!r} write {literal(shortest)}")
        what = f"{len(acting)} of {len(said)} captions have marks, which are plain text here"
        why = "generate reads them as weights or breaks"
        warnings.warn(f"--data: {what}; {why}: in its prompts, {how}", stacklevel=2)


@contextmanager
def captions_told() -> Iterator[None]:
    """Without the warnings of prompts that are captions, of which `warn_captions` has told."""
    with warnings.catch_warnings():
        for begin in ("cut off the prompt", "the model does not know", "prompt: read as plain"):
            warnings.filterwarnings("ignore", begin, UserWarning)
        yield


def digest(tokenizer: Tokenizer) -> str:
    """What tells one vocabulary from another."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()[:16]
