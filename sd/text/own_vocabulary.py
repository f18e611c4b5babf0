"""A vocabulary of one's own captions, in the form of CLIP's: byte-level pairs."""

from collections.abc import Iterable

import tokenizers
from tokenizers import models, trainers

from sd.files.regular_file import parse_json
from sd.text.clip_vocabulary import rules_of_merges

__all__ = ["learned_rules"]

END = "</w>"
"""What marks the end of a word in the names of tokens."""
RAREST = 2
"""Occurrences of a pair below which it is not merged."""


def learned_rules(captions: Iterable[str], most: int) -> tokenizers.Tokenizer:
    """CLIP's rules with at most `most` merges, the most frequent pairs of the captions.

    Every text has tokens, since all bytes are among them; the end token is the last. The same
    captions give the same rules: of equally frequent pairs, that of the older tokens goes first.
    Source: Sennrich et al. 2016, arXiv:1508.07909, section 3.2.
    """
    bare = rules_of_merges([])
    letters = sorted(name for name in bare.get_vocab(with_added_tokens=False) if len(name) == 1)
    learned = tokenizers.Tokenizer(models.BPE(end_of_word_suffix=END))
    learned.normalizer, learned.pre_tokenizer = bare.normalizer, bare.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(letters) + most,
        min_frequency=RAREST,
        initial_alphabet=letters,
        special_tokens=[letter + END for letter in letters],  # else their order is random
        end_of_word_suffix=END,
        show_progress=False,
    )
    learned.train_from_iterator(sorted(captions), trainer)
    found = parse_json(learned.to_str())["model"]["merges"]
    merges = [tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in found]
    return rules_of_merges(merges[:most])
