"""The vocabulary of one's own captions."""

import hashlib
import warnings

from sd.text.own_vocabulary import learned_rules
from sd.text.tokenizer import Tokenizer
from sd.train.source import Own

LONGEST = 77
"""The longest context in tokens, as CLIP's."""


def vocabulary(source: Own, merges: int) -> Tokenizer:
    """Learned from the captions of the training, for captions as long as any of the folder.

    Warns if captions are cut.
    """
    captions = source.folder.captions
    rules = learned_rules([text for index in source.trained for text in captions[index]], merges)
    said = [text for some in captions for text in some]
    longest = max(len(one.ids) for one in rules.encode_batch(said, add_special_tokens=False))
    if longest + 2 > LONGEST:
        what = f"captions of more than {LONGEST - 2} tokens are cut"
        warnings.warn(f"--data: {what}; the longest has {longest}", stacklevel=2)
    return Tokenizer(rules, min(LONGEST, longest + 2))


def digest(tokenizer: Tokenizer) -> str:
    """What tells one vocabulary from another."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()[:16]
