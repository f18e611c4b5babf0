"""The vocabulary of one's own captions: learned from the training, wide enough for all."""

from types import SimpleNamespace
from typing import Any

import pytest

from sd.train.vocabulary import LONGEST, vocabulary

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


def test_captions_beyond_clips_context_are_cut_and_said(recwarn: pytest.WarningsRecorder) -> None:
    found = vocabulary(source("a cat", "a cat", "zebra " * 40), 50)
    assert found.context_length == LONGEST
    assert "captions of more than 75 tokens are cut; the longest has" in str(recwarn[0].message)
