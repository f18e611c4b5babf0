"""The vocabulary of one's own captions: learned from the training, wide enough for all."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from sd.text.conditioning import context
from sd.text.tokenizer import Tokenizer, word_level
from sd.train.vocabulary import LONGEST, captions_told, vocabulary, warn_captions
from sd.unused_arguments import warn_prompts

pytestmark = pytest.mark.usefixtures("unchecked")


def source(*captions: str) -> Any:
    """A folder whose last caption is held out."""
    folder = SimpleNamespace(captions=[(one,) for one in captions])
    return SimpleNamespace(folder=folder, trained=range(len(captions) - 1))


def test_a_held_out_caption_is_read_whole() -> None:
    """It may be longer than those of the training, and its words are not among the merges."""
    found = vocabulary(source("a cat", "a cat", "a very long story about a cat"), 50)
    assert len(found.words_of("a cat")[0][1]) == 1
    (row,) = found.encode(["a very long story about a cat"]).tolist()
    assert len(row) == found.context_length and row[-1] == found.end_token


def test_captions_beyond_clips_context_are_cut_and_said() -> None:
    said = ("a cat", "a cat", "zebra " * 40)
    found = vocabulary(source(*said), 50)
    assert found.context_length == LONGEST
    with pytest.warns(UserWarning, match="of more than 75 tokens are cut; the longest has 200$"):
        warn_captions(said, found)


def test_captions_with_marks_are_said_in_one_line_with_how_to_write_them() -> None:
    said = ("an old (very old) cat", "a (cat)", "a smile :)", "no BREAK")
    with pytest.warns(UserWarning, match="captions have marks") as given:
        warn_captions(said, vocabulary(source(*said), 50))
    (line,) = [str(one.message) for one in given]
    assert line == (
        "--data: 3 of 4 captions have marks, which are plain text here; generate reads them as "
        r"weights or breaks: in its prompts, for 'a (cat)' write a \(cat\)"
    )


def test_words_outside_the_vocabulary_are_said() -> None:
    known = Tokenizer(word_level(["a", "cat"]), 8)
    with pytest.warns(UserWarning, match="^--data: 2 words of the captions .* such as red, dog$"):
        warn_captions(["a red cat", "a red dog"], known)


def test_what_was_told_is_not_told_again() -> None:
    known = Tokenizer(word_level(["a", "cat"]), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with captions_told():
            warn_prompts(known, ["a {red} dog"])
            context(lambda tokens: tokens[..., None], known, ["a cat"], "truncate")
        with pytest.raises(UserWarning, match="cut off"):
            context(lambda tokens: tokens[..., None], known, ["a cat"], "truncate")
