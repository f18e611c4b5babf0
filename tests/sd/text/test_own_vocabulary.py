"""A vocabulary of one's own captions: CLIP's rules, learned merges, every text has tokens."""

import itertools
from pathlib import Path

import pytest

from sd.text.own_vocabulary import learned_rules
from sd.text.tokenizer import Tokenizer

CAPTIONS = ["a red heart", "a blue heart", "a red book", "hearts and books"] * 3


def test_frequent_words_are_one_token_and_other_text_has_bytes() -> None:
    tokenizer = Tokenizer(learned_rules(CAPTIONS, 100), 20)
    ids = dict(tokenizer.words_of("Red heart zebra"))
    assert len(ids["Red"]) == len(ids["heart"]) == 1 and len(ids["zebra"]) > 1
    assert tokenizer.unknown_words("zebra été 🙂") == []
    assert tokenizer.end_token == tokenizer.vocab_size - 1 == tokenizer.start_token + 1


@pytest.mark.parametrize("most", [0, 3, 8])
def test_there_are_at_most_so_many_merges(most: int) -> None:
    tokenizer = Tokenizer(learned_rules(CAPTIONS, most), 20)
    assert tokenizer.vocab_size == 512 + most + 2


def test_the_order_of_the_captions_changes_nothing() -> None:
    assert learned_rules(CAPTIONS, 50).to_str() == learned_rules(CAPTIONS[::-1], 50).to_str()


def test_it_is_written_and_read(tmp_path: Path) -> None:
    tokenizer = Tokenizer(learned_rules(CAPTIONS, 50), 20)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json", 20)
    assert again.encode(CAPTIONS).tolist() == tokenizer.encode(CAPTIONS).tolist()


def test_the_same_captions_give_the_same_rules() -> None:
    """Pairs are often equally frequent, and a resumed training needs the same tokens."""
    words = ["".join(word) for word in itertools.product("abcde", "fghij", "klm")]
    assert len({learned_rules(2 * words, 60).to_str() for _ in range(6)}) == 1
